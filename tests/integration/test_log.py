"""The keyed log on a real PostgreSQL: whatever is told, how often and by whom, it is the model."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livefeed.adapters.postgres.log import Flushed, Log, Placed, renew_epoch_if_changed
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.reads import Page, StoredUpdate, read_heads, read_pages
from livefeed.adapters.postgres.retention import Bounds, only_one
from livefeed.entry import Entry, EntryKey
from livefeed.errors import Unavailable, UpdateRefused
from livefeed.limits import ITEM_BYTES_MAX, PAGE_BYTES_MAX
from livefeed.order import OrderKey
from livefeed.update import CONTENT_REMOVAL, CONTENT_UPDATE, ENGAGEMENT_UPDATE, NEW_CONTENT
from tests.reference_log import (
    CHANNELS,
    Change,
    body_of,
    change,
    flush_of,
    item_of,
    order_keys,
    random_batches,
    reference,
    rename,
    retold,
)
from tests.servers import OwnServers, until

HOME = CHANNELS[0]
_examples = itertools.count()


class Row(NamedTuple):
    """An entry where it stands."""

    seq: int
    entry: Entry


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = make_pool(database)
    yield pool
    await pool.close()


@pytest.fixture
def log(pool: Pool) -> Log:
    return Log(pool)


# Writing.


@given(retold())
@settings(max_examples=50)
async def test_whatever_is_told_it_is_the_model(
    log: Log, pool: Pool, batches: list[list[Change]]
) -> None:
    """After each flush, in any order and batches, the log is the model of what was told so far."""
    told: list[Change] = []
    before: dict[EntryKey, Row] = {}
    heads: dict[str, int] = defaultdict(int)
    for batch in own(batches):
        told += batch
        flushed = await log.persist(*flush_of(batch))
        after = await rows(pool, told)
        assert entries(after) == reference(told)
        check_changes(flushed, before, after, heads)
        before = after


@given(retold())
@settings(max_examples=25)
async def test_a_flush_that_comes_again_changes_nothing(
    log: Log, pool: Pool, batches: list[list[Change]]
) -> None:
    """Nothing is placed, no head moves and no row is written, whatever old messages come again."""
    batches = own(batches)
    told = [change for batch in batches for change in batch]
    for batch in batches:
        await log.persist(*flush_of(batch))
    before = await everything(pool, told)
    for batch in [*batches, told]:
        for changed in (await log.persist(*flush_of(batch))).changes:
            assert changed.placed == []
            assert changed.head == changed.before
    assert await everything(pool, told) == before


async def test_no_zombie(log: Log, pool: Pool) -> None:
    """Older content moves no removal, it can only tell of its birth; newer content replaces it."""
    removal = change(kind=CONTENT_REMOVAL, timestamp=5)
    await log.persist(*flush_of([removal]))
    for older in (change(timestamp=4), change(timestamp=3), change(kind=CONTENT_UPDATE)):
        (changed,) = (await log.persist(*flush_of([older]))).changes
        assert (changed.placed, changed.head) == ([], 1)
    assert await rows(pool, [removal]) == {removal.key: Row(1, removal.entry._replace(born=3))}
    newer = change(kind=CONTENT_UPDATE, timestamp=6)
    (changed,) = (await log.persist(*flush_of([newer]))).changes
    assert changed.placed == [Placed(2, newer.entry._replace(born=3))]


async def test_a_birth_that_becomes_known_moves_the_item(log: Log, pool: Pool) -> None:
    """The first content of an item that is shown changes its place, so clients hear of it."""
    shown = change(kind=CONTENT_UPDATE, timestamp=5)
    await log.persist(*flush_of([shown]))
    (changed,) = (await log.persist(*flush_of([change(timestamp=4)]))).changes
    assert changed.placed == [Placed(2, shown.entry._replace(born=4))]


async def test_a_body_is_stored_once(log: Log, pool: Pool) -> None:
    """An update for many channels has one body, with everything that was said of it."""
    told = [change(f"user:{user}/home") for user in range(50)]
    body = told[0].body._replace(trace="00-a-b-01", published_at=-1, accepted_at=10**15)
    await log.persist(flush_of(told)[0], {body.ref: body})
    (found,) = await pool.fetch(
        "select ref, update_id, body, trace, extract(epoch from published_at) * 1000000 as said,"
        " extract(epoch from accepted_at) * 1000000 as accepted from feed_body"
    )
    assert found["ref"] == body.ref
    assert (found["update_id"], found["body"], found["trace"]) == (body[1], body[2], body.trace)
    assert (found["said"], found["accepted"]) == (-1, 10**15)


@given(st.binary(max_size=ITEM_BYTES_MAX) | st.sampled_from([b"", b"\0", bytes(range(256))]))
@settings(max_examples=25)
async def test_any_bytes_survive(log: Log, pool: Pool, content: bytes) -> None:
    """A body is read as it was written: none at all, NUL, whatever is no text."""
    ((told,),) = own([[change()]])
    body = body_of(secrets.token_bytes(16), content)
    entry = told.entry._replace(order=told.entry.order._replace(ref=body.ref))
    await log.persist({told.key: entry}, {body.ref: body})
    (page,) = await read_pages(pool, [(told.key.channel, 0)])
    assert [found.body for found in page.updates] == [content]


async def test_what_cannot_be_stored_is_refused(log: Log, pool: Pool) -> None:
    """What Postgres cannot hold is refused for good, and nothing of its flush is in the log."""
    good, bad = change(item="p1"), change(item="p2")
    too_new = bad._replace(entry=bad.entry._replace(order=OrderKey(1, 2**63, bad.body.ref)))
    with_nul = bad._replace(body=bad.body._replace(update_id="u\0"))
    for refused in (too_new, with_nul):
        with pytest.raises(UpdateRefused, match="not_persistable"):
            await log.persist(*flush_of([good, refused]))
    assert await rows(pool, [good]) == {}
    await log.persist(*flush_of([good]))
    assert entries(await rows(pool, [good])) == reference([good])


async def test_without_a_schema_it_is_unavailable(log: Log, pool: Pool) -> None:
    """Without tables everything fails as for a server that is away, and says what to do."""
    await pool.fetch("drop table feed_entry, feed_body, feed_channel, feed_epoch")
    with pytest.raises(Unavailable, match="livefeed migrate"):
        await log.persist(*flush_of([change()]))
    with pytest.raises(Unavailable, match="livefeed migrate"):
        await read_heads(pool, [HOME])


@given(st.lists(st.tuples(order_keys, order_keys), min_size=1, max_size=100))
@settings(max_examples=25)
async def test_sql_orders_as_python_does(
    pool: Pool, pairs: list[tuple[OrderKey, OrderKey]]
) -> None:
    """The comparison in the upsert and the one of `OrderKey` agree on every pair."""
    columns = [list(column) for column in zip(*(one + other for one, other in pairs), strict=True)]
    found = await pool.fetch(
        "select (a, b, c) < (d, e, f) as older from unnest($1::smallint[], $2::bigint[],"
        " $3::bytea[], $4::smallint[], $5::bigint[], $6::bytea[]) as pair (a, b, c, d, e, f)",
        *columns,
    )
    assert [row["older"] for row in found] == [one < other for one, other in pairs]


# Many writers, and writers that die.


async def test_writers_at_once_come_to_the_model(pool: Pool) -> None:
    """Four writers of the same channels neither deadlock nor lose anything."""
    for _ in range(8):
        batches = own(random_batches(batches=40, size=20))
        async with asyncio.TaskGroup() as tasks:
            for number in range(4):
                tasks.create_task(write(Log(pool), batches[number::4]))
        await assert_is_model(pool, batches)


async def test_writers_of_the_same_new_rows_do_not_deadlock(pool: Pool) -> None:
    """Writers that make the same channels and bodies at once wait for each other in one order."""
    for number in range(8):
        told = [change(f"user:{n}/home", f"p{n}", salt=number) for n in range(500)]
        (batch,) = own([told])
        async with asyncio.TaskGroup() as tasks:
            for _ in range(6):
                shuffled = random.sample(batch, len(batch))
                tasks.create_task(Log(pool).persist(*flush_of(shuffled)))
        await assert_is_model(pool, [batch])


async def test_a_writer_may_be_cut_after_any_statement(database: str, pool: Pool) -> None:
    """Cut after each statement of a flush, and told again, everything is there once."""
    cut_after = cuts = 1
    while cuts:
        (batch,) = own([[change(name, item) for name in CHANNELS for item in ("p1", "p2")]])
        cuts = await flush_with_a_cut(database, batch, cut_after)
        await assert_is_model(pool, [batch])
        cut_after += 1
    assert cut_after > 7, "a flush has more statements than were cut"


async def test_writers_whose_backends_are_killed(database: str, pool: Pool) -> None:
    """Backends that are killed at random moments cost a repetition, nothing else."""
    batches = own(random_batches(batches=120, size=10))
    victims = make_pool(database, application="victim")
    left = list(batches)
    kills = 0
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(write(Log(victims), take_all(left)))
        # One kill for some flushes that got through: however slow it is here, it gets on.
        for some in range(len(left) - 5, 0, -5):
            await until(partial(is_short, left, some), what="the writers get on")
            for _ in range(random.randint(0, 20)):  # a moment of random length
                await pool.fetch("select 1")
            kills += await kill_one(pool, "victim")
    await victims.close()
    assert kills > 10
    await assert_is_model(pool, batches)


async def test_writers_that_are_cancelled(pool: Pool) -> None:
    """A flush that is given up at a random moment, and told again, is there once."""
    batches = own(random_batches(batches=120, size=10))
    log, given_up = Log(pool), 0
    for batch in batches:
        try:
            async with asyncio.timeout(random.uniform(0, 0.004)):
                await log.persist(*flush_of(batch))
        except TimeoutError:
            given_up += 1
            await persist_until_taken(log, batch)
    assert given_up > 5
    await assert_is_model(pool, batches)


async def test_a_channel_that_is_another_one_now(log: Log, pool: Pool) -> None:
    """After a failover that lost a channel its id may be another user's: nothing goes there."""
    await log.persist(*flush_of([change("user:alice/home")]))
    await pool.fetch("truncate feed_channel, feed_entry restart identity")
    await Log(pool).persist(*flush_of([change("user:bob/home")]))
    told = [change("user:alice/home", "p2"), change("user:carol/home", "p2")]
    await persist_until_taken(log, told)
    assert entries(await rows(pool, [*told, change("user:bob/home")])) == reference(
        [*told, change("user:bob/home")]
    )


