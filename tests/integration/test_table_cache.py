"""The cache in a table of Postgres, on real servers: full, late, away, and its migration."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from alembic import command
from hypothesis import given, settings
from hypothesis import strategies as st

from livefeed.adapters.cache import table
from livefeed.adapters.cache.levels import Level, Levels
from livefeed.adapters.cache.memory import BoundedMemoryCache
from livefeed.adapters.cache.table import CHUNK_BYTES, TableCache
from livefeed.adapters.embedded import PostgresServer
from livefeed.adapters.postgres import schema
from livefeed.adapters.postgres.log import Log
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.reads import read_heads
from livefeed.adapters.postgres.schema import drift, latest_revision, migrate, revision
from livefeed.breaker import Breaker
from livefeed.cache import MICROSECONDS, Entry, encode
from livefeed.errors import Unavailable
from livefeed.limits import (
    CACHE_SET_SECONDS_MAX,
    CACHE_TABLE_GET_SECONDS_MAX,
    CACHE_TABLE_READS_AT_ONCE,
    CACHE_TABLE_VALUE_BYTES_MAX,
    CACHE_TABLE_WRITES_AT_ONCE,
    KIB,
)
from tests.conftest import admin, database_url
from tests.reference_log import change, flush_of
from tests.servers import OwnServers, frozen, until

BUSY_COMPUTER_SECONDS = 0.3
"""What a call may take beside its bound where the computer has other work."""


def pool_of(url: str, connections: int = 8) -> Pool:
    return Pool(
        url,
        dependency="primary",
        connections_max=connections,
        timeout_seconds=5,
        application="tests",
    )


def page(value: bytes = b"value", made_at: float | None = None, load_seconds: float = 0.1) -> bytes:
    """What the cache is given: made now, or at a time in seconds since 1970."""
    seconds = time.time() if made_at is None else made_at
    return encode(Entry(value, round(seconds * MICROSECONDS), load_seconds))


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not about time shall not depend on how busy the computer is."""
    monkeypatch.setattr(table, "CACHE_TABLE_GET_SECONDS_MAX", 5.0)
    monkeypatch.setattr(table, "CACHE_SET_SECONDS_MAX", 5.0)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = pool_of(database)
    yield pool
    await pool.close()


@pytest.fixture
def cache(pool: Pool) -> TableCache:
    return TableCache(pool)


async def holds(cache: TableCache, key: str) -> bool:
    """Whether a key is there, as far as the cache answers."""
    with contextlib.suppress(Unavailable):
        return bool(await cache.exists(key))
    return False


async def counted(pool: Pool) -> None:
    """Have what Postgres counts of the table be what is in it."""
    await pool.fetch("analyze feed_page")
    await pool.fetch("vacuum feed_page")


# What is put there.


async def test_values_come_back_as_they_were(cache: TableCache, database: str) -> None:
    """Any bytes, none too, under any key; another gateway finds them."""
    contents = {
        "a": b"value",
        "": b"",
        "a\\b\n\0": bytes(range(256)),
        "ä": random.randbytes(300_000),
    }
    values = {key: page(content) for key, content in contents.items()}
    for key, value in values.items():
        assert await cache.set(key, value, ttl=60.0)
    other_pool = pool_of(database)
    other = TableCache(other_pool)
    assert await other.multi_get(list(values)) == list(values.values())
    assert await other.get("b") is None
    newer = page(b"newer")
    assert await cache.set("a", newer)
    assert await other.get("a") == newer
    assert (await other.exists("a"), await other.exists("b")) == (True, False)
    assert (await cache.delete("a"), await cache.delete("a")) == (1, 0)
    await other.clear()
    assert await cache.multi_get(list(values)) == [None] * 4
    await other_pool.close()


_examples = itertools.count()


