"""retain on real servers: what it takes away was handled or beyond its bounds, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig

from functions.pool import Upkeep
from functions.retain import Plan, Retain, Summary
from livefeed import subjects
from livefeed.adapters.nats.connection import Connection, close, connect
from livefeed.adapters.nats.provision import provision
from livefeed.adapters.nats.publish import Publisher, StreamRefused
from livefeed.adapters.postgres.log import Log
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.reads import read_pages
from livefeed.adapters.postgres.retention import Bounds, only_one
from livefeed.errors import Unavailable
from livefeed.limits import KIB, MIB, RETAIN_IDLE_SECONDS
from livefeed.topology import (
    LANE_STREAM,
    UPDATES,
    Consumer,
    deliver_consumer,
    prioritize_consumer,
)
from livefeed.update import CONTENT_REMOVAL, ENGAGEMENT_UPDATE
from tests.reference_log import Change, change, flush_of
from tests.servers import Stack, until, update

EVERYTHING = Plan(first=0.0, collects=True, thorough=True, trim_seconds_max=60.0)
BRIEFLY = replace(EVERYTHING, thorough=False)
DAY = 86_400
HOME = "user:alice/home"


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(
        database,
        dependency="primary",
        connections_max=8,
        timeout_seconds=5,
        application="tests",
        lookups=False,
    )
    yield pool
    await pool.close()


@pytest.fixture
async def connection(nats: str) -> AsyncIterator[Connection]:
    connection = await connect([nats], name="tests")
    yield connection
    await close(connection)


# Floors.


async def test_floors_are_those_of_the_model_while_writers_write(
    connection: Connection, pool: Pool
) -> None:
    """Writers and clients never notice: at the end everybody has what the model keeps."""
    bounds = Bounds(
        items_max=5,
        settled_seconds=0,
        age_seconds_max=DAY,
        channels_max=3,
        rows_max=50,
        old_entries_max=9,
    )
    names = [f"user:u{number}/home" for number in range(10)]
    clients = {name: Client(name) for name in names}
    writing = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for number in range(3):
            tasks.create_task(write(Log(pool), names, number, writing))
        tasks.create_task(age_some(pool, writing))
        for client in clients.values():
            tasks.create_task(client.follow(pool, writing))
        for _ in range(10):
            place = Plan(
                first=random.random(), collects=False, thorough=False, trim_seconds_max=0.5
            )
            await run_retain(connection, pool, bounds, place)
        writing.set()
    expected = await model_floors(pool, bounds)
    await run_until_nothing_is_raised(connection, pool, bounds)
    assert {name: floor for name, (floor, _) in (await stand(pool)).items()} == expected
    assert any(expected.values())
    for name, (floor, seqs) in (await stand(pool)).items():
        assert all(seq > floor for seq in seqs), "what is below a floor is gone"
        await clients[name].catch_up(pool)
        assert clients[name].held == seqs
        fresh = Client(name)
        await fresh.catch_up(pool)
        assert fresh.held == seqs


async def test_age_alone_and_count_alone(connection: Connection, pool: Pool) -> None:
    """What is old goes with its tombstones, up to the first that is young; items count alone."""
    told = [change(item=f"p{n}", timestamp=n) for n in range(6)]
    told[1] = change(item="p1", kind=CONTENT_REMOVAL, timestamp=1)
    told += [change(item="p5", kind=ENGAGEMENT_UPDATE, timestamp=n) for n in (7,)]
    await Log(pool).persist(*flush_of(told))
    await grow_old(pool, [one.body.ref for one in (*told[:2], told[4])], days=2)
    await run_retain(connection, pool, Bounds(age_seconds_max=DAY * 3), EVERYTHING)
    assert (await stand(pool))[HOME] == (0, {1, 2, 3, 4, 5, 6, 7})
    await run_retain(connection, pool, Bounds(age_seconds_max=DAY), EVERYTHING)
    assert (await stand(pool))[HOME] == (2, {3, 4, 5, 6, 7})
    done = await run_retain(connection, pool, Bounds(items_max=3, settled_seconds=0), EVERYTHING)
    assert (await stand(pool))[HOME] == (3, {4, 5, 6, 7})
    assert (done.channels, done.floors_raised, done.entries_deleted) == (1, 1, 1)


async def test_what_a_run_that_was_cut_left_goes_with_the_next(
    connection: Connection, pool: Pool
) -> None:
    """Entries below a floor that was raised before are found, although no floor is raised."""
    await Log(pool).persist(*flush_of([change(item=f"p{n}", timestamp=n) for n in range(4)]))
    await pool.fetch("update feed_channel set floor = 3")
    done = await run_retain(connection, pool, Bounds(rows_max=2), EVERYTHING)
    assert (done.floors_raised, done.entries_deleted) == (0, 3)
    assert (await stand(pool))[HOME] == (3, {4})


async def test_it_never_waits_for_a_writer(connection: Connection, pool: Pool) -> None:
    """A channel, an entry and a body that a writer holds are left alone; all others are done."""
    held, other = HOME, "user:bob/home"
    told = [change(name, f"p{n}", timestamp=n) for name in (held, other) for n in range(4)]
    unused = [change("user:x/home", f"x{n}", timestamp=n) for n in range(2)]
    await Log(pool).persist(*flush_of(told))
    await insert_bodies(pool, unused)
    await grow_old(pool, [one.body.ref for one in unused], days=1)
    async with pool.connection() as writer, writer.transaction():
        await writer.execute("select from feed_channel where name = $1 for no key update", held)
        await writer.execute("select from feed_body where ref = $1 for update", unused[0].body.ref)
        await writer.execute(
            "select from feed_entry where seq = 1 and channel_id = ("
            " select id from feed_channel where name = $1) for update",
            other,
        )
        began_at = time.monotonic()
        done = await run_retain(
            connection, pool, Bounds(items_max=2, settled_seconds=0), EVERYTHING
        )
        assert time.monotonic() - began_at < 1.5, "it waited"
        assert (done.floors_raised, done.entries_deleted, done.bodies_deleted) == (1, 1, 1)
        floors = {name: floor for name, (floor, _) in (await stand(pool)).items()}
        assert floors == {held: 0, other: 2}
    done = await run_retain(connection, pool, Bounds(items_max=2, settled_seconds=0), EVERYTHING)
    assert (done.floors_raised, done.entries_deleted, done.bodies_deleted) == (1, 3, 1)


# Bodies.


async def test_bodies_without_an_entry_go_and_no_other(connection: Connection, pool: Pool) -> None:
    """Superseded and trimmed bodies go; those in use, and those of a flush under way, stay."""
    told = [change(f"user:u{n % 7}/home", f"p{n}", timestamp=n) for n in range(50)]
    newer = [change(f"user:u{n % 7}/home", f"p{n}", timestamp=99) for n in range(0, 50, 3)]
    log = Log(pool)
    await log.persist(*flush_of(told))
    await log.persist(*flush_of(newer))
    await grow_old(pool, [one.body.ref for one in (*told, *newer)], days=1)
    under_way = [change(item=f"flush{n}") for n in range(5)]
    await insert_bodies(pool, under_way)
    done = await run_retain(connection, pool, Bounds(rows_max=4), EVERYTHING)
    used = {one.body.ref for one in (*told, *newer, *under_way)}
    used -= {told[n].body.ref for n in range(0, 50, 3)}
    assert await refs(pool) == used
    assert (done.bodies_deleted, done.collected) == (len(newer), True)


@pytest.mark.parametrize("after_steps", [1, 3, 6, 9])
async def test_an_old_body_that_is_used_again_stays(pool: Pool, after_steps: int) -> None:
    """An update that is published again, at whatever moment of a collection, keeps its body."""
    told = [change("user:a/home", f"p{n}", timestamp=n) for n in range(8)]
    again = [change("user:a/home", f"q{n}", timestamp=n) for n in range(8)]
    await Log(pool).persist(*flush_of(told))
    await insert_bodies(pool, again)
    await grow_old(pool, [one.body.ref for one in (*told, *again)], days=1)
    async with only_one(pool, Bounds(rows_max=3)) as retention:
        assert retention is not None
        steps = 0
        async for _ in retention.collect():
            steps += 1
            if steps == after_steps:
                await Log(pool).persist(*flush_of(again))
        assert steps >= after_steps
    assert {one.body.ref for one in again} <= await refs(pool)
    (page,) = await read_pages(pool, [("user:a/home", 0)])
    assert len(page.updates) == 16


# Streams.


async def test_only_what_was_handled_is_purged(connection: Connection, pool: Pool) -> None:
    """What is pending or in somebody's hands stays, in every filter of a consumer, and comes."""
    medium, low = prioritize_consumer("medium"), prioritize_consumer("low")
    lane = deliver_consumer("high", 3)
    sent = ["medium.a", "medium.b", "medium.a", "posts", "posts", "low.a", "posts"]
    for number, rest in enumerate(sent):
        await publish(connection, f"feed.updates.{rest}", str(number))
    for number in range(5):
        await publish(connection, subjects.lanes("high", 3), str(number))
    in_hand = [(await take(connection, medium, 5))[-1]]
    lanes = await take(connection, lane, 4, acknowledge=[0, 1, 3])
    await look_at_all(connection)
    done = await run_retain(connection, pool, Bounds(), EVERYTHING)
    # Of the lane 0 and 1; 3 stands above 2, which is in a worker's hands.
    assert done.purged == 4 + 2
    assert await contents(connection, UPDATES) == ["4", "5", "6"]
    assert await contents(connection, LANE_STREAM) == ["2", "3", "4"]
    for message in (*in_hand, lanes[2]):
        await message.nak()
    assert {m.data for m in await take(connection, medium, 2)} == {b"4", b"6"}
    assert {m.data for m in await take(connection, lane, 2)} == {b"2", b"4"}
    assert [m.data for m in await take(connection, low, 1)] == [b"5"]


