"""The writer of one connection: a bounded outbox in front of an ASGI WebSocket."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from starlette.websockets import WebSocket, WebSocketDisconnect

from livefeed.limits import OUTBOX_BYTES_LIMIT, OUTBOX_BYTES_MAX
from livefeed.protocol import CloseCode


class Socket:
    """Sends frames in order; never waits, never grows beyond its bound.

    Above the bound `has_room` is false until half of it was written: the connection stops sending
    and remembers that it is behind. Whoever makes it send more all the same is closed.
    """

    def __init__(self, websocket: WebSocket, *, on_room: Callable[[], None]) -> None:
        self._websocket = websocket
        self._on_room = on_room
        self._outbox: deque[str] = deque()
        self._bytes = 0
        self._full = False
        self._room = asyncio.Event()
        self._room.set()
        self._wake = asyncio.Event()
        self._close: tuple[int, str] | None = None
        self.closed = False

    @property
    def has_room(self) -> bool:
        """Whether more may be sent now."""
        return not self._full and not self.closed

    @property
    def pending_bytes(self) -> int:
        """Bytes that were sent and are not written yet."""
        return self._bytes

    async def room(self) -> None:
        """Return when there is room: who does not read what we answer is not listened to."""
        await self._room.wait()

    def send(self, frame: str) -> None:
        """Put a frame into the outbox."""
        if self.closed or self._close is not None:
            return
        self._outbox.append(frame)
        self._bytes += _size(frame)
        if self._bytes >= OUTBOX_BYTES_MAX:
            self._full = True
            self._room.clear()
        if self._bytes >= OUTBOX_BYTES_LIMIT:
            self.cut(CloseCode.TOO_SLOW, "come back")
        self._wake.set()

    def close(self, code: CloseCode, reason: str) -> None:
        """Close after what is in the outbox."""
        self._close = self._close or (int(code), reason)
        self._wake.set()

    def cut(self, code: CloseCode, reason: str) -> None:
        """Close without what is in the outbox: who does not read it has to come back for it."""
        self._bytes -= sum(map(_size, self._outbox))
        self._outbox.clear()
        self.close(code, reason)

    async def write(self) -> None:
        """Write until the connection ends; the connection's own task runs this."""
        try:
            while self._close is None or self._outbox:
                await self._wake.wait()
                self._wake.clear()
                await self._write_outbox()
            code, reason = self._close
            await self._websocket.close(code, reason)
        except (WebSocketDisconnect, RuntimeError, OSError):
            pass  # The client is gone; whoever reads from it knows.
        finally:
            self.closed = True
            self._outbox.clear()
            self._room.set()

    async def _write_outbox(self) -> None:
        while self._outbox:
            frame = self._outbox.popleft()
            await self._websocket.send_text(frame)
            self._bytes -= _size(frame)
            if self._full and self._bytes < OUTBOX_BYTES_MAX // 2:
                self._full = False
                self._room.set()
                self._on_room()


def _size(frame: str) -> int:
    """Bytes of a frame on the wire; most are ASCII, which a string knows of itself."""
    return len(frame) if frame.isascii() else len(frame.encode())