# Reading.


@given(retold(), st.data())
@settings(max_examples=40)
async def test_pages_are_exactly_what_is_newer(
    log: Log, pool: Pool, batches: list[list[Change]], data: st.DataObject
) -> None:
    """From any position, above any floor, by pages of any size: every newer entry, ascending."""
    batches = own(batches)
    told = [change for batch in batches for change in batch]
    for batch in batches:
        await log.persist(*flush_of(batch))
    for channel, head in sorted((await heads_of(pool, told)).items()):
        floor = await raise_floor(pool, channel, data.draw(st.integers(0, head)))
        position = data.draw(st.integers(0, head))
        bounds = {
            "entries_max": data.draw(st.integers(1, 6)),
            "bytes_max": data.draw(st.integers(1, 120)),
        }
        pages = await follow(pool, channel, position, **bounds)
        expected = await stored(pool, channel, max(position, floor))
        assert [update for page in pages for update in page.updates] == expected
        assert {(page.head, page.floor) for page in pages} == {(head, floor)}
        assert pages[-1].end == max(head, floor)


async def test_pages_are_sorted_whatever_the_plan(database: str, log: Log, pool: Pool) -> None:
    """Where rows lie on disk, and which index is taken, does not decide what a page begins with."""
    await log.persist(*flush_of(change(item=f"p{n}", timestamp=n) for n in range(9)))
    await raise_floor(pool, HOME, 4)
    await pool.fetch("vacuum feed_entry")
    # These come to lie where the first ones were.
    await log.persist(*flush_of(change(item=f"q{n}", timestamp=n) for n in range(4)))
    plain = make_pool(f"{database}?enable_indexscan=off&enable_bitmapscan=off")
    pages = await follow(plain, HOME, 0, entries_max=2)
    await plain.close()
    assert [update.seq for page in pages for update in page.updates] == list(range(5, 14))