@given(st.sets(st.text(max_size=20), min_size=1, max_size=20))
@settings(max_examples=30)
async def test_each_key_has_its_own_value(pool: Pool, keys: set[str]) -> None:
    """Whatever is in it; and no text of it is in the table."""
    cache = TableCache(pool)
    begin = f"epoch {next(_examples)}\n"
    values = {begin + key: page(key.encode(errors="surrogatepass")) for key in keys}
    for key, value in values.items():
        await cache.set(key, value, ttl=60.0)
    assert await cache.multi_get(list(values)) == list(values.values())
    rows = await pool.fetch("select key from feed_page")
    assert {len(row["key"]) for row in rows} == {20}


async def test_a_value_ends_with_its_time(cache: TableCache, pool: Pool) -> None:
    """It is not given out, and an older one may take its place."""
    now = time.time()
    await cache.set("short", page(made_at=now), ttl=0.2)
    await cache.set("long", page(made_at=now), ttl=60.0)
    assert await cache.exists("short")

    async def ended() -> bool:
        return not await cache.exists("short")

    await until(ended, what="the value ends")
    assert await cache.exists("long")
    older = page(b"older", made_at=now - 1.0)
    assert await cache.set("short", older, ttl=60.0)
    assert await cache.get("short") == older
    await cache.set("for ever", page())
    (row,) = await pool.fetch(
        "select max(ends_at) < now() + interval '3 days' as end from feed_page"
    )
    assert row["end"]


async def test_of_two_the_one_that_was_made_later_stays(database: str) -> None:
    """In whatever order gateways write them, and however many at once."""
    pools = [pool_of(database, 3) for _ in range(4)]
    now = time.time()
    for round_number in range(10):
        key = f"key {round_number}"
        times = [now - number / 10 for number in range(16)]
        random.shuffle(times)
        caches = [TableCache(pool) for pool in pools for _ in range(4)]
        kept = await asyncio.gather(
            *(
                cache.set(key, page(b"%f" % made_at, made_at), ttl=60.0)
                for cache, made_at in zip(caches, times, strict=True)
            )
        )
        assert all(kept), "an older one is not refused: there is one"
        assert await caches[0].get(key) == page(b"%f" % now, now)
    for pool in pools:
        await pool.close()


async def test_a_clock_that_is_ahead_does_not_keep_others_out(cache: TableCache) -> None:
    """What was made in an hour would be nothing to any gateway until then."""
    await cache.set("key", page(b"ahead", time.time() + 3_600.0), ttl=60.0)
    right = page(b"right")
    await cache.set("key", right, ttl=60.0)
    assert await cache.get("key") == right


async def test_nothing_else_is_put_there(cache: TableCache) -> None:
    """Of bytes of another program nobody could tell which are newer."""
    with pytest.raises(TypeError, match=r"cache\.encode"):
        await cache.set("key", b"what is this", ttl=60.0)
    assert await cache.get("key") is None


# Its bounds.


async def test_a_value_that_is_too_large_is_refused(cache: TableCache) -> None:
    """And counted; one that just fits comes back."""
    head = len(page(b""))
    most = page(random.randbytes(CACHE_TABLE_VALUE_BYTES_MAX - head))
    assert not await cache.set("key", page(bytes(CACHE_TABLE_VALUE_BYTES_MAX - head + 1)), ttl=60.0)
    assert cache.refused == 1
    assert await cache.set("key", most, ttl=60.0)
    assert await cache.get("key") == most


@pytest.mark.parametrize("bound", ["rows", "bytes"])
async def test_a_full_table_refuses_and_is_read_on(pool: Pool, bound: str) -> None:
    """By what Postgres counts; when there is room again it takes what comes."""
    large = 40 * CHUNK_BYTES - len(page(b""))
    bounds = {"rows": {"rows_max": 20}, "bytes": {"bytes_max": 20 * 40 * CHUNK_BYTES}}[bound]
    cache = TableCache(pool, **bounds)
    kept = page(random.randbytes(large))
    for number in range(20):
        assert await cache.set(str(number), kept, ttl=60.0)
    await counted(pool)
    assert not await cache.set("more", kept, ttl=60.0)
    assert not await cache.set("0", page(b"newer"), ttl=60.0)
    assert cache.refused == 2
    assert await cache.get("0") == kept
    for number in range(10):
        await cache.delete(str(number))
    await counted(pool)
    assert await cache.set("more", kept, ttl=60.0)
    assert cache.refused == 2


