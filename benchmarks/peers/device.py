"""What a client of a peer does: how it connects, what it says then, and how it reads what comes.

A device does no I/O. It outlives its connections, and holds whatever its peer's protocol needs to
find out what it missed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

Send = Callable[[bytes], None]
"""Sends one data frame."""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What asks for a WebSocket."""

    path: str
    subprotocol: str = ""
    token: str = ""


class Device(Protocol):
    """One client, over all its connections.

    Attributes:
        ready: Whether what is published from now on reaches it.
    """

    ready: bool

    def upgrade(self) -> Upgrade:
        """Begin a connection; `ready` is False from here on."""
        ...

    def opened(self, send: Send) -> None:
        """The WebSocket is open."""
        ...

    def take(self, frame: bytes, send: Send) -> Sequence[bytes]:
        """Read a frame, and return the messages in it."""
        ...


class Dialect(Protocol):
    """Makes the devices of one run; passed to another process, so it is picklable."""

    @property
    def port(self) -> int:
        """Where they connect."""
        ...

    @property
    def opcode(self) -> int:
        """Of the data frames that both sides send."""
        ...

    def device(self, user: str, channel: str) -> Device:
        """The device of a user, who is told what is published on one channel."""
        ...