async def test_many_channels_are_read_at_once(log: Log, pool: Pool) -> None:
    """One read answers each position in the order asked, of channels that are not there too."""
    await log.persist(*flush_of([change(HOME, "p1"), change(HOME, "p2", timestamp=1)]))
    asked = [(HOME, 1), ("topic:none", 7), (HOME, 0), (HOME, 2), (HOME, 9)]
    pages = await read_pages(pool, asked)
    assert [page.channel for page in pages] == [name for name, _ in asked]
    assert [len(page.updates) for page in pages] == [1, 0, 2, 0, 0]
    assert [(page.head, page.end) for page in pages] == [(2, 2), (0, 0), (2, 2), (2, 2), (2, 2)]
    assert not any(page.more for page in pages)
    found = await read_heads(pool, [HOME, "topic:none"])
    assert found.heads == {HOME: 2, "topic:none": 0}
    assert {found.epoch} == {page.epoch for page in pages}


async def test_a_reader_among_writers_ends_equal_to_the_log(pool: Pool) -> None:
    """A client that follows pages while others write and trim holds at the end what the log has."""
    for _ in range(4):
        batches = own(random_batches(batches=60, size=12))
        told = [change for batch in batches for change in batch]
        clients = [Client(name) for name in {change.key.channel for change in told}]
        async with asyncio.TaskGroup() as tasks:
            writers = [tasks.create_task(write(Log(pool), batches[n::3])) for n in range(3)]
            writers.append(tasks.create_task(trim_at_random(pool, clients)))
            while not all(writer.done() for writer in writers):
                await asyncio.gather(*(client.catch_up(pool) for client in clients))
        for client in clients:
            await client.catch_up(pool)
            # What a writer had locked is left below its floor until `retain` comes by again.
            await raise_floor(pool, client.channel, 0)
            assert client.shown() == shown(await stored(pool, client.channel, 0))