async def test_what_lies_behind_the_unhandled_stays(connection: Connection, pool: Pool) -> None:
    """A stream with room is purged up to what is first to be handled; quiet consumers hold none."""
    high, low = prioritize_consumer("high"), prioritize_consumer("low")
    for number, rest in enumerate(["high.a", "low.a", "high.a", "low.a", "high.a"]):
        await publish(connection, f"feed.updates.{rest}", str(number))
    await take(connection, high, 3, acknowledge=range(3))
    for partition in (3, 4, 3):
        await publish(connection, subjects.lanes("high", partition), str(partition))
    # The floor of the others stays at 0 for ever, and that of 4 behind that of 3.
    await take(connection, deliver_consumer("high", 3), 2, acknowledge=range(2))
    await take(connection, deliver_consumer("high", 4), 1, acknowledge=[0])
    done = await run_retain(connection, pool, Bounds(), BRIEFLY)
    assert (done.purged, await contents(connection, UPDATES)) == (1 + 3, ["1", "2", "3", "4"])
    first, second = await take(connection, low, 2, acknowledge=())
    await second.ack_sync()
    assert (await run_retain(connection, pool, Bounds(), BRIEFLY)).purged == 0
    await first.ack_sync()
    assert (await run_retain(connection, pool, Bounds(), BRIEFLY)).purged == 4


