"""Frames of the server: made once, and the same bytes for every client that is sent them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from livefeed.websocket import TEXT, frame

EXTENSION: Final = "livefeed.frames"
"""The ASGI extension of a websocket scope through which ready-made frames are written: a dict with
a `FrameWriter` as `writer`."""
WAITING_EXTENSION: Final = "livefeed.waiting"
"""The one of a scope of HTTP that tells how much of an answer waits in the transport: a dict with a
function as `bytes`."""


class Frame:
    """One text message.

    Attributes:
        wire: Its bytes on the wire; a field, not a property, because each socket reads it.
        payload_bytes: The size of what it carries.
    """

    __slots__ = ("payload_bytes", "wire")

    def __init__(self, payload: bytes) -> None:
        self.payload_bytes = len(payload)
        self.wire: Final = frame(TEXT, payload)

    @property
    def payload(self) -> bytes:
        """What it carries."""
        return self.wire[len(self.wire) - self.payload_bytes :]


def waiting_bytes(scope: Mapping[str, Any]) -> Callable[[], int] | None:
    """How many bytes of a request's answer wait in the transport; None where nobody tells."""
    extension = scope.get("extensions", {}).get(WAITING_EXTENSION)
    return None if extension is None else extension["bytes"]


class FrameWriter(Protocol):
    """What the server offers under `EXTENSION`.

    Attributes:
        paused: Whether more waits to be sent than should.
        ended: Whether nothing may be written any more: a close frame was sent, or the client is
            gone.
        on_change: Called when `paused` or `ended` has changed.
        write: Writes the bytes of a frame at once; never waits.
    """

    paused: bool
    ended: bool
    on_change: Callable[[], None] | None

    @property
    def write(self) -> Callable[[bytes], None]: ...

    def waiting(self) -> int:
        """Bytes that wait to be sent."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Close after what was written."""
        ...