async def test_large_bodies_come_in_pages_of_bounded_bytes(log: Log, pool: Pool) -> None:
    """A page of the largest bodies stays within its bytes, and every page gets on."""
    told = [
        found._replace(body=body_of(found.body.ref, random.randbytes(ITEM_BYTES_MAX - number)))
        for number, found in enumerate(change(item=f"p{n}", timestamp=n) for n in range(40))
    ]
    await log.persist(*flush_of(told))
    pages = await follow(pool, HOME, 0)
    sizes = [sum(len(update.body) for update in page.updates) for page in pages]
    assert [update.body for page in pages for update in page.updates] == [t.body.body for t in told]
    assert max(sizes) <= PAGE_BYTES_MAX
    assert len(pages) == 3, sizes
    alone = await follow(pool, HOME, 0, bytes_max=1)
    assert [len(page.updates) for page in alone] == [1] * 40


# The floor.


async def test_the_floor_takes_what_is_below_it(log: Log, pool: Pool) -> None:
    """Everything at or below goes, tombstones too; the floor never falls, nor passes the head."""
    kinds = [NEW_CONTENT, CONTENT_REMOVAL, ENGAGEMENT_UPDATE, NEW_CONTENT]
    told = [change(item=f"p{n}", kind=kind, timestamp=n) for n, kind in enumerate(kinds)]
    await log.persist(*flush_of(told))
    assert [await raise_floor(pool, HOME, seq) for seq in (2, 1, 0)] == [2, 2, 2]
    assert sorted(row.seq for row in (await rows(pool, told)).values()) == [3, 4]
    assert await raise_floor(pool, HOME, 99) == 4
    assert await rows(pool, told) == {}
    (changed,) = (await log.persist(*flush_of([change(timestamp=9)]))).changes
    assert (changed.before, changed.head, changed.floor) == (4, 5, 4)


@given(retold(), st.data())
@settings(max_examples=50)
async def test_nothing_comes_back_from_below_a_floor(
    log: Log, pool: Pool, batches: list[list[Change]], data: st.DataObject
) -> None:
    """What was accepted before the floors rose, told whenever and again, never turns back.

    Also where the newer one fell, and nothing in the log says any more that there was one.
    """
    await pool.fetch("truncate feed_body")  # of other examples, written before this was accepted
    latest: dict[EntryKey, OrderKey] = {}
    for batch in own([[accepted_now(one) for one in batch] for batch in batches]):
        await log.persist(*flush_of(batch))
        for key, row in (await rows(pool, batch)).items():
            assert latest.setdefault(key, row.entry.order) <= row.entry.order
            latest[key] = row.entry.order
        if data.draw(st.booleans(), "the floor rises"):
            channel, head = data.draw(
                st.sampled_from(sorted((await heads_of(pool, batch)).items()))
            )
            await raise_floor(pool, channel, data.draw(st.integers(0, head)))


