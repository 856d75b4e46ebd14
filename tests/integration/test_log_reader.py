"""Which server a read of the log asks, with a real primary and a real replica."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.log_reader import LogReader
from livefeed.adapters.embedded import PostgresReplica
from livefeed.adapters.postgres.pool import Pool
from tests.conftest import admin
from tests.servers import frozen, until

PLACES = [("user:alice/home", 0), ("topic:home", 0)]
PATIENCE_SECONDS = 60.0
"""How long the pools would wait for a server that hangs."""


@pytest.fixture
async def reader(database: str, replica_url: str) -> AsyncIterator[LogReader]:
    """A reader whose pools would wait long."""
    pools = [
        Pool(
            url,
            dependency=name,
            connections_max=4,
            timeout_seconds=PATIENCE_SECONDS,
            application="tests",
        )
        for name, url in (("primary", database), ("replica", replica_url))
    ]
    yield LogReader(*pools)
    for pool in pools:
        await pool.close()


async def by_replica(reader: LogReader) -> bool:
    """Whether a read is answered by the replica now."""
    before = reader.replica_pages
    await reader.pages(PLACES)
    return reader.replica_pages == before + len(PLACES)


async def test_the_replica_is_asked_while_it_has_what_the_primary_has(
    reader: LogReader, database: str, session_replica: PostgresReplica
) -> None:
    """One that is behind in a channel is passed over for that one, and asked again afterwards."""
    assert await by_replica(reader)
    primary = reader._primary
    async with admin(session_replica) as connection:
        await connection.execute("select pg_wal_replay_pause()")
        try:
            await primary.fetch("insert into feed_channel (name, seq) values ('topic:home', 1)")
            pages = await reader.pages(PLACES)
            assert [page.head for page in pages] == [0, 1]
            assert reader.primary_pages == 1
            # All that is asked of it is behind: after three times it is left alone for a while.
            for _ in range(5):
                (page,) = await reader.pages(PLACES[1:])
                assert page.head == 1
        finally:
            await connection.execute("select pg_wal_replay_resume()")
    await until(lambda: by_replica(reader), what="the replica is asked again")


async def test_a_replica_that_hangs_is_not_waited_for(
    reader: LogReader, session_replica: PostgresReplica
) -> None:
    """Each read is answered long before the pool would give up; later the replica is back."""
    assert await by_replica(reader)
    with frozen(session_replica):
        async with asyncio.timeout(PATIENCE_SECONDS / 3):
            for _ in range(60):
                await reader.pages(PLACES)
    assert reader.primary_pages == 60 * len(PLACES)
    await until(lambda: by_replica(reader), seconds=20, what="the replica is asked again")
