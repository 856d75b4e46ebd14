"""The writer of one connection: sends in order, never waits, never grows beyond its bound.

Two of one kind: over the frame extension of our own server (`gateway.wire`), where what waits is in
the transport, and over plain ASGI, where it is in an outbox of ours with a task that empties it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.frames import EXTENSION, Frame, FrameWriter
from livefeed.limits import CLOSING_SECONDS_MAX, OUTBOX_BYTES_LIMIT, OUTBOX_BYTES_MAX
from livefeed.protocol import CloseCode


class Socket(Protocol):
    """What a connection sends through.

    Above the bound `has_room` is false until half of it was written: the connection stops sending
    and remembers that it is behind. Whoever makes it send more all the same is closed. `on_room` is
    called whenever `has_room` may be another.
    """

    @property
    def write(self) -> Callable[[bytes], None] | None:
        """Writes the bytes of a frame at once, while `has_room`; None where that cannot be."""
        ...

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether more may be sent now."""
        ...

    @property
    def pending_bytes(self) -> int:
        """Bytes that were sent and are not written yet."""
        ...

    async def room(self) -> None:
        """Return when there is room: who does not read what we answer is not listened to."""
        ...

    def send(self, frame: Frame) -> None:
        """Send a frame, behind what waits."""
        ...

    def close(self, code: CloseCode, reason: str) -> None:
        """Close after what was sent."""
        ...

    def cut(self, code: CloseCode, reason: str) -> None:
        """Close without what waits: who does not read it has to come back for it."""
        ...

    def end(self) -> None:
        """The client is gone: hold nothing more for it."""
        ...


class Sink(Protocol):
    """What an outbox is emptied into: a WebSocket, or a stream of events."""

    async def send_text(self, data: str) -> None:
        """Write one message; returns when there is room for another."""
        ...

    async def close(self, code: int, reason: str | None) -> None:
        """End it."""
        ...


def open_socket(websocket: WebSocket, *, on_room: Callable[[], None]) -> Socket:
    """The writer of a WebSocket that was accepted."""
    # Taken out: the scope, which the server holds, would hold the server in turn.
    extension = websocket.scope.get("extensions", {}).pop(EXTENSION, None)
    if extension is None:
        return OutboxSocket(websocket, on_room=on_room)
    return DirectSocket(extension["writer"], on_room=on_room)


class DirectSocket:
    """Writes frames into the transport.

    `closed` and `has_room` are fields that follow the writer's: each frame of each connection looks
    at them.
    """

    __slots__ = ("_on_room", "_room", "_writer", "closed", "has_room", "write")

    def __init__(self, writer: FrameWriter, *, on_room: Callable[[], None]) -> None:
        self._writer = writer
        self.write = writer.write
        self._on_room: Callable[[], None] | None = on_room
        self._room: asyncio.Event | None = None
        """Made when somebody waits: most connections never do."""
        self.closed = writer.ended
        self.has_room = not (writer.paused or writer.ended)
        writer.on_change = self._changed

    async def room(self) -> None:
        """Return when there is room, or nobody to have any for."""
        while not (self.has_room or self.closed):
            self._room = self._room or asyncio.Event()
            await self._room.wait()

    def send(self, frame: Frame) -> None:
        """Write a frame."""
        if self.closed:
            return
        self.write(frame.wire)
        if not self.has_room and self._writer.waiting() >= OUTBOX_BYTES_LIMIT:
            self.close(CloseCode.TOO_SLOW, "come back")

    def close(self, code: CloseCode, reason: str) -> None:
        """Close after what was written."""
        if not self.closed:
            self._writer.close(int(code), reason)

    @property
    def pending_bytes(self) -> int:
        """Bytes that were written and not taken by the system yet."""
        return 0 if self.closed else self._writer.waiting()

    def cut(self, code: CloseCode, reason: str) -> None:
        """Close; what the client does not read is thrown away in a moment."""
        self.close(code, reason)

    def end(self) -> None:
        """Let go of the connection."""
        self.closed, self.has_room = True, False
        self._on_room = None
        self._writer.on_change = None
        # The connection may be remembered for longer than the client is there.
        del self.write, self._writer

    def _changed(self) -> None:
        self.closed = self._writer.ended
        self.has_room = not (self._writer.paused or self.closed)
        if self._room is not None and (self.has_room or self.closed):
            self._room.set()
            self._room = None
        if self._on_room is not None:
            self._on_room()


