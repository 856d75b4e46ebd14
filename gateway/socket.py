"""The writer of one connection: a bounded outbox in front of an ASGI WebSocket."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from starlette.websockets import WebSocket, WebSocketDisconnect

from livefeed.limits import OUTBOX_BYTES_MAX
from livefeed.protocol import CloseCode


class Socket:
    """Sends frames in order; never waits, never grows beyond its bound.

    Above the bound `has_room` is false: the connection stops sending and remembers that it is
    behind.
    """

    def __init__(self, websocket: WebSocket, *, on_room: Callable[[], None]) -> None:
        self._websocket = websocket
        self._on_room = on_room
        self._outbox: deque[str] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._close: tuple[int, str] | None = None
        self.closed = False

    @property
    def has_room(self) -> bool:
        """Whether more may be sent now."""
        return self._bytes < OUTBOX_BYTES_MAX and not self.closed

    def send(self, frame: str) -> None:
        """Put a frame into the outbox."""
        if self.closed or self._close is not None:
            return
        self._outbox.append(frame)
        self._bytes += len(frame)
        self._wake.set()

    def close(self, code: CloseCode, reason: str) -> None:
        """Close after what is in the outbox."""
        self._close = self._close or (int(code), reason)
        self._wake.set()

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
            self._bytes = 0

    async def _write_outbox(self) -> None:
        was_full = not self.has_room
        while self._outbox:
            frame = self._outbox.popleft()
            await self._websocket.send_text(frame)
            self._bytes -= len(frame)
            if was_full and self._bytes < OUTBOX_BYTES_MAX // 2:
                was_full = False
                self._on_room()
        if was_full:
            self._on_room()