async def test_a_deleted_consumer_loses_nothing(connection: Connection, pool: Pool) -> None:
    """Until it is provisioned again nobody says what was handled of its messages."""
    low = prioritize_consumer("low")
    await publish(connection, "feed.updates.low.a", "waits")
    await publish(connection, "feed.updates.high.a", "handled")
    await take(connection, prioritize_consumer("high"), 1, acknowledge=[0])
    await connection.jetstream().delete_consumer(UPDATES, low.name)
    assert (await run_retain(connection, pool, Bounds(), BRIEFLY)).purged == 0
    assert (await run_retain(connection, pool, Bounds(), EVERYTHING)).purged == 1
    await provision(connection, replicas=1, bytes_max=64 * MIB)
    assert [m.data for m in await take(connection, low, 1)] == [b"waits"]


async def test_a_full_stream_takes_publishes_again(connection: Connection, pool: Pool) -> None:
    """Full of handled messages it refuses; after one run it does not, and the unhandled are there.

    The bound is small, so that a few messages fill it.
    """
    await provision(connection, replicas=1, bytes_max=2 * MIB)
    publisher = Publisher(connection)
    publisher.start()
    subject = subjects.updates("high", "tests")
    sent = 0
    with contextlib.suppress(StreamRefused):
        while sent < 100:
            await publisher.publish(subject, b"%03d" % sent + bytes(200 * KIB))
            sent += 1
    assert 3 < sent < 100
    await take(connection, prioritize_consumer("high"), sent - 2, acknowledge=range(sent - 2))
    with pytest.raises(StreamRefused):
        await publisher.publish(subject, bytes(200 * KIB))
    done = await run_retain(connection, pool, Bounds(), EVERYTHING)
    assert done.purged == sent - 2
    await publisher.publish(subject, b"new" + bytes(200 * KIB))
    left = await take(connection, prioritize_consumer("high"), 3)
    assert [m.data[:3] for m in left] == [b"%03d" % (sent - 2), b"%03d" % (sent - 1), b"new"]