async def test_what_is_late_counts_as_below_the_floor(log: Log, pool: Pool) -> None:
    """Late is what was accepted before the newest of what fell was written, for that channel."""
    early = now_microseconds()
    shown = change(item="p1", timestamp=1, accepted_at=early)
    kept = change(item="p3", timestamp=2, accepted_at=early)
    removal = change(item="p1", kind=CONTENT_REMOVAL, timestamp=3, accepted_at=early)
    await log.persist(*flush_of([shown]))
    await log.persist(*flush_of([removal]))
    await log.persist(*flush_of([kept]))
    assert await raise_floor(pool, HOME, 2) == 2
    unknown = change(item="p2", accepted_at=early)
    newer = change(item="p3", timestamp=9, accepted_at=early)
    after = change(item="p4", accepted_at=now_microseconds())
    elsewhere = change("topic:home", "p1", timestamp=1, accepted_at=early)
    flushed = await log.persist(*flush_of([shown, unknown, newer, after, elsewhere]))
    told = [newer, after, elsewhere]
    assert entries(await rows(pool, [*told, shown, unknown])) == reference([kept, *told])
    assert {changed.channel: len(changed.placed) for changed in flushed.changes} == {
        HOME: 2,
        "topic:home": 1,
    }
    (changed,) = (await log.persist(*flush_of([shown, removal]))).changes
    assert (changed.placed, changed.head) == ([], 5)


async def test_what_is_left_below_a_floor_does_not_count(log: Log, pool: Pool) -> None:
    """An entry that fell and is not deleted yet is gone: nothing late moves it up again."""
    early = now_microseconds()
    await log.persist(*flush_of([change(timestamp=1, accepted_at=early)]))
    await raise_floor(pool, HOME, 1, delete=False)
    late = change(timestamp=2, accepted_at=early)
    (changed,) = (await log.persist(*flush_of([late]))).changes
    assert (changed.placed, changed.head) == ([], 1)
    assert await stored(pool, HOME, 1) == []


async def test_what_a_writer_holds_is_deleted_later(log: Log, pool: Pool) -> None:
    """A row that is locked while its floor rises is in no page at once, and deleted the next time.

    A flush locks all that it tells again, also what it then does not change.
    """
    await log.persist(*flush_of([change(item="p1"), change(item="p2", timestamp=1)]))
    async with pool.connection() as writer, writer.transaction():
        await writer.execute("select from feed_entry where seq = 1 for update")
        assert await raise_floor(pool, HOME, 1) == 1
        assert [update.seq for update in await stored(pool, HOME, 0)] == [1, 2]
        (page,) = await follow(pool, HOME, 0)
        assert [update.seq for update in page.updates] == [2]
    assert await raise_floor(pool, HOME, 0) == 1
    assert [update.seq for update in await stored(pool, HOME, 0)] == [2]


async def test_what_was_forgotten_is_never_forgotten_less(log: Log, pool: Pool) -> None:
    """Where older entries stand above younger ones, the youngest that ever fell counts."""
    for number in (1, 2):
        await log.persist(*flush_of([change(item=f"p{number}", timestamp=number)]))
    await pool.fetch("update feed_body set persisted_at = persisted_at - interval '1 day'")
    await raise_floor(pool, HOME, 1)
    (before,) = await pool.fetch("select forgotten_at from feed_channel")
    await pool.fetch("update feed_body set persisted_at = persisted_at - interval '1 day'")
    await raise_floor(pool, HOME, 2)
    (after,) = await pool.fetch(
        "select forgotten_at, now() - forgotten_at > interval '23 hours' as as_the_body"
        " from feed_channel"
    )
    assert after["forgotten_at"] == before["forgotten_at"]
    assert after["as_the_body"]


# The epoch.


async def test_the_epoch_is_of_the_timeline(own_servers: OwnServers) -> None:
    """A restart keeps the epoch; a promotion renews it, once, however many connect at once."""
    url = own_servers.postgres.url
    first = await epochs(url)
    own_servers.postgres.kill()
    await own_servers.postgres.start()
    assert await epochs(url) == first
    replica = await own_servers.start_replica()
    assert await epochs(replica.url, on_connect=None) == first
    await replica.promote()
    renewed = await epochs(replica.url)
    assert len(first) == len(renewed) == 1
    assert first != renewed
    assert await epochs(replica.url) == renewed
    assert await epochs(url) == first


