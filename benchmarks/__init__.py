"""Scenarios that load the real parts and measure them.

Here is what all of them share: the latency recorder, the usage of processes, the load process.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final, Self

import psutil

try:
    import uvloop
except ImportError:  # The standard library's loop does too, at more CPU a frame.
    NEW_EVENT_LOOP: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    NEW_EVENT_LOOP = uvloop.new_event_loop

GAMMA: Final = 1.04
BINS: Final = 420
FIRST_SECONDS: Final = 10e-6
_SCALE: Final = 1 / math.log(GAMMA)


@dataclass(slots=True)
class LatencyRecorder:
    """Latencies in logarithmic buckets: at most 2 % wrong, mergeable, 0.25 µs a record."""

    bins: list[int] = field(default_factory=lambda: [0] * BINS)
    """Bucket i holds from 10 µs × 1.04^i on; the last one holds everything above 140 s."""
    count: int = 0
    total: float = 0.0
    """Seconds, of all of them."""
    maximum: float = 0.0

    def record(self, seconds: float) -> None:
        """Count one latency."""
        # A clock read on another core may be a little behind: that is 0, not an error.
        place = int(math.log(seconds / FIRST_SECONDS) * _SCALE) if seconds > FIRST_SECONDS else 0
        self.bins[place if place < BINS else BINS - 1] += 1
        self.count += 1
        self.total += seconds
        if seconds > self.maximum:  # noqa: PLR1730  # max() is a call, and this runs for each frame
            self.maximum = seconds

    def merge(self, other: LatencyRecorder) -> None:
        """Add what another one counted."""
        self.bins = [mine + theirs for mine, theirs in zip(self.bins, other.bins, strict=True)]
        self.count += other.count
        self.total += other.total
        self.maximum = max(self.maximum, other.maximum)

    def percentile(self, percent: float) -> float:
        """Seconds below which `percent` of the latencies lie; 0 when there are none."""
        wanted = math.ceil(self.count * percent / 100)
        passed = 0
        for place, number in enumerate(self.bins):
            passed += number
            if number and passed >= wanted:
                # The bucket's middle, but never more than was seen; the last one has no middle.
                middle: float = FIRST_SECONDS * GAMMA ** (place + 0.5)
                return min(middle, self.maximum) if place < BINS - 1 else self.maximum
        return 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes have used, all of them together."""

    cpu_seconds: float
    """User and system, since each began; in steps of 10 ms a process."""
    rss_bytes: int
    """Resident memory now; pages that they share count in each of them."""


def usage_of(pids: Iterable[int]) -> Usage:
    """Measure whole processes, without their children; one that is gone counts as nothing."""
    cpu_seconds, rss_bytes = 0.0, 0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                cpu_seconds += times.user + times.system
                rss_bytes += process.memory_info().rss
    return Usage(cpu_seconds, rss_bytes)


class LoadFailed(Exception):
    """The load process failed or died; the text is its traceback or exit code."""


class Link:
    """One end of the pipe between a scenario and its load process: whole picklable values."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, value: Any) -> None:
        """Send one value; blocks when the other end does not read."""
        self._connection.send(value)

    async def receive(self, *, timeout_seconds: float | None = None) -> Any:
        """The next value.

        Raises:
            EOFError: When the other end is closed.
            TimeoutError: When nothing comes in time.
        """
        async with asyncio.timeout(timeout_seconds):
            while not self._connection.poll():
                await self._readable()
        return self._connection.recv()

    def close(self) -> None:
        """Tell the other end that no more comes."""
        self._connection.close()

    async def _readable(self) -> None:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._connection.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._connection.fileno())


Load = Callable[..., Awaitable[None]]
"""An async function at the top level of a module: `async def load(link: Link, *arguments)`."""


class LoadProcess:
    """Runs a load in a process of its own, on uvloop where there is one.

    `async with LoadProcess(load, ...) as process`: commands go by `process.send`, results come by
    `await process.receive()`. At the end the load's `link.receive()` raises EOFError.
    """

    def __init__(self, load: Load, *arguments: Any) -> None:
        context = get_context("spawn")
        mine, theirs = context.Pipe()
        self._link = Link(mine)
        self._process = context.Process(
            target=_run_load, args=(theirs, load, arguments), daemon=True
        )
        self._process.start()
        # Only the child may hold it, or its death would not close the pipe.
        theirs.close()

    @property
    def pid(self) -> int:
        """The process's id, to measure it."""
        assert self._process.pid is not None
        return self._process.pid

    def send(self, command: Any) -> None:
        """Give the load a command."""
        self._link.send(command)

    async def receive(self, *, timeout_seconds: float | None = 60.0) -> Any:
        """The load's next result.

        Raises:
            LoadFailed: When it raised an error or died.
            TimeoutError: When nothing comes in time.
        """
        try:
            failed, value = await self._link.receive(timeout_seconds=timeout_seconds)
        except (EOFError, ConnectionResetError):
            await asyncio.to_thread(self._process.join, 5.0)
            raise LoadFailed(f"it ended with exit code {self._process.exitcode}") from None
        if failed:
            raise LoadFailed(value)
        return value

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    def stop(self, *, timeout_seconds: float = 5.0) -> None:
        """Let it end, and kill it when it does not."""
        self._link.close()
        self._process.join(timeout_seconds)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


class _LoadLink(Link):
    """The load's end: its values are told apart from its failure."""

    def send(self, value: Any) -> None:
        super().send((False, value))

    def fail(self, text: str) -> None:
        super().send((True, text))


def _run_load(connection: Connection, load: Load, arguments: tuple[Any, ...]) -> None:
    # Ctrl-C reaches the whole terminal; the scenario decides when its load ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = _LoadLink(connection)
    try:
        with asyncio.Runner(loop_factory=NEW_EVENT_LOOP) as runner:
            runner.run(_awaited(load(link, *arguments)))
    except EOFError:
        return  # The scenario is done.
    except Exception:  # noqa: BLE001  # whatever it is, the scenario has to hear of it
        with contextlib.suppress(OSError):
            link.fail(traceback.format_exc())


async def _awaited(load: Awaitable[None]) -> None:
    await load