async def test_a_flood_ends_at_the_bound(pool: Pool) -> None:
    """Nobody helps Postgres to count: it is seen within seconds, and about where it is."""
    cache = TableCache(pool, rows_max=500)
    numbers = itertools.count()

    async def refused() -> bool:
        await asyncio.gather(*(cache.set(str(next(numbers)), page(), ttl=60.0) for _ in range(2)))
        return cache.refused > 0

    await until(refused, seconds=30, what="the table is full")
    assert next(numbers) > 400


class Busy:
    """A pool that counts who is in it at once."""

    dependency = "primary"

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.now = self.most = 0

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._pool.fetch(statement, *arguments)
        finally:
            self.now -= 1


async def test_a_herd_leaves_the_pool_to_others(pool: Pool) -> None:
    """Reads wait for their turn; writes that are too many are left out."""
    busy = Busy(pool)
    cache = TableCache(busy)  # type: ignore[arg-type]
    await cache.set("key", page(), ttl=60.0)
    read = await asyncio.gather(*(cache.get("key") for _ in range(50)), return_exceptions=True)
    assert busy.most == CACHE_TABLE_READS_AT_ONCE
    assert not any(value is None for value in read)
    busy.most = 0
    kept = await asyncio.gather(*(cache.set(str(number), page(), 60.0) for number in range(50)))
    assert busy.most == sum(kept) == CACHE_TABLE_WRITES_AT_ONCE
    assert cache.refused == 50 - sum(kept)
    assert await cache.set("later", page(), ttl=60.0)


async def test_its_pages_are_in_no_log_and_are_not_compressed_again(
    pool: Pool, cache: TableCache, session_postgres: PostgresServer
) -> None:
    """A megabyte of pages leaves next to nothing for replicas and backups."""
    await cache.set("first", page(), ttl=60.0)
    begin = await position(session_postgres)
    for number in range(4):
        await cache.set(str(number), page(random.randbytes(256 * KIB)), ttl=60.0)
    assert await position(session_postgres) - begin < 64 * KIB
    (row,) = await pool.fetch(
        "select relpersistence, attstorage from pg_class join pg_attribute on attrelid = oid"
        " where relname = 'feed_page' and attname = 'value'"
    )
    assert tuple(row) == (b"u", b"e")


async def position(server: PostgresServer) -> int:
    async with admin(server) as connection:
        wal = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
        return int(await connection.fetchval(wal))


# The primary away.