# Helpers.


class Client:
    """What applies pages as a client does: newest by seq, nothing at or below the floor."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.position = 0
        self.held: dict[tuple[int, int], StoredUpdate] = {}

    async def catch_up(self, pool: Pool) -> None:
        """Read until there is no more."""
        for page in await follow(pool, self.channel, self.position):
            for update in page.updates:
                key = item_of(update.body), update.facet
                assert key not in self.held or self.held[key].seq < update.seq
                self.held[key] = update
            kept = {key: held for key, held in self.held.items() if held.seq > page.floor}
            self.held, self.position = kept, page.end

    def shown(self) -> list[StoredUpdate]:
        """What it holds, by seq."""
        return shown(sorted(self.held.values()))


def make_pool(url: str, **options: Any) -> Pool:
    given = {"application": "tests", "on_connect": renew_epoch_if_changed, **options}
    return Pool(url, dependency="primary", connections_max=8, timeout_seconds=5, **given)


def own(batches: list[list[Change]]) -> list[list[Change]]:
    """The same in channels that no other example has."""
    suffix = f"-{next(_examples)}"
    return [rename(batch, suffix) for batch in batches]


async def write(log: Log, batches: Iterable[list[Change]]) -> None:
    for batch in batches:
        await persist_until_taken(log, batch)


async def persist_until_taken(log: Log, batch: list[Change]) -> Flushed:
    """As a worker does: what failed because the server was away is tried again."""
    while True:
        try:
            return await log.persist(*flush_of(batch))
        except Unavailable as error:
            if "Deadlock" in error.detail or "LockNotAvailable" in error.detail:
                raise


async def flush_with_a_cut(database: str, batch: list[Change], cut_after: int) -> int:
    """Cut the first connection after some statements; returns how often there were as many."""
    cuts = 0

    async def arm(connection: asyncpg.Connection) -> None:
        statements = itertools.count(1)

        def cut(_query: object) -> None:
            nonlocal cuts
            if next(statements) == cut_after and not cuts:
                cuts += 1
                connection._transport.abort()

        connection.add_query_logger(cut)

    pool = make_pool(database, on_connect=arm)
    await persist_until_taken(Log(pool), batch)
    await pool.close()
    return cuts


def is_short(left: list[list[Change]], some: int) -> bool:
    return len(left) <= some


def take_all(left: list[list[Change]]) -> Iterator[list[Change]]:
    """Batches from the end until none is left, for several writers."""
    while left:
        yield left.pop()


async def kill_one(pool: Pool, application: str) -> int:
    return len(
        await pool.fetch(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1"
            " and datname = current_database() order by random() limit 1",
            application,
        )
    )


async def raise_floor(pool: Pool, channel: str, seq: int, *, delete: bool = True) -> int:
    """Raise a channel's floor as `retain` does; returns where it is, 0 without such a channel."""
    async with only_one(pool, Bounds(channels_max=1)) as retention:
        assert retention is not None
        for row in await pool.fetch("select id from feed_channel where name = $1", channel):
            await retention.raise_floors({row["id"]: seq})
            if delete:
                await retention.trim(row["id"] - 1)
    found = await pool.fetch("select floor from feed_channel where name = $1", channel)
    return int(found[0]["floor"]) if found else 0


def accepted_now(told: Change) -> Change:
    return told._replace(body=told.body._replace(accepted_at=now_microseconds()))


def now_microseconds() -> int:
    return time.time_ns() // 1000


async def trim_at_random(pool: Pool, clients: list[Client]) -> None:
    for _ in range(20):
        client = random.choice(clients)
        await raise_floor(pool, client.channel, random.randint(0, client.position))


async def follow(pool: Pool, channel: str, position: int, **bounds: int) -> list[Page]:
    """Every page after a position, each of which is checked by itself."""
    pages: list[Page] = []
    while not pages or pages[-1].more:
        start = pages[-1].end if pages else position
        (page,) = await read_pages(pool, [(channel, start)], **bounds)
        seqs = [update.seq for update in page.updates]
        assert seqs == sorted(set(seqs))
        assert all(max(start, page.floor) < seq <= page.head for seq in seqs)
        assert len(seqs) <= bounds.get("entries_max", len(seqs))
        assert page.end == (seqs[-1] if page.more else max(page.head, page.floor))
        pages.append(page)
    return pages


