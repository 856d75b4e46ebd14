"""The sockets that a gateway listens on: its own, or beside other processes on the same port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from livefeed.errors import Misconfigured
from livefeed.limits import SEND_BUFFER_BYTES

BACKLOG: Final = 4096


@dataclass(frozen=True, slots=True)
class Doors:
    """What one process of a gateway accepts on."""

    public: socket.socket
    ops: socket.socket
    say_started: Callable[[], None] = lambda: None
    """Called when both are served."""
    handed_over: asyncio.Event = field(default_factory=asyncio.Event)
    """Another process accepts on them now: this one is to accept no more when it leaves."""


def listen(host: str, port: int, setting: str) -> socket.socket:
    """Listen on a port that nobody else has; raises Misconfigured, naming the setting."""
    return _listening(_bound(host, port, setting))


def reserve(host: str, port: int, setting: str) -> socket.socket:
    """Take a port without listening, so that `listen_beside` may, and nobody else's `reserve`.

    Raises:
        Misconfigured: When the port is taken, naming the setting.
    """
    guard = _bound(host, port, setting)
    # Only now: bound with it, this would also succeed beside another gateway.
    guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return guard


def listen_beside(guard: socket.socket) -> socket.socket:
    """Listen on a port that is reserved, beside others that do; each gets its share."""
    beside = socket.socket(guard.family)
    beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    beside.bind(guard.getsockname())
    return _listening(beside)


def _bound(host: str, port: int, setting: str) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        detail = f"{host}:{port} cannot be used ({error.strerror}); set {setting} to a free port"
        raise Misconfigured(detail) from error
    return bound


def _listening(bound: socket.socket) -> socket.socket:
    # What is accepted has it too: a slow reader is seen before the system has taken megabytes.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    bound.listen(BACKLOG)
    bound.setblocking(False)
    return bound
