"""The door for server-sent events: the frames of a WebSocket as a stream over HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.types import Message, Send

from gateway.door import answer_head, gone, served, visit
from gateway.frames import waiting_bytes
from gateway.socket import OutboxSocket
from gateway.waits import first_of
from livefeed.over_http import HEARTBEAT, RETRY_MILLISECONDS, Events

if TYPE_CHECKING:
    from gateway.app import Gateway

_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    # nginx would gather events until its buffer is full.
    (b"x-accel-buffering", b"no"),
]


async def events(gateway: Gateway, request: Request, send: Send) -> None:
    """Answer `GET /v1/feeds/{feed}/events`, until the client or the server ends it.

    Raises:
        Overloaded, Refused, Unavailable: As `visit` does, before the answer begins.
    """
    async with visit(gateway, request) as asked:
        if request.method == "HEAD":
            await answer_head(send, _HEADERS)
            return
        connection = asked.connection(gateway)
        stream = EventStream(send, Events(asked.reached()))
        connection.socket = socket = OutboxSocket(
            stream, on_room=connection.room_changed, waiting=waiting_bytes(request.scope)
        )
        with served(gateway, connection):
            asked.begin(gateway, connection)
            gateway.heartbeat.join(stream)
            try:
                await first_of(socket.ended(), gone(request.receive), stream.comments())
            finally:
                gateway.heartbeat.leave(stream)


class EventStream:
    """What the outbox of such a connection is emptied into."""

    def __init__(self, send: Send, events: Events) -> None:
        self._send = send
        self._events = events
        self._begun = self._ended = False
        self._quiet = False
        """Whether nothing was written since the last beat."""
        self._writing = 0
        """Writes that wait for room."""
        self._comment_is_due = asyncio.Event()

    async def send_text(self, data: str) -> None:
        """Write one frame."""
        await self._begin()
        await self._write(self._events.event(data.encode()))

    async def close(self, code: int, reason: str | None) -> None:
        """Say why, and end the answer."""
        self._ended = True
        await self._begin()
        await self._write(self._events.closed(code, reason or ""))
        await self._put({"type": "http.response.body", "body": b""})

    def beat(self) -> None:
        """Have a comment written when nothing was since the last beat, and nothing waits to be."""
        if self._begun and self._quiet and not self._writing:
            self._comment_is_due.set()
        self._quiet = True

    async def comments(self) -> None:
        """Write a comment whenever one is due."""
        while True:
            await self._comment_is_due.wait()
            self._comment_is_due.clear()
            if not self._ended:
                await self._write(HEARTBEAT)

    async def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            await self._put({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await self._write(b"retry: %d\n\n" % RETRY_MILLISECONDS)

    async def _write(self, data: bytes) -> None:
        await self._put({"type": "http.response.body", "body": data, "more_body": True})

    async def _put(self, message: Message) -> None:
        self._writing += 1
        try:
            await self._send(message)
        finally:
            self._writing -= 1
            self._quiet = False