async def rows(pool: Pool, told: Iterable[Change]) -> dict[EntryKey, Row]:
    """Everything that stands in the channels that were told of."""
    found = await pool.fetch(
        "select name, item, facet, entry.seq, explicit, version, ref, kind, rank, born"
        " from feed_entry entry join feed_channel channel on channel.id = channel_id"
        " where name = any($1::text[])",
        list({change.key.channel for change in told}),
    )
    return {
        EntryKey(*row[:3]): Row(row["seq"], Entry(OrderKey(*row[4:7]), *row[7:])) for row in found
    }


def entries(rows: Mapping[EntryKey, Row]) -> dict[EntryKey, Entry]:
    return {key: row.entry for key, row in rows.items()}


async def stored(pool: Pool, channel: str, position: int) -> list[StoredUpdate]:
    """What a channel holds after a position, read in the plainest way."""
    found = await pool.fetch(
        "select entry.seq, facet, kind, rank, born, body from feed_entry entry"
        " join feed_body using (ref) join feed_channel channel on channel.id = channel_id"
        " where name = $1 and entry.seq > $2 order by entry.seq",
        channel,
        position,
    )
    return [StoredUpdate(*row) for row in found]


def shown(updates: list[StoredUpdate]) -> list[StoredUpdate]:
    """Updates without the births of removed items, which may become known silently."""
    return [u._replace(born=0) if u.kind == CONTENT_REMOVAL else u for u in updates]


async def heads_of(pool: Pool, told: Iterable[Change]) -> Mapping[str, int]:
    return (await read_heads(pool, list({change.key.channel for change in told}))).heads


async def everything(pool: Pool, told: list[Change]) -> list[Any]:
    """Rows, heads, and where each row lies: a row that is written anew lies elsewhere."""
    places = await pool.fetch(
        "select ctid::text, xmin::text from feed_entry union all"
        " select ctid::text, xmin::text from feed_body order by 1, 2"
    )
    channels = await pool.fetch("select ctid::text, seq from feed_channel order by 1")
    return [await rows(pool, told), list(map(tuple, places)), list(map(tuple, channels))]


async def assert_is_model(pool: Pool, batches: list[list[Change]]) -> None:
    told = [change for batch in batches for change in batch]
    found = await rows(pool, told)
    assert entries(found) == reference(told)
    heads = await heads_of(pool, told)
    places = [(key.channel, row.seq) for key, row in found.items()]
    assert len(set(places)) == len(places)
    assert all(1 <= seq <= heads[channel] for channel, seq in places)


def check_changes(
    flushed: Flushed,
    before: Mapping[EntryKey, Row],
    after: Mapping[EntryKey, Row],
    heads: dict[str, int],
) -> None:
    """A flush tells exactly what it changed, at new seqs, and heads move for that alone."""
    for changed in flushed.changes:
        moved = [
            Placed(*row)
            for key, row in after.items()
            if key.channel == changed.channel and seen(before.get(key)) != seen(row)
        ]
        assert changed.placed == sorted(moved)
        assert changed.before == heads[changed.channel]
        assert all(changed.before < row.seq for row in moved)
        assert changed.head == max((row.seq for row in moved), default=changed.before)
        assert len({row.seq for row in moved}) == len(moved)
        heads[changed.channel] = changed.head


def seen(row: Row | None) -> Row | None:
    """A row as far as anybody sees it: the birth of a removed item may become known silently."""
    if row is None or row.entry.kind != CONTENT_REMOVAL:
        return row
    return row._replace(entry=row.entry._replace(born=0))


async def epochs(url: str, *, on_connect: Any = renew_epoch_if_changed) -> set[str]:
    """The epochs that several processes find which connect at once."""
    pools = [make_pool(url, on_connect=on_connect) for _ in range(5)]
    found = await asyncio.gather(*(read_heads(pool, []) for pool in pools))
    await asyncio.gather(*(pool.close() for pool in pools))
    return {heads.epoch for heads in found}
