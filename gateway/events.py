"""The door for server-sent events: the frames of a WebSocket as a stream over HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from gateway.door import Visit, first_of, gone, served, visit
from gateway.socket import OutboxSocket
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


async def events(gateway: Gateway, request: Request) -> EventsAnswer:
    """The answer of `GET /v1/feeds/{feed}/events`.

    Raises:
        Refused, Unavailable: As `visit` does; once the answer has begun an event says what is
            wrong.
    """
    return EventsAnswer(gateway, await visit(gateway, request))


class EventsAnswer:
    """An answer that lasts until the client or the server ends it."""

    def __init__(self, gateway: Gateway, asked: Visit) -> None:
        self._gateway = gateway
        self._asked = asked

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        connection = self._asked.connection(self._gateway)
        stream = _Stream(send, Events(self._asked.reached()))
        connection.socket = OutboxSocket(stream, on_room=connection.has_room)
        with served(self._gateway, connection):
            self._asked.begin(self._gateway, connection)
            await first_of(stream.ended.wait(), gone(receive), stream.heartbeats())


class _Stream:
    """What the outbox of such a connection is emptied into."""

    def __init__(self, send: Send, events: Events) -> None:
        self._send = send
        self._events = events
        self._begun = False
        self.ended = asyncio.Event()

    async def send_text(self, data: str) -> None:
        """Write one frame."""
        if not self._begun:
            self._begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await self._write(b"retry: %d\n\n" % RETRY_MILLISECONDS)
        await self._write(self._events.event(data.encode()))

    async def close(self, code: int, reason: str | None) -> None:
        """Say why, and end the answer."""
        await self._write(self._events.closed(code, reason or ""))
        await self._send({"type": "http.response.body", "body": b""})
        self.ended.set()

    async def heartbeats(self) -> None:
        """Say again and again that it still stands."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self._write(HEARTBEAT)

    async def _write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
