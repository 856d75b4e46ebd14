"""Processes that die with their parent, and what the embedded servers share.

Not asyncio's own subprocesses: uvloop's take no `user`, and asyncio's need a thread a child.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final, Protocol

from livefeed.errors import Unavailable
from livefeed.limits import MIB

LOG_BYTES_MAX: Final = 10 * MIB
"""A log above this is moved to `.1`, at the start and once a minute."""
LOG_CHECK_SECONDS: Final = 60.0
TAIL_LINES: Final = 15
POLL_SECONDS: Final = 0.01
KILLED_SECONDS_MAX: Final = 5.0
PR_SET_PDEATHSIG: Final = 1

Stops = Sequence[tuple[signal.Signals, float]]
"""Signals to send in turn, each with the seconds to wait for it."""


class Running(Protocol):
    """A process that somebody looks after."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int:
        """Wait until it has ended, and return its exit code; negative is a signal's number."""
        ...

    async def stop(self, stops: Stops) -> int:
        """Send one signal after the other, then SIGKILL, until it has ended."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """The user and group that a child runs as, when that is not our own."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Launch:
    """How a child is started, apart from its arguments."""

    log: Path | None
    """Where its output goes; None: where ours goes."""
    directory: Path
    death_signal: signal.Signals = signal.SIGKILL
    """Sent by the kernel when the thread that started it ends: start from the main thread."""
    identity: Identity | None = None
    environment: Mapping[str, str] | None = None


class Child:
    """One process in a session of its own, whose output is appended to a log file.

    Its own session, because Ctrl-C in a terminal has to reach the supervisor alone.
    """

    def __init__(
        self, argv: Sequence[str], launch: Launch, *, stdin: bytes = b"", keep: Sequence[int] = ()
    ) -> None:
        self._log = launch.log
        self._log_start = 0
        if launch.log is None:
            self._popen = _popen(argv, launch, stdin=stdin, keep=keep, output=None)
        else:
            trim_log(launch.log)
            with open(launch.log, "ab", opener=open_private) as output:
                self._log_start = output.tell()
                self._popen = _popen(argv, launch, stdin=stdin, keep=keep, output=output)
        if self._popen.stdin:
            with contextlib.suppress(BrokenPipeError), self._popen.stdin as pipe:
                pipe.write(stdin)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        return self._popen.poll()

    def output(self) -> str:
        """Read what this run wrote to its log."""
        if self._log is None:
            return ""
        with self._log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(min(self._log_start, size), size - MIB))
            return log.read().decode(errors="replace")

    def tail(self) -> str:
        """Read the last lines that this run wrote."""
        return "\n".join(self.output().splitlines()[-TAIL_LINES:]) or "(its log is empty)"

    async def wait(self) -> int:
        """Wait until it has ended, and return its exit code; meanwhile keep its log short."""
        while (code := self._popen.poll()) is None:
            await _ended(self._popen.pid, LOG_CHECK_SECONDS)
            if self._log is not None:
                trim_log(self._log)
        return code

    async def stop(self, stops: Stops) -> int:
        """Send one signal after the other, then SIGKILL, until it has ended."""
        for number, seconds in stops:
            if self._popen.poll() is None:
                self._popen.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    return await self.wait()
        self._popen.kill()
        return await self.wait()

    def kill(self) -> None:
        """Send SIGKILL, and block until the process is gone: milliseconds, at most 5 s."""
        self._popen.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(KILLED_SECONDS_MAX)

    def kill_all(self) -> None:
        """Do as `kill` does, to the processes that it started too; nothing when it has ended."""
        if self._popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            self.kill()


def _popen(
    argv: Sequence[str],
    launch: Launch,
    *,
    stdin: bytes,
    keep: Sequence[int],
    output: IO[bytes] | None,
) -> subprocess.Popen[bytes]:
    identity = launch.identity
    with warnings.catch_warnings():
        # Python ≥ 3.12 warns of a fork beside threads; ours makes system calls, and execs.
        warnings.simplefilter("ignore", DeprecationWarning)
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            cwd=launch.directory,
            env=launch.environment,
            start_new_session=True,
            user=identity.uid if identity else None,
            group=identity.gid if identity else None,
            extra_groups=[] if identity else None,
            pass_fds=keep,
            preexec_fn=die_with_parent(launch.death_signal),  # noqa: PLW1509 - see there
        )


