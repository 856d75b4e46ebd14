"""The door for server-sent events: the frames of a WebSocket as a stream over HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.types import Send

from gateway.door import gone, served, visit
from gateway.socket import OutboxSocket
from gateway.waits import first_of
from livefeed.over_http import HEARTBEAT, RETRY_MILLISECONDS, Events
from livefeed.protocol import HEARTBEAT_SECONDS

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
        connection = asked.connection(gateway)
        stream = _Stream(send, Events(asked.reached()))
        connection.socket = socket = OutboxSocket(stream, on_room=connection.room_changed)
        with served(gateway, connection):
            asked.begin(gateway, connection)
            await first_of(socket.ended(), gone(request.receive), stream.heartbeats())


class _Stream:
    """What the outbox of such a connection is emptied into."""

    def __init__(self, send: Send, events: Events) -> None:
        self._send = send
        self._events = events
        self._begun = False

    async def send_text(self, data: str) -> None:
        """Write one frame."""
        await self._begin()
        await self._write(self._events.event(data.encode()))

    async def close(self, code: int, reason: str | None) -> None:
        """Say why, and end the answer."""
        await self._begin()
        await self._write(self._events.closed(code, reason or ""))
        await self._send({"type": "http.response.body", "body": b""})

    async def heartbeats(self) -> None:
        """Say again and again that it still stands."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            if self._begun:
                await self._write(HEARTBEAT)

    async def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await self._write(b"retry: %d\n\n" % RETRY_MILLISECONDS)

    async def _write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