class OutboxSocket:
    """Queues frames for a task of its own, which sends them over ASGI.

    Args:
        sink: What they are sent through.
        on_room: Called whenever there is room again.
        waiting: Tells how many bytes wait behind the sink, where anybody can.
    """

    write = None

    def __init__(
        self,
        sink: Sink,
        *,
        on_room: Callable[[], None],
        waiting: Callable[[], int] | None = None,
    ) -> None:
        self._sink = sink
        self._waiting = waiting
        self._on_room: Callable[[], None] | None = on_room
        self._outbox: deque[Frame] = deque()
        self._bytes = 0
        self._full = False
        self._room = asyncio.Event()
        self._room.set()
        self._wake = asyncio.Event()
        self._close: tuple[int, str] | None = None
        self._last_moment: asyncio.TimerHandle | None = None
        self.closed = False
        self._task = asyncio.create_task(self._write(), name="write")

    @property
    def has_room(self) -> bool:
        """Whether more may be sent now."""
        return not self._full and not self.closed

    async def room(self) -> None:
        """Return when there is room, or nobody to have any for."""
        await self._room.wait()

    def send(self, frame: Frame) -> None:
        """Put a frame into the outbox."""
        if self.closed or self._close is not None:
            return
        self._outbox.append(frame)
        self._bytes += frame.payload_bytes
        if self._bytes >= OUTBOX_BYTES_MAX:
            self._full = True
            self._room.clear()
        if self._bytes >= OUTBOX_BYTES_LIMIT:
            self.cut(CloseCode.TOO_SLOW, "come back")
        self._wake.set()

    def close(self, code: CloseCode, reason: str) -> None:
        """Close after what is in the outbox; who does not read it in time is left without it."""
        if self.closed or self._close is not None:
            return
        self._close = (int(code), reason)
        self._wake.set()
        loop = asyncio.get_running_loop()
        self._last_moment = loop.call_later(CLOSING_SECONDS_MAX, self._task.cancel)

    @property
    def pending_bytes(self) -> int:
        """Bytes that were sent and are not taken by the system yet.

        Without `waiting` what is in the server's transport is left out, for plain ASGI does not
        tell it: at most one frame above the mark of 64 KiB where the server has its writers wait.
        """
        if self.closed:
            return 0
        return self._bytes + (0 if self._waiting is None else self._waiting())

    def cut(self, code: CloseCode, reason: str) -> None:
        """Close without what is in the outbox."""
        self._bytes -= sum(frame.payload_bytes for frame in self._outbox)
        self._outbox.clear()
        self.close(code, reason)

    async def ended(self) -> None:
        """Return when nothing is written any more, whatever the reason."""
        await asyncio.wait({self._task})

    def end(self) -> None:
        """Stop writing."""
        self.closed = True
        self._on_room = self._waiting = None
        if self._last_moment is not None:
            self._last_moment.cancel()
            self._last_moment = None
        self._task.cancel()
        # The error that it ended with holds its frame, and that holds this.
        del self._task

    async def _write(self) -> None:
        """Write until the connection ends."""
        try:
            while self._close is None or self._outbox:
                await self._wake.wait()
                self._wake.clear()
                await self._write_outbox()
            code, reason = self._close
            await self._sink.close(code, reason)
        except (WebSocketDisconnect, RuntimeError, OSError):
            pass  # The client is gone; whoever reads from it knows.
        finally:
            self.closed = True
            self._outbox.clear()
            self._room.set()

    async def _write_outbox(self) -> None:
        while self._outbox:
            frame = self._outbox.popleft()
            await self._sink.send_text(frame.payload.decode())
            self._bytes -= frame.payload_bytes
            if self._full and self._bytes < OUTBOX_BYTES_MAX // 2:
                self._full = False
                self._room.set()
                if self._on_room is not None:
                    self._on_room()
