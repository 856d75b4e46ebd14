"""A load in a process of its own, so that the servers are measured apart from it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import traceback
from collections.abc import Awaitable, Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Self

try:
    import uvloop
except ImportError:  # The standard library's loop does too, at more CPU a frame.
    NEW_EVENT_LOOP: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    NEW_EVENT_LOOP = uvloop.new_event_loop


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
            # uvloop leaves it non-blocking: a value larger than the pipe's buffer would then fail.
            os.set_blocking(self._connection.fileno(), True)


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
        self._name = load.__name__
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
        except TimeoutError as error:
            detail = f"the load `{self._name}` has not answered within {timeout_seconds:g} s"
            raise TimeoutError(detail) from error
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