async def test_what_was_handled_lately_stays(connection: Connection, pool: Pool) -> None:
    """Updates that were handled stay for a while, lane messages go at once; a gap is no end."""
    high = prioritize_consumer("high")
    for number in range(4):
        await publish(connection, "feed.updates.high.a", str(number))
    await publish(connection, subjects.lanes("high", 3), "lane")
    await take(connection, high, 4, acknowledge=range(4))
    await take(connection, deliver_consumer("high", 3), 1, acknowledge=[0])
    done = await run_retain(connection, pool, Bounds(), EVERYTHING, keep_seconds=60)
    assert done.purged == 1
    assert await contents(connection, UPDATES) == ["0", "1", "2", "3"]
    await asyncio.sleep(1.0)
    for number in range(4, 6):
        await publish(connection, "feed.updates.high.a", str(number))
    await connection.jetstream().delete_msg(UPDATES, 5)
    await take(connection, high, 1, acknowledge=[0])
    done = await run_retain(connection, pool, Bounds(), EVERYTHING, keep_seconds=0.9)
    assert await contents(connection, UPDATES) == ["5"]
    await asyncio.sleep(1.0)
    await run_retain(connection, pool, Bounds(), EVERYTHING, keep_seconds=0.9)
    assert await contents(connection, UPDATES) == []


async def test_young_but_not_handled_is_no_reason(connection: Connection, pool: Pool) -> None:
    """What is old and was not handled stays, whatever the time that handled messages are kept."""
    for number in range(3):
        await publish(connection, "feed.updates.low.a", str(number))
    await take(connection, prioritize_consumer("low"), 1, acknowledge=[0])
    await asyncio.sleep(2.0)
    await publish(connection, "feed.updates.low.a", "young")
    done = await run_retain(connection, pool, Bounds(), EVERYTHING, keep_seconds=1.9)
    assert (done.purged, await contents(connection, UPDATES)) == (1, ["1", "2", "young"])


