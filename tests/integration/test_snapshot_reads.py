"""The statement of a snapshot's page on a real PostgreSQL, and the same worked out in Python."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import log_reader
from gateway.log_reader import LogReader
from gateway.replicas import Replica, Replicas
from livefeed.adapters.embedded import PostgresReplica
from livefeed.adapters.postgres.gauge import Gauge
from livefeed.adapters.postgres.log import Body, Log
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.reads import read_heads, read_pages
from livefeed.adapters.postgres.seen import Marker, Seen, mark_seen
from livefeed.adapters.postgres.snapshot_reads import read_snapshot_page
from livefeed.channel import channels_of
from livefeed.entry import Entry, EntryKey, born_of, coalesce
from livefeed.errors import Unavailable
from livefeed.feed_view import PageQuery
from livefeed.identity import item_key, update_ref
from livefeed.order import order_key
from livefeed.replica_choice import Lag
from livefeed.update import KINDS, facet_of
from tests.conftest import admin
from tests.reference_feed import Moment, reference_page
from tests.servers import frozen, until

FEED = "home"
ITEMS = [f"p{number}" for number in range(12)]
RANKS = [None, None, -1.5, -0.0, 0.0, 1.0, 1.0, 1e300, -1e300, 5e-324]
STAMPS = [-(62 * 10**15), -1, 0, 1, 10**6, 1_700_000_000_000_001, 253 * 10**15, 253 * 10**15 + 1]
"""Microseconds since 1970; the outer ones have more digits than a double."""
_examples = itertools.count()


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = make_pool(database, "primary")
    yield pool
    await pool.close()


@given(st.randoms(use_true_random=False), st.integers(0, 60))
@settings(max_examples=60)
async def test_each_page_is_what_all_the_entries_say(
    pool: Pool, choices: random.Random, number: int
) -> None:
    """Ties, negative ranks and none, births, removals, floors, filters, and what was seen."""
    user = f"alice{next(_examples)}"
    feed = f"of-{user}"
    channels = channels_of(user, feed)
    await write_anything(Log(pool), channels, choices, number)
    await raise_floors(pool, channels, choices)
    moment = await the_log(pool, channels)
    seen = {name: int(choices.random() * head) for name, head in moment.heads.items()}
    await mark(pool, user, moment, seen)
    for kinds in [(0, 1, 3), tuple(sorted(choices.sample((0, 1, 3), choices.randint(1, 3)))), ()]:
        query = PageQuery(choices.randint(1, 9), None, kinds)
        while True:
            page = await read_snapshot_page(pool, user, feed, query)
            assert page == reference_page(moment, user, feed, query, seen)
            if not page.more:
                break
            query = PageQuery(query.limit, page.items[-1].key, kinds)


async def test_another_epochs_markers_do_not_count(pool: Pool) -> None:
    """Nor another user's."""
    channels = channels_of("alice", FEED)
    await write_anything(Log(pool), channels, random.Random(1), 40)
    moment = await the_log(pool, channels)
    await mark(pool, "bob", moment, dict(moment.heads))
    unread = reference_page(moment, "alice", FEED, PageQuery()).unread
    assert unread > 0
    assert (await read_snapshot_page(pool, "alice", FEED, PageQuery())).unread == unread
    await mark(pool, "alice", moment, dict(moment.heads))
    assert (await read_snapshot_page(pool, "alice", FEED, PageQuery())).unread == 0
    await pool.fetch("update feed_epoch set epoch = 'restored'")
    assert (await read_snapshot_page(pool, "alice", FEED, PageQuery())).unread == unread


async def test_a_log_without_an_epoch_is_unavailable(pool: Pool) -> None:
    await pool.fetch("delete from feed_epoch")
    with pytest.raises(Unavailable):
        await read_snapshot_page(pool, "alice", FEED, PageQuery())


async def test_what_was_planned_for_a_small_log_is_right_for_a_large_one(database: str) -> None:
    """A statement is planned once, and its plan looks rows up, however many there are by then."""
    early = make_pool(database, "primary")
    log = Log(early)
    user, query = "planner", PageQuery(limit=50)
    channels = channels_of(user, FEED)

    async def read_and_write(number: int) -> None:
        choices = random.Random(number)
        await write_anything(log, channels, choices, 5)
        await read_snapshot_page(early, user, FEED, query)
        await read_pages(early, [(name, 0) for name in channels])
        await read_heads(early, list(channels))

    for number in range(10):
        await read_and_write(number)
    for number in range(40):
        await write_anything(log, [f"user:planner-{number}/home"], random.Random(number), 100)
    before = await rows_read_in_scans(database)
    for number in range(10):
        await read_and_write(number)
    await early.close()
    assert await rows_read_in_scans(database) - before < 1_000