async def test_a_primary_that_hangs_is_not_waited_for(
    own_servers: OwnServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call ends within its time, reads that wait for their turn too; then it answers again."""
    pool = pool_of(own_servers.postgres.url)
    cache = TableCache(pool)
    await cache.set("key", page(), ttl=60.0)
    monkeypatch.undo()
    with frozen(own_servers.postgres):
        for call, seconds in (
            (lambda: cache.get("key"), CACHE_TABLE_GET_SECONDS_MAX),
            (lambda: cache.set("key", page(), ttl=60.0), CACHE_SET_SECONDS_MAX),
        ):
            began = time.monotonic()
            with pytest.raises(Unavailable, match="no answer within"):
                await call()
            assert time.monotonic() - began < seconds + BUSY_COMPUTER_SECONDS
        began = time.monotonic()
        herd = await asyncio.gather(
            *(cache.get(str(number)) for number in range(40)), return_exceptions=True
        )
        assert {type(one) for one in herd} == {Unavailable}
        assert time.monotonic() - began < CACHE_TABLE_GET_SECONDS_MAX + BUSY_COMPUTER_SECONDS
    await until(lambda: holds(cache, "key"), what="it answers again")
    await pool.close()


async def test_a_crash_empties_it_and_levels_do_without(own_servers: OwnServers) -> None:
    """Reads go on while the primary is away; its breaker opens, and closes when it is back."""
    pool = pool_of(own_servers.postgres.url)
    breaker = Breaker()
    levels = Levels(
        [
            Level("memory", BoundedMemoryCache(), 60.0, 3600.0, Breaker()),
            Level("table", TableCache(pool), 3600.0, 3600.0, breaker),
        ],
        wall=time.time,
        clock=time.monotonic,
        chance=random.random,
        loads_max=4,
    )
    cache = TableCache(pool)
    numbers = itertools.count()

    async def level_of(key: str) -> str:
        async def load() -> bytes:
            return b"value"

        return (await levels.get(key, load, deadline_seconds=5.0)).level

    assert await level_of("before") == "loaded"
    await until(lambda: holds(cache, "before"), what="it is in the table")
    # What a crash is: without a checkpoint.
    await own_servers.postgres._stop([(signal.SIGQUIT, 5.0)])
    for number in range(5):
        assert await level_of(f"away {number}") == "loaded"
    assert breaker.state == "open"
    assert await level_of("before") == "memory"
    await own_servers.postgres.start()

    async def back() -> bool:
        await level_of(f"back {next(numbers)}")
        return breaker.state == "closed"

    async def written_again() -> bool:
        key = f"after {next(numbers)}"
        await level_of(key)
        await until(lambda: not levels._tasks, what="it is written")
        return await holds(cache, key)

    await until(back, what="the breaker closes")
    await until(written_again, what="pages are in the table again")
    rows = await pool.fetch("select key from feed_page")
    assert table._hash("before") not in {row["key"] for row in rows}
    await levels.close()
    await pool.close()


async def test_a_schema_that_is_older_is_as_a_primary_that_is_away(
    own_servers: OwnServers,
) -> None:
    """A gateway that was brought up before the migration says what to do."""
    pool = pool_of(own_servers.postgres.url)
    await pool.fetch("drop table feed_page")
    with pytest.raises(Unavailable, match="livefeed migrate"):
        await TableCache(pool).get("key")
    await pool.close()


# The migration.


async def test_a_log_of_before_is_brought_up_with_what_is_in_it(
    session_postgres: PostgresServer,
) -> None:
    """The table comes empty, nothing else changes, and the tables are those of the code."""
    name = f"before_{time.time_ns()}"
    async with admin(session_postgres) as connection:
        await connection.execute(f"create database {name}")
    url = database_url(session_postgres, name)
    try:
        await schema._with_connection(url, to_revision("0005"))
        assert await revision(url) == "0005"
        pool = pool_of(url)
        told = [change(item=f"p{number}", timestamp=number) for number in range(5)]
        await Log(pool).persist(*flush_of(told))
        before = await read_heads(pool, ["user:alice/home"])
        assert await migrate(url) == ["0006"]
        assert await migrate(url) == []
        assert await revision(url) == latest_revision()
        assert await drift(url) == []
        assert await read_heads(pool, ["user:alice/home"]) == before
        assert (await pool.fetch("select count(*) as entries from feed_entry"))[0]["entries"] == 5
        assert await TableCache(pool).set("key", page(), ttl=60.0)
        await pool.close()
    finally:
        async with admin(session_postgres) as connection:
            await connection.execute(f"drop database {name} with (force)")


def to_revision(name: str) -> Any:
    """The work of a migration that ends at an earlier revision."""

    def upgrade(connection: Any) -> None:
        config = schema._config()
        config.attributes["connection"] = connection
        command.upgrade(config, name)
        connection.commit()

    return upgrade