async def test_a_stream_that_is_half_full_keeps_nothing(connection: Connection, pool: Pool) -> None:
    """Room for what comes is worth more than what was handled."""
    await provision(connection, replicas=1, bytes_max=2 * MIB)
    jetstream = connection.jetstream()
    for _ in range(4):
        await jetstream.publish("feed.updates.high.a", bytes(200 * KIB))
    await take(connection, prioritize_consumer("high"), 4, acknowledge=range(4))
    done = await run_retain(connection, pool, Bounds(), EVERYTHING, keep_seconds=60)
    assert done.purged == 0
    for _ in range(2):
        await jetstream.publish("feed.updates.high.a", bytes(200 * KIB))
    done = await run_retain(connection, pool, Bounds(), EVERYTHING, keep_seconds=60)
    assert done.purged == 4
    await jetstream.publish("feed.dlq.too_large", bytes(800 * KIB))
    done = await run_retain(connection, pool, Bounds(), EVERYTHING)
    assert 0.04 < done.dead_letters_full < 0.06


# What gateways left, and follows.


async def test_what_silent_gateways_left_goes(connection: Connection, pool: Pool) -> None:
    """Rows of gateways that are silent for long, or are not there, go in steps, and no other."""
    await pool.fetch(
        "insert into feed_gateway values ('here', now() - interval '290 seconds'),"
        " ('silent', now() - interval '310 seconds'), ('bare', now() - interval '1 day')"
    )
    await pool.fetch(
        "insert into feed_presence select 'u' || number, gateway, '{}'"
        " from generate_series(1, 7) as number, unnest('{here,silent,gone}'::text[]) as gateway"
    )
    async with pool.connection() as writer, writer.transaction():
        await writer.execute("select from feed_presence where user_id = 'u1' for update")
        done = await run_retain(connection, pool, Bounds(rows_max=3), EVERYTHING)
        assert (done.gateways_deleted, done.presence_deleted) == (2, 12)
    done = await run_retain(connection, pool, Bounds(rows_max=3), EVERYTHING)
    assert (done.gateways_deleted, done.presence_deleted) == (0, 2)
    left = await pool.fetch("select gateway, count(*) from feed_presence group by 1")
    assert list(map(tuple, left)) == [("here", 7)]
    assert [row["gateway"] for row in await pool.fetch("table feed_gateway")] == ["here"]


async def test_follows_that_ended_long_ago_go(connection: Connection, pool: Pool) -> None:
    """An ended follow stays longer than the log remembers what it brought; others for ever."""
    await pool.fetch(
        "insert into feed_follow select 'a', 'u' || days, now() - interval '1 year',"
        " case when days > 0 then now() - make_interval(days => days) end"
        " from generate_series(0, 65) as days"
    )
    done = await run_retain(connection, pool, Bounds(rows_max=2), EVERYTHING)
    assert done.follows_deleted == 6
    left = await pool.fetch("select ended from feed_follow")
    assert len(left) == 60
    assert None in [row["ended"] for row in left]


async def test_revocations_that_are_over_go(connection: Connection, pool: Pool) -> None:
    """In steps; those in force stay."""
    await pool.fetch(
        "insert into feed_revocation select 'token', 't' || number, now(),"
        " now() + make_interval(secs => 1000 * number) from generate_series(-4, 2) as number"
    )
    done = await run_retain(connection, pool, Bounds(rows_max=2), EVERYTHING)
    assert done.revocations_deleted == 5
    left = await pool.fetch("select name from feed_revocation order by name")
    assert [row["name"] for row in left] == ["t1", "t2"]


async def test_markers_that_say_nothing_more_go(connection: Connection, pool: Pool) -> None:
    """Those that are older than any entry; in steps."""
    await pool.fetch(
        "insert into feed_seen select 'alice', 'topic:home', 'd' || days, 'e', 1,"
        " now() - make_interval(days => days) from generate_series(27, 33) as days"
    )
    done = await run_retain(connection, pool, Bounds(rows_max=2), EVERYTHING)
    assert done.seen_deleted == 4
    left = await pool.fetch("select device from feed_seen order by device")
    assert [row["device"] for row in left] == ["d27", "d28", "d29"]


# Pages of a feed source.


async def write_pages(pool: Pool, first: int, last: int, *, size: int = 10) -> None:
    """Pages that end in so many minutes each; those of a negative number have ended."""
    await pool.fetch(
        "insert into feed_page select int4send(number), repeat('x', $3)::bytea, 0,"
        " now() + make_interval(mins => number) from generate_series($1::int, $2::int) as number",
        first,
        last,
        size,
    )


