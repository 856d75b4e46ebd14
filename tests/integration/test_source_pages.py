"""Pages of a feed source with a real primary and replicas: nothing that is published is lost.

The source reads a table of the application. Its cursor must be of the log as that server has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from gateway.log_reader import LogReader
from gateway.replicas import Replica, Replicas
from gateway.source_pages import SourcePages
from livefeed.adapters.embedded import PostgresReplica, PostgresServer
from livefeed.adapters.postgres.gauge import Gauge
from livefeed.adapters.postgres.log import Log
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.reads import read_pages
from livefeed.adapters.postgres.schema import migrate
from livefeed.adapters.postgres.sessions import ServerSessions, Sessions
from livefeed.cursor import parse_cursor, resolve
from livefeed.feed_source import SourcePage, SourceRequest
from livefeed.replica_choice import Lag
from tests.conftest import admin, replayed
from tests.reference_log import change, flush_of
from tests.servers import server_port, until

USER, FEED, CHANNEL = "alice", "home", "user:alice/home"
POSTS: Final = text("select id from app_post order by id")


def pool_of(url: str, name: str) -> Pool:
    return Pool(url, dependency=name, connections_max=4, timeout_seconds=5, application="tests")


class Application:
    """One that keeps posts in a table of its own, and publishes them."""

    def __init__(self, primary_url: str, replica_url: str) -> None:
        self.pool = pool_of(primary_url, "primary")
        gauge = Gauge(replica_url, dependency="replica", seconds_max=1, application="tests")
        self.replica = Replica("replica", pool_of(replica_url, "replica"), gauge)
        # Nobody looks: as far as the gateway knows the replica is close behind.
        self.replica.lag = Lag(0.0, 0)
        self.reader = LogReader(self.pool, Replicas(None, [self.replica]))
        self.sessions = ServerSessions(connections=2, timeout_seconds=5, application="tests")
        self.pages = SourcePages(self.reader, "tests:posts", self.posts, self.sessions_of)
        self.asked: list[str] = []
        """The servers that pages were read at."""
        self.when_asked: Callable[[], Awaitable[None]] | None = None

    def sessions_of(self, pool: Pool) -> Sessions:
        self.asked.append(pool.dependency)
        return self.sessions.of(pool)

    async def posts(self, request: SourceRequest) -> SourcePage:
        """The feed source: all posts of the application."""
        async with request.sessions() as session:
            rows = (await session.execute(POSTS)).all()
        if self.when_asked is not None:
            await self.when_asked()
        return SourcePage([{"id": row.id} for row in rows])

    async def post(self, number: int) -> None:
        """Write a post, then have livefeed bring it into the log."""
        await self.pool.fetch("insert into app_post values ($1)", f"p{number}")
        await Log(self.pool).persist(*flush_of([change(CHANNEL, f"p{number}", timestamp=number)]))

    async def read(self) -> tuple[set[str], set[str]]:
        """The ids of a page, and those that the stream sends to whoever goes on from it."""
        page: Any = json.loads(await self.pages.read(USER, FEED, self.pages.parse({})))
        cursor = parse_cursor(page["cursor"])
        epoch = await self.reader.known_epoch()
        positions = resolve(cursor, epoch=epoch, user_id=USER)
        assert isinstance(positions, dict)
        (sent,) = await read_pages(self.pool, [(CHANNEL, positions[CHANNEL])])
        shown = {item["content"]["id"] for item in page["items"]}
        return shown, {one.body.partition(b"\0")[0].decode() for one in sent.updates}

    async def reads_at(self, name: str) -> bool:
        """Whether a page is read at a server."""
        await self.read()
        return self.asked[-1] == name

    async def close(self) -> None:
        await self.sessions.close()
        await self.replica.pool.close()
        await self.pool.close()


@pytest.fixture
async def application(
    database: str,
    replica_url: str,
    session_postgres: PostgresServer,
    session_replica: PostgresReplica,
) -> AsyncIterator[Application]:
    application = Application(database, replica_url)
    await application.pool.fetch("create table app_post (id text primary key)")
    await replayed(session_postgres, session_replica)
    yield application
    await application.close()


@contextlib.asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    """A replica that replays."""
    yield


@contextlib.asynccontextmanager
async def paused(server: PostgresReplica) -> AsyncIterator[None]:
    """A replica that receives and does not replay."""
    async with admin(server) as connection:
        await connection.execute("select pg_wal_replay_pause()")
        try:
            yield
        finally:
            await connection.execute("select pg_wal_replay_resume()")


async def test_what_the_replica_lacks_is_sent_by_the_stream(
    application: Application, session_postgres: PostgresServer, session_replica: PostgresReplica
) -> None:
    """A page of a replica that is behind, and what follows from its cursor: every post."""
    await application.post(0)
    await replayed(session_postgres, session_replica)
    async with paused(session_replica):
        for number in range(1, 4):
            await application.post(number)
        shown, sent = await application.read()
        assert shown == {"p0"}, "it was read on the replica"
        assert shown | sent == {"p0", "p1", "p2", "p3"}


async def test_what_is_published_while_the_source_works_is_sent(
    application: Application, session_postgres: PostgresServer, session_replica: PostgresReplica
) -> None:
    """After it has read its tables, before its page is made."""

    async def post() -> None:
        await application.post(1)
        await replayed(session_postgres, session_replica)

    application.when_asked = post
    shown, sent = await application.read()
    assert (shown, sent) == (set(), {"p1"})


async def test_no_page_loses_a_post_whatever_the_replica_does(
    application: Application, session_replica: PostgresReplica
) -> None:
    """It stands still and goes on while posts come, and while they are read."""
    choices = random.Random(7)
    numbers = itertools.count()
    posted: set[str] = set()
    lacking = 0

    async def write() -> None:
        for _ in range(choices.randrange(4)):
            number = next(numbers)
            await application.post(number)
            posted.add(f"p{number}")

    for _ in range(12):
        async with paused(session_replica) if choices.random() < 0.5 else nothing():
            await write()
            wanted = set(posted)
            writing = asyncio.create_task(write())
            for _ in range(5):
                shown, sent = await application.read()
                assert wanted <= shown | sent
                lacking += not wanted <= shown
            await writing
    assert lacking, "some pages were of a replica that was behind"


async def test_the_primary_answers_where_no_replica_does(
    application: Application, session_replica: PostgresReplica
) -> None:
    """The cursor and the posts are the primary's then; later the replica's again."""
    await application.post(0)
    application.replica.reads.failed(time.monotonic(), jitter=0.0)
    await session_replica.stop()
    try:
        assert await application.read() == ({"p0"}, set())
        assert application.asked == ["primary"]
    finally:
        await session_replica.start()
    until_read = functools.partial(application.reads_at, "replica")
    await until(until_read, seconds=15, what="the replica is read again")


async def test_a_replica_of_another_log_is_not_read(
    application: Application, session_replica: PostgresReplica
) -> None:
    """A page of its cursor would be answered by a reset, again and again."""
    async with paused(session_replica):
        await application.pool.fetch("update feed_epoch set epoch = 'renewed'")
        application.reader.epoch = None
        await application.post(0)
        assert await application.read() == ({"p0"}, set())
        assert application.asked == ["primary"]


async def test_the_url_of_a_failover_is_understood(database: str) -> None:
    """Several hosts and which of them will do: by sessions as by pools, and by migrations."""
    place = urlsplit(database)
    user, _, there = place.netloc.rpartition("@")
    hosts = f"127.0.0.1:{server_port()},{there}"
    url = f"postgresql://{user}@{hosts}{place.path}?target_session_attrs=read-write"
    pool = pool_of(url, "primary")
    sessions = ServerSessions(connections=2, timeout_seconds=5, application="tests")
    try:
        async with sessions.of(pool)() as session:
            assert await session.scalar(text("select 1")) == 1
            with pytest.raises(DBAPIError, match="read-only"):
                await session.execute(text("create table app_post (id text)"))
        assert await migrate(url) == []
    finally:
        await sessions.close()
        await pool.close()