class EmbeddedServer:
    """A server that is a child of this process.

    Args:
        dependency: The name that errors carry: `nats`, `primary` or `replica`.
        log: The file that its output is appended to.
    """

    def __init__(self, dependency: str, log: Path) -> None:
        self.dependency = dependency
        self.log = log
        self._child: Child | None = None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.exit_code is None

    @property
    def pid(self) -> int:
        """Return the process id; raises `Unavailable` before the first start."""
        return self._started().pid

    async def wait(self) -> int:
        """Wait until it dies, and return its exit code; negative is the number of a signal."""
        return await self._started().wait()

    def kill(self) -> None:
        """Kill it as a crash would, with SIGKILL; returns when the process is gone."""
        if self._child is not None:
            self._child.kill()

    def _started(self) -> Child:
        if self._child is None:
            raise Unavailable(self.dependency, "it was not started yet; await start() first")
        return self._child

    async def _start(
        self, child: Child, ready: Callable[[Child], Awaitable[bool]], seconds: float
    ) -> None:
        """Wait until a child is ready; else it is killed, and `Unavailable` raised."""
        self._child = child
        try:
            async with asyncio.timeout(seconds):
                while not await ready(child):
                    if child.exit_code is not None:
                        raise self._failed(f"exited with {child.exit_code}", child)
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            child.kill()
            raise self._failed(f"was not ready within {seconds:g} s", child) from None
        except BaseException:
            child.kill()
            raise

    async def _stop(self, stops: Stops) -> None:
        if self._child is not None:
            await self._child.stop(stops)

    def _failed(self, what: str, child: Child) -> Unavailable:
        return Unavailable(self.dependency, f"the embedded server {what}; its log:\n{child.tail()}")


async def run(
    dependency: str, argv: Sequence[str], launch: Launch, *, seconds: float, stdin: bytes = b""
) -> str:
    """Run a program to its end and return its output; raises `Unavailable` when it fails.

    Args:
        dependency: The name that the error carries.
        argv: The program and its arguments.
        launch: Where and as whom it runs; its log is not used.
        seconds: How long it may take.
        stdin: What it reads; at most what a pipe holds, 64 KiB.
    """
    name = Path(argv[0]).name
    with tempfile.NamedTemporaryFile(dir=launch.directory, prefix=f"{name}.") as output:
        child = Child(argv, replace(launch, log=Path(output.name)), stdin=stdin)
        try:
            async with asyncio.timeout(seconds):
                code = await child.wait()
        except TimeoutError:
            detail = f"{name} took longer than {seconds:g} s:\n{child.tail()}"
            raise Unavailable(dependency, detail) from None
        finally:
            child.kill_all()
        if code != 0:
            raise Unavailable(dependency, f"{name} exited with {code}:\n{child.tail()}")
        return child.output()


def free_port() -> int:
    """Return a port of the loopback address that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def trim_log(log: Path) -> None:
    """Move a log above LOG_BYTES_MAX to `.1`; the writers go on at its start, for they append."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_BYTES_MAX:
            shutil.copy2(log, log.with_name(log.name + ".1"))
            os.truncate(log, 0)


def open_private(path: str, flags: int) -> int:
    """Open as `open` would, but make a new file readable to its owner alone: an `opener`."""
    return os.open(path, flags, 0o600)


def die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Return what a child does at its start so that the kernel ends it with us (Linux alone)."""
    if sys.platform != "linux":
        return None
    # Safe beside threads: it takes no lock. PyDLL, because it keeps the interpreter's.
    prctl = ctypes.PyDLL(None).prctl
    parent = os.getpid()

    def arrange() -> None:
        # Runs after setuid, which would clear it.
        prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # we died before the kernel knew
            os.kill(os.getpid(), signal.SIGKILL)

    return arrange


async def _ended(pid: int, seconds: float) -> None:
    """Return when a child has ended, or earlier: look again."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or forbidden in this container
        await asyncio.sleep(5 * POLL_SECONDS)
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