async def pages_left(pool: Pool) -> list[int]:
    rows = await pool.fetch("select key from feed_page")
    return sorted(int.from_bytes(row["key"], signed=True) for row in rows)


async def test_pages_that_ended_go(connection: Connection, pool: Pool) -> None:
    """In steps, skipping what a writer holds; those that have not ended stay."""
    await write_pages(pool, -9, -1)
    await write_pages(pool, 1, 5)
    held = "select from feed_page where key = int4send(-5) for update"
    async with pool.connection() as writer, writer.transaction():
        await writer.execute(held)
        done = await run_retain(connection, pool, Bounds(pages_at_once=3), EVERYTHING)
    assert (done.pages_deleted, done.pages_dropped) == (8, 0)
    assert await pages_left(pool) == [-5, 1, 2, 3, 4, 5]
    done = await run_retain(connection, pool, Bounds(pages_at_once=3), EVERYTHING)
    assert done.pages_deleted == 1


@pytest.mark.parametrize(
    "bounds", [Bounds(pages_max=12), Bounds(page_bytes_max=12_400)], ids=["pages", "bytes"]
)
async def test_of_too_many_pages_those_go_that_end_first(
    connection: Connection, pool: Pool, bounds: Bounds
) -> None:
    """In steps, no more than have to; said apart from those that had ended."""
    await write_pages(pool, -2, -1, size=1_000)
    await write_pages(pool, 1, 30, size=1_000)
    done = await run_retain(connection, pool, replace(bounds, pages_at_once=4), EVERYTHING)
    left = await pages_left(pool)
    assert left == list(range(31 - len(left), 31)), "the last to end stay"
    # By their number exactly; by their bytes it is known after each step how much more has to go.
    assert len(left) == (12 if bounds.pages_max == 12 else 10)
    assert (done.pages_deleted, done.pages_dropped) == (2, 30 - len(left))
    done = await run_retain(connection, pool, bounds, EVERYTHING)
    assert (done.pages_deleted, done.pages_dropped) == (0, 0)


async def test_dropping_pages_stops_when_it_is_to_leave(connection: Connection, pool: Pool) -> None:
    """After the step that runs."""
    await write_pages(pool, 1, 30)
    retain = Retain(connection, pool, Bounds(pages_max=0, pages_at_once=4), keep_seconds=0.0)
    retain.leave()
    done = await retain.run(EVERYTHING)
    assert (done.reason, done.pages_dropped) == ("signal", 4)
    assert await pages_left(pool) == list(range(5, 31))


# One at a time, and who starts it.


async def test_a_second_one_leaves_at_once(stack: Stack, pool: Pool) -> None:
    """While one holds the fleet's lock another does nothing, says so, and that is no error."""
    async with only_one(pool, Bounds()) as first:
        assert first is not None
        refused = await stack.command("worker", "retain", "--once")
    done = await stack.command("worker", "retain", "--once")
    assert (refused.returncode, done.returncode) == (0, 0), refused.stderr + done.stderr
    assert json.loads(refused.stdout)["reason"] == "another retain runs"
    said = json.loads(done.stdout)
    assert (said["reason"], said["collected"]) == ("done", True)


async def test_the_pool_runs_it_when_there_was_work(stack: Stack) -> None:
    """The streams become empty by themselves, and a pool without work leaves it alone."""
    pool = await stack.start_pool(retain_seconds=0.3, stream_keep_seconds=0)
    await stack.publish([update(user=f"u{n}") for n in range(20)])
    await stack.settled()
    connection = await stack.nats()
    await until(lambda: is_empty(connection), seconds=20, what="the streams were purged")
    await until(lambda: quiet(stack), what="no retain runs")
    # A purge lifts ack floors, so one more run may be due.
    await asyncio.sleep(2)
    before = pool.output().count("started retain")
    await asyncio.sleep(2)
    assert pool.output().count("started retain") == before
    assert "ended with" not in pool.output()