async def test_a_replica_answers_however_far_it_is_behind(
    database: str, replica_url: str, session_replica: PostgresReplica
) -> None:
    """Its cursor is as old as its items; one that hangs or has another log is passed over."""
    pools = [make_pool(database, "primary"), make_pool(replica_url, "replica")]
    gauges = [
        Gauge(url, dependency="x", seconds_max=1, application="tests")
        for url in (database, replica_url)
    ]
    replica = Replica("replica", pools[1], gauges[1])
    replica.lag = Lag(0.0, 0)  # It was close behind when somebody looked.
    reader, query = LogReader(pools[0], Replicas(gauges[0], [replica])), PageQuery()
    everyones = channels_of("alice", FEED)[1]

    async def head() -> int:
        return (await reader.snapshot_page("alice", FEED, query)).heads[everyones]

    async with admin(session_replica) as connection:
        assert await head() == 0
        await connection.execute("select pg_wal_replay_pause()")
        try:
            await pools[0].fetch("insert into feed_channel (name, seq) values ($1, 7)", everyones)
            assert await head() == 0
            reader.epoch = "another"
            assert await head() == 7
            assert reader.epoch != "another", "the primary said which one it is"
            assert await head() == 0
        finally:
            await connection.execute("select pg_wal_replay_resume()")
    with frozen(session_replica):
        assert [await head() for _ in range(20)] == [7] * 20

    async def by_replica() -> bool:
        return (await LogReader(pools[1], Replicas()).heads([everyones])).heads[everyones] == 7

    await until(by_replica, what="the replica is there again")
    for gauge in gauges:
        gauge.close()
    for pool in pools:
        await pool.close()


async def test_another_log_is_noticed_without_a_read(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway whose pages are all kept would serve those of the old one until they are stale."""
    monkeypatch.setattr(log_reader, "HEAD_CHECK_SECONDS", 0.05)
    reader = LogReader(pool, Replicas())
    watching = asyncio.create_task(reader.run())
    await until(lambda: reader.epoch, what="the epoch is known")
    await pool.fetch("update feed_epoch set epoch = 'another'")
    await until(lambda: reader.epoch == "another", what="the new epoch is known")
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_many_who_are_the_first_read_the_epoch_once(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever of them goes away; what goes wrong is everybody's, and is tried again."""
    reader, reads = LogReader(pool, Replicas()), 0
    fetch = pool.fetch

    async def counted(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == 1:
            raise Unavailable("primary", "a test")
        return await fetch(*arguments)

    monkeypatch.setattr(pool, "fetch", counted)
    failed = await asyncio.gather(
        *(reader.known_epoch() for _ in range(100)), return_exceptions=True
    )
    assert {str(one) for one in failed} == {
        "log is unavailable: its epoch could not be read: primary is unavailable: a test"
    }
    asking = [asyncio.create_task(reader.known_epoch()) for _ in range(100)]
    await asyncio.sleep(0)
    asking.pop(0).cancel()
    assert len(set(await asyncio.gather(*asking))) == 1
    assert reads == 2


# Helpers.


def make_pool(url: str, dependency: str) -> Pool:
    return Pool(
        url, dependency=dependency, connections_max=2, timeout_seconds=30, application="tests"
    )


async def rows_read_in_scans(url: str) -> int:
    """Rows of the log's tables that were read by walking over a whole table."""
    pool = make_pool(url, "primary")
    (row,) = await pool.fetch(
        "select sum(seq_tup_read)::int as read from pg_stat_user_tables where relname like 'feed_%'"
    )
    await pool.close()
    return int(row["read"])


async def write_anything(
    log: Log, channels: Iterable[str], choices: random.Random, number: int
) -> None:
    """Random updates, in flushes of any size."""
    names = list(channels)
    entries: list[tuple[EntryKey, Entry]] = []
    bodies: dict[bytes, Body] = {}
    for one in range(number):
        item, kind = choices.choice(ITEMS), choices.choice((0, 0, 1, 2, 3, 3))
        stamp, rank = choices.choice(STAMPS), choices.choice(RANKS)
        ref = update_ref(f"u{one}", item + names[0])
        version = choices.choice((None, None, one))
        order = order_key(version=version, timestamp_microseconds=stamp, ref=ref)
        key = EntryKey(choices.choice(names), item_key(item), facet_of(kind))
        entries.append((key, Entry(order, kind, rank, born_of(kind, stamp))))
        body = {"updateType": KINDS[kind], "content": {"id": item, "n": one, "x": "\0"}}
        bodies[ref] = Body(ref, f"u{one}", json.dumps(body).encode(), 1, 4 * 10**15, None)
    while entries:
        size = choices.randint(1, 20)
        flush, entries = coalesce(entries[:size]), entries[size:]
        refs = {entry.order.ref for entry in flush.values()}
        await log.persist(flush, {ref: bodies[ref] for ref in refs})


async def raise_floors(pool: Pool, channels: Iterable[str], choices: random.Random) -> None:
    """The entries at or below a floor are still there, as while `retain` is on its way."""
    for name in channels:
        await pool.fetch(
            "update feed_channel set floor = (seq * $2::float8)::bigint where name = $1",
            name,
            choices.choice((0.0, 0.0, 0.3, 1.0)),
        )


async def the_log(pool: Pool, channels: Iterable[str]) -> Moment:
    """All of it, read through catch-up pages."""
    names = list(channels)
    heads = await read_heads(pool, names)
    pages = await read_pages(pool, [(name, 0) for name in names], entries_max=10_000)
    entries = {page.channel: page.updates for page in pages}
    return Moment(heads.epoch, heads.heads, heads.floors, entries)


async def mark(pool: Pool, user: str, moment: Moment, seen: dict[str, int]) -> None:
    markers = {
        Marker(user, name, "phone"): Seen(moment.epoch, position) for name, position in seen.items()
    }
    if markers:
        await mark_seen(pool, markers)
