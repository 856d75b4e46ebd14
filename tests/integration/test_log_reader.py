"""Which server a read of the log asks, with a real primary and two real replicas.

Whatever is wrong with the replicas, a read has what the primary had when it began, within a bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from gateway.log_reader import LogReader
from gateway.replicas import Replica, Replicas
from livefeed.adapters.embedded import PostgresReplica, PostgresServer
from livefeed.adapters.postgres.gauge import Gauge
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.reads import read_heads
from livefeed.errors import Unavailable
from livefeed.limits import REPLICA_LAG_SECONDS_MAX, REPLICA_LOOK_SECONDS, REPLICA_SECONDS_MAX
from livefeed.replica_choice import STALE_READS_MAX, Lag, server_name
from tests.conftest import admin, database_url, replayed
from tests.servers import frozen, running_replica, server_port, until

CHANNEL: Final = "topic:home"
PLACES: Final = [("user:alice/home", 0), (CHANNEL, 0)]
ROWS_READ: Final = 5
WRITE: Final = """
with channel as (
    insert into feed_channel (name, seq) values ($1, 1)
    on conflict (name) do update set seq = feed_channel.seq + 1 returning id, seq
), body as (
    insert into feed_body (ref, update_id, body, published_at, accepted_at)
    select int8send(seq), seq::text, convert_to(seq::text, 'UTF8'), now(), now() from channel
)
insert into feed_entry (channel_id, item, facet, seq, explicit, version, ref, kind, born)
select id, seq, 0, seq, 0, seq, int8send(seq), 0, 0 from channel returning seq
"""
"""The next entry of a channel, with its body."""
PATIENCE_SECONDS: Final = 60.0
"""How long the pools would wait for a server that hangs."""
BUSY_COMPUTER_SECONDS: Final = 0.5
"""What a read may take beside its bound where the computer has other work."""
BACK_SECONDS_MAX: Final = 5.0
"""How soon a replica that came back is used again."""
SEEN_SECONDS_MAX: Final = REPLICA_LAG_SECONDS_MAX + 4 * REPLICA_LOOK_SECONDS
"""How soon a replica that falls behind is known to be."""


def pool_of(url: str, name: str) -> Pool:
    return Pool(
        url,
        dependency=name,
        connections_max=4,
        timeout_seconds=PATIENCE_SECONDS,
        wait_seconds=PATIENCE_SECONDS,
        application="tests",
    )


def gauge_of(url: str, name: str) -> Gauge:
    seconds = REPLICA_LOOK_SECONDS
    return Gauge(url, dependency=name, seconds_max=seconds, application="tests")


class Servers:
    """A primary and two replicas, a reader of them, and a writer that never stops to count."""

    def __init__(self, primary: PostgresServer, replicas: list[PostgresReplica], url: str) -> None:
        self.primary, self.replicas = primary, replicas
        name = url.rpartition("/")[2]
        self.each = []
        for server in replicas:
            address = database_url(server, name)
            known_as = server_name(address)
            replica = Replica(known_as, pool_of(address, known_as), gauge_of(address, known_as))
            self.each.append(replica)
        self._gauge = gauge_of(url, "primary")
        self.pool = pool_of(url, "primary")
        self.writer = pool_of(url, "writer")
        self.reader = LogReader(self.pool, Replicas(self._gauge, self.each))
        self.slowest = 0.0
        self.watch()

    def watch(self) -> None:
        """Have the reader look at the replicas."""
        self._looking = asyncio.create_task(self.reader.run(), name="looking")

    async def unwatch(self) -> None:
        """Have it look no more."""
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def unwatched(self) -> AsyncIterator[None]:
        """For a while nobody looks: what was known last is that both are near."""
        await self.unwatch()
        for one in self.each:
            one.lag, one.stale_reads = Lag(0.0, 0), 0
        yield
        self.watch()

    async def write(self) -> int:
        """Write one more into the channel; its seq, which is the head."""
        (row,) = await self.writer.fetch(WRITE, CHANNEL)
        return int(row["seq"])

    async def read(self) -> str:
        """Read once: it has what was written, within the bound. Who has answered all of it."""
        written = await self.write()
        return await self.read_again(written)

    async def read_again(self, written: int) -> str:
        """The same without a write."""
        reader, began_at = self.reader, time.monotonic()
        by_replica = reader.replica_pages
        start = max(0, written - ROWS_READ)
        pages = await reader.pages([PLACES[0], (CHANNEL, start)])
        took = time.monotonic() - began_at
        self.slowest = max(self.slowest, took)
        assert took < REPLICA_SECONDS_MAX + BUSY_COMPUTER_SECONDS
        assert [page.channel for page in pages] == [channel for channel, _ in PLACES]
        assert pages[1].head >= written, "a page is never behind the target"
        seqs = [one.seq for one in pages[1].updates]
        assert seqs == list(range(start + 1, pages[1].head + 1)), "no row is lost"
        return "replica" if reader.replica_pages - by_replica == len(PLACES) else "primary"

    async def reads(self, times: int) -> list[str]:
        """Read some times, one after the other, with a write before each."""
        return [await self.read() for _ in range(times)]

    async def by(self, *numbers: int) -> bool:
        """Whether reads of what all have are answered by all of these replicas, and no others."""
        written = await self.write()
        await asyncio.sleep(0.02)
        before = [one.pool_reads for one in self._counted()]
        for _ in range(12):
            if await self.read_again(written) != "replica":
                return False
        more = [one.pool_reads - b for one, b in zip(self._counted(), before, strict=True)]
        return {number for number, count in enumerate(more) if count} == set(numbers)

    def _counted(self) -> list[Any]:
        return [one.pool for one in self.each]

    async def close(self) -> None:
        self._gauge.close()
        for one in self.each:
            one.gauge.close()
        for pool in (self.pool, self.writer, *(one.pool for one in self.each)):
            await pool.close()


def count_reads(pool: Any) -> None:
    """Have a pool count what it is asked for."""
    fetch, pool.pool_reads = pool.fetch, 0

    async def counted(*given: Any) -> Any:
        pool.pool_reads += 1
        return await fetch(*given)

    pool.fetch = counted


@pytest.fixture(scope="module")
def second_replica(
    session_postgres: PostgresServer, session_directory: Path
) -> Iterator[PostgresReplica]:
    """One more replica of the shared primary."""
    with running_replica(session_postgres, session_directory / "replica-2") as server:
        yield server


@pytest.fixture
async def servers(
    database: str,
    session_postgres: PostgresServer,
    session_replica: PostgresReplica,
    second_replica: PostgresReplica,
) -> AsyncIterator[Servers]:
    """Both replicas near, and the reader looks at them."""
    replicas = [session_replica, second_replica]
    for server in replicas:
        await server.start()
        await replayed(session_postgres, server)
    servers = Servers(session_postgres, replicas, database)
    for one in servers.each:
        count_reads(one.pool)
    try:
        await until(lambda: servers.by(0, 1), what="both replicas are read")
        yield servers
    finally:
        await servers.unwatch()
        await servers.close()
        for server in replicas:
            await server.start()


@contextlib.asynccontextmanager
async def paused(server: PostgresReplica) -> AsyncIterator[None]:
    """A replica that receives and does not replay."""
    async with admin(server) as connection:
        await connection.execute("select pg_wal_replay_pause()")
        try:
            yield
        finally:
            await connection.execute("select pg_wal_replay_resume()")


async def both_are_back(servers: Servers) -> None:
    began_at = time.monotonic()
    seconds = BACK_SECONDS_MAX
    await until(lambda: servers.by(0, 1), seconds=seconds, what="both replicas are read again")
    print(f"back after {time.monotonic() - began_at:.2f} s, slowest read {servers.slowest:.3f} s")


async def test_a_paused_replica_is_left_to_the_other_one(servers: Servers) -> None:
    """What it lacks is read elsewhere; when its lag is known it is not asked at all."""
    async with paused(servers.replicas[0]):
        await servers.reads(20)
        primary_pages = servers.reader.primary_pages

        async def far() -> bool:
            await servers.read()
            lag = servers.each[0].lag
            return lag is not None and lag.seconds > REPLICA_LAG_SECONDS_MAX

        await until(far, seconds=SEEN_SECONDS_MAX, what="its lag is known")
        assert await servers.by(1)
        said = servers.reader.described()[0]
        assert said["lag_bytes"] > 0
        assert said["breaker"] == "closed", "it is behind, not away"
    await both_are_back(servers)
    assert servers.reader.primary_pages >= primary_pages


async def test_two_paused_replicas_leave_all_to_the_primary(servers: Servers) -> None:
    """Their stale pages are never shown; what has not changed they may still answer."""
    async with paused(servers.replicas[0]), paused(servers.replicas[1]):
        assert set(await servers.reads(40)) == {"primary"}
        asked = sum(one.pool_reads for one in servers._counted())
        began_at = time.monotonic()
        for _ in range(100):
            (page,) = await servers.reader.pages(PLACES[1:])
        assert page.head == await servers.write() - 1
        looks = (time.monotonic() - began_at) / REPLICA_LOOK_SECONDS + 2
        wasted = sum(one.pool_reads for one in servers._counted()) - asked
        assert wasted <= 2 * STALE_READS_MAX * looks, "a few reads after each look, of each"
    await both_are_back(servers)


async def test_a_stopped_replica_and_both(servers: Servers) -> None:
    """The other one answers, then the primary; each is used again when it is back."""
    written = await servers.write()
    await replayed(servers.primary, servers.replicas[1])
    await servers.replicas[0].stop()
    # Before anybody knows: it is asked, and what it does not answer the other one does.
    async with servers.unwatched():
        assert [await servers.read_again(written) for _ in range(12)] == ["replica"] * 12
    await servers.reads(20)
    await until(lambda: servers.by(1), seconds=5, what="the other one is read")
    await servers.replicas[1].stop()
    assert set(await servers.reads(20)) == {"primary"}
    await until(
        lambda: all(one.looks.state == "open" for one in servers.each),
        seconds=3 * REPLICA_LOOK_SECONDS + BACK_SECONDS_MAX,
        what="both are known to be away",
    )
    assert [one["breaker"] for one in servers.reader.described()] == ["open", "open"]
    assert set(await servers.reads(20)) == {"primary"}
    for server in servers.replicas:
        await server.start()
        await replayed(servers.primary, server)
    await both_are_back(servers)


async def test_a_replica_that_hangs_costs_a_bound(servers: Servers) -> None:
    """While it hangs every read is right and in time, most of them at once; then it is back."""
    with frozen(servers.replicas[0]):
        began_at = time.monotonic()
        slow = 0
        while time.monotonic() - began_at < 6.0:
            before = time.monotonic()
            await servers.read()
            slow += time.monotonic() - before > REPLICA_SECONDS_MAX / 4
            await asyncio.sleep(0.02)
        assert slow <= 8, "it is left alone after some tries"
        # In time for what came in at once too: none waits for another's try.
        await asyncio.gather(*(servers.read() for _ in range(30)))
    await both_are_back(servers)


async def test_all_replicas_that_hang_leave_the_primary(servers: Servers) -> None:
    """Both together cost no more than one."""
    with frozen(servers.replicas[0]), frozen(servers.replicas[1]):
        await asyncio.gather(*(servers.read() for _ in range(10)))
        assert set(await servers.reads(20)) == {"primary"}
    await both_are_back(servers)


async def test_a_replica_that_receives_nothing_is_seen(servers: Servers) -> None:
    """It has replayed all that it received, and says of itself that it lacks nothing."""
    host = f"port={servers.primary.port}"
    async with admin(servers.replicas[0]) as connection:
        whole = await connection.fetchval("show primary_conninfo")
        assert host in whole
        await alter(connection, whole.replace(host, f"port={server_port()}"))
        try:
            await until(
                lambda: connection.fetchval("select not exists (select from pg_stat_wal_receiver)"),
                what="it is cut off",
            )

            async def far() -> bool:
                await servers.read()
                return (servers.each[0].lag or (0.0, 0))[0] > REPLICA_LAG_SECONDS_MAX

            await until(far, seconds=SEEN_SECONDS_MAX, what="its lag is known")
            own = "select pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()"
            assert await connection.fetchval(own)
            assert await servers.by(1)
        finally:
            await connection.execute("alter system reset primary_conninfo")
            await connection.execute("select pg_reload_conf()")
        await replayed(servers.primary, servers.replicas[0])
    await both_are_back(servers)


async def alter(connection: asyncpg.Connection, conninfo: str) -> None:
    """Have a replica stream from elsewhere."""
    await connection.execute(f"alter system set primary_conninfo = '{conninfo}'")
    await connection.execute("select pg_reload_conf()")


async def test_half_open_lets_one_read_through(servers: Servers) -> None:
    """Of thirty that begin at once; the others are answered elsewhere meanwhile."""
    replica = servers.each[0]
    for _ in range(3):
        replica.reads.failed(time.monotonic(), jitter=0.0)
    await servers.by(1)
    await asyncio.sleep(max(0.0, replica.reads.retry_at() - time.monotonic()))
    written, answer = await servers.write(), asyncio.Event()
    fetch, probes = replica.pool.fetch, []

    async def slow(*given: Any) -> Any:
        probes.append(given)
        await answer.wait()
        return await fetch(*given)

    replica.pool.fetch = slow  # type: ignore[method-assign]
    reads = [asyncio.create_task(servers.read_again(written)) for _ in range(30)]
    await until(lambda: sum(read.done() for read in reads) == 29, what="all but the probe")
    assert (len(probes), servers.reader.described()[0]["breaker"]) == (1, "half_open")
    answer.set()
    await asyncio.gather(*reads)
    assert servers.reader.described()[0]["breaker"] == "closed"


async def test_reads_without_a_target_need_no_primary(servers: Servers) -> None:
    """Replicas answer while the primary hangs; all of them hanging is said in time; then back."""

    async def head(pool: Pool) -> int:
        return (await read_heads(pool, [CHANNEL])).heads[CHANNEL]

    written = await servers.write()
    for server in servers.replicas:
        await replayed(servers.primary, server)
    before = sum(one.pool_reads for one in servers._counted())
    with frozen(servers.primary):
        began_at = time.monotonic()
        # For longer than a replica may be behind: it does not fall behind a primary that is away.
        while time.monotonic() - began_at < 2 * REPLICA_LAG_SECONDS_MAX:
            assert await servers.reader.read_anywhere(head, deadline_seconds=0.5) == written
            await asyncio.sleep(0.05)
        assert servers.reader.failing is False
        assert all(one["lag_seconds"] <= 1.0 for one in servers.reader.described())
        with frozen(servers.replicas[0]):
            for _ in range(10):
                assert await servers.reader.read_anywhere(head, deadline_seconds=0.9) == written
            with frozen(servers.replicas[1]):
                for _ in range(6):
                    began_at = time.monotonic()
                    with pytest.raises(Unavailable):
                        await servers.reader.read_anywhere(head, deadline_seconds=0.5)
                    assert time.monotonic() - began_at < 0.5 + BUSY_COMPUTER_SECONDS
    assert sum(one.pool_reads for one in servers._counted()) > before

    async def answers() -> bool:
        with contextlib.suppress(Unavailable):
            return await servers.reader.read_anywhere(head, deadline_seconds=0.5) == written
        return False

    await until(answers, seconds=BACK_SECONDS_MAX, what="somebody answers again")
    await both_are_back(servers)


async def test_without_replicas_the_primary_answers_anything(servers: Servers) -> None:
    """And what a read raises beside a server that is away is raised, and held against nobody."""
    reader = LogReader(servers.pool, Replicas())
    pages = await reader.pages(PLACES)
    assert pages[0].head == 0
    assert await reader.read_anywhere(_nothing, deadline_seconds=0.5) == "nothing"
    for _ in range(5):
        with pytest.raises(ValueError, match="of its own"):
            await reader.read_anywhere(_fault, deadline_seconds=0.5)
    assert await reader.read_anywhere(_nothing, deadline_seconds=0.5) == "nothing"
    assert reader.described() == []


async def _nothing(_pool: Pool) -> str:
    return "nothing"


async def _fault(_pool: Pool) -> str:
    raise ValueError("a fault of its own")
