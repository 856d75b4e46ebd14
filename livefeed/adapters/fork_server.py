"""Starts processes from one that has imported everything already: it forks, and nothing is loaded.

A worker lives for minutes, and the first update after silence waits for one: to start an
interpreter and to import what it runs takes a fifth of a second of CPU, a fork a few milliseconds.
The server is a process of its own, without threads or a running loop, so there is nothing that a
fork could break. Linux alone; elsewhere, and whenever the server does not answer, processes are
started as always.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import random
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from livefeed.adapters.process import Child, Launch, Stops, die_with_parent

logger = logging.getLogger(__name__)

ANSWER_SECONDS_MAX: Final = 1.0
"""How long a fork may take; then the server is given up, and another one started."""
MESSAGE_BYTES_MAX: Final = 4096
ARGUMENTS_BYTES_MAX: Final = 512
"""Room for what a process is shown as; a longer command line is cut."""
READY: Final = b"ready"
UNKNOWN_END: Final = -int(signal.SIGKILL)
"""The exit code of a process whose end nobody could tell."""


class ForkedChild:
    """A process that the server forked; see `process.Child`."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def ended(self, code: int) -> None:
        """Its parent says that it has ended."""
        if not self._ended.done():
            self._ended.set_result(code)
            os.close(self._descriptor)

    async def wait(self) -> int:
        """Wait until it has ended, and return its exit code; negative is a signal's number."""
        return await asyncio.shield(self._ended)

    async def stop(self, stops: Stops) -> int:
        """Send one signal after the other, then SIGKILL, until it has ended."""
        for number, seconds in stops:
            self._send(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    return await self.wait()
        self.kill()
        return await self.wait()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def lost(self) -> None:
        """Its parent is gone: whether it lives is seen by its descriptor alone."""
        if not self._ended.done():
            loop = asyncio.get_running_loop()
            loop.add_reader(self._descriptor, self._gone, loop)

    def _gone(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._descriptor)
        self.ended(UNKNOWN_END)

    def _send(self, number: signal.Signals) -> None:
        if not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)


class ForkServer:
    """Has processes forked; used from the main thread of a running loop.

    Args:
        module: Run with `-m`, it imports what the processes need and calls `serve`.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._server: Child | None = None
        self._requests: socket.socket | None = None
        self._ends: socket.socket | None = None
        self._children: dict[int, ForkedChild] = {}
        self._ready = False

    @property
    def is_open(self) -> bool:
        """Whether it runs, or is about to."""
        return self._requests is not None

    def open(self) -> None:
        """Start the server; it is ready when it has imported everything. Raises OSError."""
        requests, its_requests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ends, its_ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        requests.settimeout(ANSWER_SECONDS_MAX)
        ends.setblocking(False)
        kept = [its_requests.fileno(), its_ends.fileno()]
        argv = [sys.executable, "-m", self._module, *map(str, kept), " " * ARGUMENTS_BYTES_MAX]
        launch = Launch(log=None, directory=Path.cwd(), death_signal=signal.SIGTERM)
        with its_requests, its_ends:
            self._server = Child(argv, launch, keep=kept)
        self._requests, self._ends, self._ready = requests, ends, False
        asyncio.get_running_loop().add_reader(ends.fileno(), self._on_end)

    def start(self, arguments: Sequence[str]) -> ForkedChild | None:
        """Fork a process that runs with these arguments; None where that does not go now."""
        if self._requests is None or not self._ready:
            return None
        try:
            self._requests.send(json.dumps(list(arguments)).encode())
            answer, descriptors, _, _ = socket.recv_fds(self._requests, MESSAGE_BYTES_MAX, 1)
        except OSError:
            answer, descriptors = b"", []
        if not answer or not descriptors:
            self.close()
            return None
        pid = int(answer)
        child = self._children[pid] = ForkedChild(pid, descriptors[0])
        return child

    def close(self) -> None:
        """End the server; what it started and still runs is told to leave."""
        if self._requests is None or self._ends is None or self._server is None:
            return
        asyncio.get_running_loop().remove_reader(self._ends.fileno())
        self._requests.close()
        self._ends.close()
        self._requests = self._ends = None
        self._server.kill()
        for child in self._children.values():
            child.lost()
        self._children.clear()

    def _on_end(self) -> None:
        """The server is ready, a process has ended, or the server."""
        assert self._ends is not None and self._server is not None  # noqa: PT018 - while it is open
        try:
            message = self._ends.recv(MESSAGE_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self.close()
            return
        if message == READY:
            self._ready = True
            logger.info("processes are forked from pid %d now", self._server.pid)
            return
        pid, code = json.loads(message)
        child = self._children.pop(pid, None)
        if child is not None:
            child.ended(code)


# The server's side.


def serve(run: Callable[[list[str]], int]) -> None:
    """Fork a process for each request, until nobody can ask any more.

    Args:
        run: What a process does with its arguments; returns its exit code.
    """
    requests, ends = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    woken, waking = socket.socketpair()
    woken.setblocking(False)
    waking.setblocking(False)
    signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    ends.send(READY)
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    woken.recv(MESSAGE_BYTES_MAX)
                _tell_ends(ends)
            if requests in ready:
                message = requests.recv(MESSAGE_BYTES_MAX)
                if not message:
                    return
                _fork(json.loads(message), run, requests, [requests, ends, woken, waking, selector])


def _fork(
    arguments: list[str],
    run: Callable[[list[str]], int],
    requests: socket.socket,
    owned: Sequence[socket.socket | selectors.BaseSelector],
) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    arrange = die_with_parent(signal.SIGTERM)
    try:
        pid = os.fork()
    except OSError:
        requests.send(b"0")
        return
    if pid:
        _answer(requests, pid)
        return
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        if arrange is not None:
            arrange()
        for one in owned:
            one.close()
        random.seed()
        _show_as([sys.executable, "-m", "livefeed.cli", *arguments])
        code = run(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # Not through the server's own frames and what it does at its exit.
        os._exit(code)


def _answer(requests: socket.socket, pid: int) -> None:
    try:
        # From here, where it is not waited for yet: its number cannot be another process's.
        descriptor = os.pidfd_open(pid)
    except OSError:  # It is forbidden here, or there are no descriptors.
        os.kill(pid, signal.SIGKILL)
        requests.send(b"0")
        return
    socket.send_fds(requests, [str(pid).encode()], [descriptor])
    os.close(descriptor)


def _tell_ends(ends: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            ends.send(json.dumps([pid, os.waitstatus_to_exitcode(status)]).encode())


def _show_as(arguments: Sequence[str]) -> None:
    """Be listed with these arguments: the kernel reads them where they were at the start."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    shown = b"\0".join(map(os.fsencode, arguments))[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, shown, len(shown))
