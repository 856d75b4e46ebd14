"""A feed service as one would write it first: what livefeed's cost is compared with.

It reads the same updates from the same JetStream. For each recipient of each update it inserts a
row, in a transaction of its own, and publishes the update on core NATS; a gateway sends each of
them to the user's WebSocket. A feed is read by a query. It is simple, but not wasteful on purpose:
statements are prepared once, connections are kept, updates are fetched a hundred at a time, and
several are handled at once. It verifies no tokens, limits nothing and catches nobody up.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qs

import asyncpg
import msgspec

from benchmarks.load_generator import raise_file_limit
from benchmarks.load_process import Link
from benchmarks.stack import HOST
from gateway.server import make_server
from livefeed.adapters.nats.connection import Connection, close, connect
from livefeed.subjects import UPDATES_ALL
from livefeed.topology import UPDATES
from livefeed.update import UpdateType

CONNECTIONS: Final = 8
"""To PostgreSQL, each of which writes one recipient's row after the other."""
FETCH_MESSAGES: Final = 100
FETCH_SECONDS: Final = 1.0
ACK_WAIT_SECONDS: Final = 30.0

_TABLE: Final = """
create table naive_update (
    user_id text, update_id text, item text, facet smallint, kind text, at text, body bytea,
    primary key (user_id, update_id)
)
"""
_INSERT: Final = """
insert into naive_update (user_id, update_id, item, facet, kind, at, body)
values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing
"""
_SNAPSHOT: Final = """
select distinct on (item, facet) item, facet, kind, body,
    min(at) over (partition by item, facet) as born
from naive_update where user_id = $1 order by item, facet, at desc
"""
_encode = msgspec.json.Encoder().encode


class Update(msgspec.Struct):
    """What is read of an update; the content stays the publisher's bytes."""

    update_id: str = msgspec.field(name="updateId")
    update_type: UpdateType = msgspec.field(name="updateType")
    audience: dict[str, list[str]]
    content: msgspec.Raw
    timestamp: str


class Named(msgspec.Struct):
    """What is read of a content."""

    id: str


class Shown(msgspec.Struct):
    """An update as clients are sent it."""

    updateId: str  # noqa: N815
    updateType: UpdateType  # noqa: N815
    content: msgspec.Raw
    timestamp: str


Row = tuple[str, str, str, int, str, str, bytes]
"""What is inserted, in the order of the columns."""
decode: Final = msgspec.json.Decoder(Update).decode
decode_named: Final = msgspec.json.Decoder(Named).decode
decode_shown: Final = msgspec.json.Decoder(Shown).decode


# The worker.


async def work(link: Link, nats_url: str, database_url: str) -> None:
    """The load: handles updates for ever; answers each number with itself once as many are done."""
    connection = await connect([nats_url], name="naive-worker")
    database = [await asyncpg.connect(database_url) for _ in range(CONNECTIONS)]
    await database[0].execute(_TABLE)
    worker = _Worker(connection, database)
    working = asyncio.create_task(worker.run())
    link.send(None)
    try:
        while True:
            wanted: int = await link.receive()
            while worker.handled < wanted and not working.done():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            if working.done():
                await working
            link.send(wanted)
    finally:
        working.cancel()
        await asyncio.gather(*(one.close() for one in database))
        await close(connection)


class _Worker:
    """Fetches updates and handles a batch of them at a time."""

    def __init__(self, connection: Connection, database: list[Any]) -> None:
        self._connection = connection
        self._database = database
        self.handled = 0

    async def run(self) -> None:
        """Handle updates until cancelled."""
        subscription = await self._connection.jetstream().pull_subscribe(
            UPDATES_ALL, durable="naive", stream=UPDATES
        )
        statements = [await one.prepare(_INSERT) for one in self._database]
        while True:
            try:
                messages = await subscription.fetch(FETCH_MESSAGES, FETCH_SECONDS)
            except TimeoutError:
                continue
            rows = iter([row for message in messages for row in _rows_of(message.data)])
            await asyncio.gather(*(self._write(rows, one) for one in statements))
            for message in messages:
                await message.ack()
            self.handled += len(messages)

    async def _write(self, rows: Any, statement: Any) -> None:
        """Take one row after the other, as the others do, write it and push it."""
        for row in rows:
            await statement.fetch(*row)
            await self._connection.publish(f"naive.{row[0]}", row[-1])


def _rows_of(payload: bytes) -> list[Row]:
    update = decode(payload)
    body = _encode(Shown(update.update_id, update.update_type, update.content, update.timestamp))
    facet = int(update.update_type == "engagement_update")
    item = decode_named(update.content).id
    rest = (update.update_id, item, facet, update.update_type, update.timestamp, body)
    return [(user, *rest) for user in update.audience["users"]]


# The gateway.


async def serve(link: Link, nats_url: str, database_url: str, port: int) -> None:
    """The load: a server, until the link is closed."""
    raise_file_limit()
    connection = await connect([nats_url], name="naive-gateway")
    pool = await asyncpg.create_pool(database_url, min_size=CONNECTIONS, max_size=CONNECTIONS)
    listening = socket.create_server((HOST, port), backlog=4096)
    listening.setblocking(False)
    # The same server as the gateway's, so that only what runs in it is the difference.
    server = make_server(_Gateway(connection, pool), guarded=True)
    serving = asyncio.create_task(server.serve([listening]))
    link.send(port)
    try:
        await link.receive()
    finally:
        serving.cancel()
        await pool.close()
        await close(connection)


Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class _Gateway:
    """An ASGI app: `/v1/ws?user=…` is live, any other path `?user=…` is the user's feed."""

    def __init__(self, connection: Connection, pool: Any) -> None:
        self._connection = connection
        self._pool = pool

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request or one WebSocket."""
        user = parse_qs(scope["query_string"].decode())["user"][0]
        if scope["type"] == "websocket":
            await self._live(user, receive, send)
        else:
            await self._read(user, send)

    async def _live(self, user: str, receive: Receive, send: Send) -> None:
        async def push(message: Any) -> None:
            await send({"type": "websocket.send", "text": message.data.decode()})

        await receive()
        subscription = await self._connection.subscribe(f"naive.{user}", cb=push)
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await subscription.unsubscribe()

    async def _read(self, user: str, send: Send) -> None:
        rows = await self._pool.fetch(_SNAPSHOT, user)
        body = _encode({"items": _items_of(rows)})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _items_of(rows: list[Any]) -> list[dict[str, Any]]:
    """What is seen of a feed, the youngest first."""
    engagements = {row["item"]: decode_shown(row["body"]) for row in rows if row["facet"]}
    items = []
    for row in sorted(rows, key=lambda row: row["born"], reverse=True):
        if row["facet"] or row["kind"] == "content_removal":
            continue
        shown, engagement = decode_shown(row["body"]), engagements.get(row["item"])
        items.append(
            {
                "updateId": shown.updateId,
                "timestamp": shown.timestamp,
                "content": shown.content,
                "engagement": engagement.content if engagement else None,
            }
        )
    return items
