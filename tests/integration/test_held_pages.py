"""Pages that clients were given and do not read: counted where they wait, and bounded for all."""

from __future__ import annotations

import asyncio
import json
import time
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.app import Gateway
from gateway.held_pages import HeldPages
from livefeed.limits import PAGES_HELD_SECONDS_MAX
from tests.doors import EventsSession, WebSocketSession
from tests.inner_gateway import InnerGateway, inner_gateway
from tests.servers import Stack, until, update

MIB = 1024 * 1024
UNREAD = 3
"""Clients of each kind that read nothing."""
STAYS_SECONDS = 3
"""Who is not closed within this time was not told to go."""


async def publish_items(stack: Stack, user: str, count: int) -> None:
    """Fill a user's feed with items of 60 KB."""
    for number in range(0, count, 8):
        items = [{"id": f"p{n}", "x": "x" * 60_000} for n in range(number, min(number + 8, count))]
        await stack.publish([update(user, content=items)])
    await stack.settled()


class UnreadEvents:
    """A stream of events of which nothing is read until `closed` is asked for."""

    def __init__(self, inner: InnerGateway | Stack) -> None:
        self._at = urlsplit(inner.url)
        self._token = inner.token("alice")
        self._reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self) -> None:
        """Ask for it."""
        self._reader, self.writer = await asyncio.open_connection(
            self._at.hostname, self._at.port, limit=4 * MIB
        )
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]
        head = f"GET /v1/feeds/home/events HTTP/1.1\r\nHost: {self._at.netloc}\r\n"
        token = f"Authorization: Bearer {self._token}\r\n"
        self.writer.write(f"{head}{token}Connection: close\r\n\r\n".encode())
        await self.writer.drain()

    async def closed(self) -> int | None:
        """Read to its end, and return what a WebSocket would have been closed with."""
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]
        try:
            text = await asyncio.wait_for(self._reader.read(), STAYS_SECONDS)
        except TimeoutError:
            return None
        last = json.loads(text.rpartition(b"data: ")[2].splitlines()[0])
        assert last["type"] == "closed", last["type"]
        return int(last["code"])


async def unread_socket(inner: InnerGateway) -> connect:
    """A WebSocket of which nothing is read."""
    headers = {"Authorization": f"Bearer {inner.token('alice')}"}
    url = f"{inner.url.replace('http', 'ws', 1)}/v1/ws?feeds=home"
    socket = await connect(
        url, additional_headers=headers, max_queue=1, max_size=4 * MIB, compression=None
    )
    socket.transport.pause_reading()
    return socket


async def closed(socket: connect) -> int | None:
    """Read to its end, and return the close code."""
    socket.transport.resume_reading()
    try:
        async with asyncio.timeout(STAYS_SECONDS):
            while True:
                await socket.recv()
    except TimeoutError:
        return None
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd else None


async def test_what_waits_in_the_transport_of_a_stream_counts(stack: Stack) -> None:
    """A page that was written and not read is pending, until it is."""
    async with inner_gateway(stack) as inner:
        await stack.start_pool()
        await publish_items(stack, "alice", 14)
        stream = UnreadEvents(inner)
        await stream.open()
        await until(lambda: inner.gateway.connections, what="it is connected")
        (connection,) = inner.gateway.connections
        socket = connection.socket
        # What the system and the client's own buffer take is not here any more.
        await until(
            lambda: socket.pending_bytes - socket._bytes > 0.1 * MIB,
            what="what is in the transport is pending, beside what is in the outbox",
        )
        stream.writer.transport.resume_reading()
        await until(lambda: socket.pending_bytes == 0, what="it is read")
        stream.writer.close()


async def test_who_reads_nothing_holds_the_others_up_for_a_moment(stack: Stack) -> None:
    """Pages wait until there is room, pushes do not; then who read nothing has to come back."""

    def little_room(gateway: Gateway) -> None:
        gateway.catch_up.held = HeldPages(2 * MIB)

    async with inner_gateway(stack, little_room) as inner:
        held = inner.gateway.catch_up.held
        await stack.start_pool()
        await publish_items(stack, "alice", 64)
        await publish_items(stack, "bob", 3)
        async with WebSocketSession(inner, "carol") as carol:  # type: ignore[arg-type]
            await carol.until_caught_up()
            sockets = [await unread_socket(inner) for _ in range(UNREAD)]
            streams = [UnreadEvents(inner) for _ in range(UNREAD)]
            for stream in streams:
                await stream.open()
            # Somebody's pages wait for room.
            await until(lambda: held.times_full, what="there is no room")
            began_at = time.monotonic()
            async with EventsSession(inner, "bob") as bob:  # type: ignore[arg-type]
                await stack.publish([update("carol", id="now")], "high")
                await until(lambda: carol.ids == ["now"], seconds=3, what="a push is served")
                assert not bob.ids, "a page waits for room"
                await until(
                    lambda: len(bob.ids) == 3,
                    seconds=PAGES_HELD_SECONDS_MAX + 3,
                    what="the newcomer is served",
                )
                assert time.monotonic() - began_at > PAGES_HELD_SECONDS_MAX / 2
                codes = await asyncio.gather(
                    *(closed(socket) for socket in sockets),
                    *(stream.closed() for stream in streams),
                )
                # As many as make room; the others, which were given theirs last, read on.
                assert codes.count(4003) == held.closed
                assert held.closed >= UNREAD
                assert codes.count(None) == 2 * UNREAD - held.closed
                assert carol.closed is bob.closed is None
        for stream in streams:
            stream.writer.close()