def test_when_it_is_due() -> None:
    """Not before its time, at once after work, seldom without, never at 0."""
    upkeep = Upkeep(60, now=0)
    assert not upkeep.due(29)
    assert upkeep.due(61)
    assert upkeep.wanted(61, handled=5)
    assert not upkeep.due(61 + 53)
    assert upkeep.due(61 + 67)
    assert not upkeep.wanted(130, handled=5), "nothing was handled"
    assert upkeep.wanted(200, handled=6)
    assert not upkeep.wanted(200 + RETAIN_IDLE_SECONDS - 1, handled=6)
    assert upkeep.wanted(200 + RETAIN_IDLE_SECONDS, handled=6)
    upkeep.failed()
    assert upkeep.wanted(900, handled=6)
    assert not Upkeep(0, now=0).due(10**9)


# Helpers.


class Client:
    """What holds seqs as a client holds updates: newest of each place, none below the floor."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self._position = self._floor = 0
        self._places: dict[tuple[bytes, int], int] = {}

    @property
    def held(self) -> set[int]:
        return {seq for seq in self._places.values() if seq > self._floor}

    async def follow(self, pool: Pool, until_set: asyncio.Event) -> None:
        while not until_set.is_set():
            await self.catch_up(pool)
            await asyncio.sleep(0.01)

    async def catch_up(self, pool: Pool) -> None:
        more = True
        while more:
            (page,) = await read_pages(pool, [(self.channel, self._position)], entries_max=3)
            for found in page.updates:
                self._places[found.body.partition(b"\0")[0], found.facet] = found.seq
            self._position, self._floor, more = page.end, page.floor, page.more


async def write(log: Log, names: list[str], salt: int, enough: asyncio.Event) -> None:
    """Flushes of a few updates to many channels, until there was enough of it."""
    number = 0
    while not enough.is_set() or number < 20:
        number += 1
        told = [
            change(name, f"p{random.randrange(40)}", kind=kind, timestamp=number, salt=salt)
            for name in random.sample(names, 6)
            for kind in random.choices([0, 1, CONTENT_REMOVAL, ENGAGEMENT_UPDATE], k=3)
        ]
        try:
            await log.persist(*flush_of(told))
        except Unavailable as error:
            pytest.fail(f"a writer was in somebody's way: {error}")
        await asyncio.sleep(0.01)


async def age_some(pool: Pool, enough: asyncio.Event) -> None:
    """Time passes for the first half of each channel, again and again."""
    while not enough.is_set():
        await pool.fetch(
            "update feed_body set persisted_at = now() - interval '2 days' where ref in ("
            " select body.ref from feed_entry entry join feed_channel on id = channel_id"
            " join feed_body body on body.ref = entry.ref"
            " where entry.seq < (feed_channel.seq + floor) / 2 for update of body skip locked)"
        )
        await asyncio.sleep(0.05)


async def model_floors(pool: Pool, bounds: Bounds) -> dict[str, int]:
    """Where each floor has to be, from everything that stands in the channels."""
    found = await pool.fetch(
        "select name, floor, entry.seq, facet, persisted_at < now() - make_interval(secs => $1)"
        " as old from feed_entry entry join feed_body using (ref)"
        " join feed_channel channel on channel.id = channel_id order by name, entry.seq",
        bounds.age_seconds_max,
    )
    rows: dict[str, list[Any]] = defaultdict(list)
    for row in found:
        rows[row["name"]].append(row)
    floors = {}
    for name, (floor, _) in (await stand(pool)).items():
        items = [row["seq"] for row in rows[name] if row["facet"] == 0][::-1]
        by_count = items[bounds.items_max] if len(items) > bounds.items_max else 0
        by_age = 0
        for row in rows[name]:
            if not row["old"]:
                break
            by_age = row["seq"]
        floors[name] = max(floor, by_count, by_age)
    return floors


async def run_retain(
    connection: Connection, pool: Pool, bounds: Bounds, wanted: Plan, *, keep_seconds: float = 0.0
) -> Summary:
    return await Retain(connection, pool, bounds, keep_seconds=keep_seconds).run(wanted)


async def run_until_nothing_is_raised(connection: Connection, pool: Pool, bounds: Bounds) -> None:
    """By age a run takes only some of each channel."""
    for _ in range(50):
        done = await run_retain(connection, pool, bounds, EVERYTHING)
        if not done.floors_raised:
            return
    pytest.fail("floors rise without end")


async def stand(pool: Pool) -> dict[str, tuple[int, set[int]]]:
    """The floor and the seqs of each channel."""
    found = await pool.fetch(
        "select name, floor, array_remove(array_agg(entry.seq), null) as seqs from feed_channel"
        " left join feed_entry entry on channel_id = id group by name, floor"
    )
    return {row["name"]: (row["floor"], set(row["seqs"])) for row in found}


async def insert_bodies(pool: Pool, told: Iterable[Change]) -> None:
    """As a flush does before its transaction."""
    for one in told:
        await pool.fetch(
            "insert into feed_body (ref, update_id, body, published_at, accepted_at)"
            " values ($1, $2, $3, now(), now())",
            *one.body[:3],
        )


async def grow_old(pool: Pool, chosen: list[bytes], *, days: int) -> None:
    await pool.fetch(
        "update feed_body set persisted_at = now() - make_interval(days => $2)"
        " where ref = any($1::bytea[])",
        chosen,
        days,
    )


async def refs(pool: Pool) -> set[bytes]:
    return {row["ref"] for row in await pool.fetch("select ref from feed_body")}


async def publish(connection: Connection, subject: str, text: str) -> None:
    await connection.jetstream().publish(subject, text.encode())


async def take(
    connection: Connection, consumer: Consumer, count: int, acknowledge: Iterable[int] | None = None
) -> list[Msg]:
    """The next messages; all but the last are acknowledged, or those that are named."""
    jetstream = connection.jetstream()
    async with subscribed(jetstream, consumer) as subscription:
        messages: list[Msg] = []
        while len(messages) < count:
            messages += await subscription.fetch(count - len(messages), timeout=5)
    for number in range(count - 1) if acknowledge is None else acknowledge:
        await messages[number].ack_sync()
    return messages


async def look_at_all(connection: Connection) -> None:
    """Read a stream with a consumer that is none of ours, and acknowledge everything."""
    stranger = Consumer(stream=UPDATES, name="stranger", filters=(), ack_wait_seconds=5)
    config = ConsumerConfig(
        durable_name="stranger", ack_policy=AckPolicy.EXPLICIT, filter_subject=subjects.UPDATES_ALL
    )
    await connection.jetstream().add_consumer(UPDATES, config)
    await take(connection, stranger, 7, acknowledge=range(7))


@asynccontextmanager
async def subscribed(jetstream: Any, consumer: Consumer) -> AsyncIterator[Any]:
    subscription = await jetstream.pull_subscribe_bind(consumer.name, consumer.stream)
    try:
        yield subscription
    finally:
        with contextlib.suppress(NatsError):
            await subscription.unsubscribe()


async def contents(connection: Connection, stream: str) -> list[str]:
    """What a stream holds."""
    jetstream = connection.jetstream()
    state = (await jetstream.stream_info(stream)).state
    found = []
    for seq in range(state.first_seq, state.last_seq + 1):
        with contextlib.suppress(NatsError):  # a hole
            data = (await jetstream.get_msg(stream, seq)).data
            found.append((data or b"").decode())
    return found


async def is_empty(connection: Connection) -> bool:
    jetstream = connection.jetstream()
    states = [(await jetstream.stream_info(name)).state for name in (UPDATES, LANE_STREAM)]
    return all(state.messages == 0 for state in states)


def quiet(stack: Stack) -> bool:
    return not stack.worker_pids("retain")
