"""Feeds are read at a steady rate while what a gateway leans on fails, alone and together.

For each fault: every answer comes in time, what was read before is never an error, what is old is
marked, and who gets nothing is told when to come again; when it is over pages are new again. How
often a server that is away is asked is seen from proxies in front of it. The bounds are those of
docs/operations/faults.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final, NamedTuple, get_args
from urllib.parse import urlsplit, urlunsplit

import pytest

from benchmarks.load_process import LoadProcess
from livefeed.adapters.embedded import PostgresReplica, PostgresServer
from livefeed.errors import OutcomeUnknown, Unavailable
from livefeed.limits import CACHE_FAILURE_SECONDS
from livefeed.load import Input
from tests.proxies import PostgresProxy, RecordingProxy, Wait, most_at_once
from tests.read_load import Answer, Door, ReadLoad, read
from tests.servers import OwnServers, Process, Stack, frozen, update
from tests.shared_levels import SHARED_LEVELS, SharedLevel

ANSWER_SECONDS: Final = 0.5
"""No answer takes longer."""
BUSY_SECONDS: Final = 0.5
"""More, for a gateway that waits for a CPU: the computer has two, and other work."""
FRESH_SECONDS: Final = 0.3
"""How long a page is fresh in memory; five times as long in the shared cache."""
UNMARKED_AGE_MAX: Final = int(FRESH_SECONDS * 6 * 1.1)
"""The oldest that an answer may be that is not marked: fresh there, and then fresh here."""
FAULT_SECONDS: Final = 4.5
SETTLED_SECONDS: Final = 2.0
"""After so long every breaker that has reason to is open."""
FRESH_AGAIN_SECONDS: Final = 5.0
BUSY_COMPUTER_SECONDS: Final = 5.0
"""More for processes that have to start where everything else runs at once."""
TICK_SECONDS: Final = 0.2
READS: Final = "livefeed-gateway"
LOOKS: Final = "livefeed-gateway-lag"
SESSIONS: Final = "livefeed-feed-source"
REFUSED: Final = ""
"""Of whoever is not let in no name is known."""
MOST_AT_ONCE: Final = {
    # Presence is reported, and revocations and the epoch are read, with the connections of reads.
    "primary": {READS: 4, LOOKS: 1, SESSIONS: 1, REFUSED: 5},
    "replica": {READS: 1, LOOKS: 1, SESSIONS: 1, REFUSED: 3},
}
"""Who waits at one time for a server that is away, by what they are."""
ASKED_MAX: Final = 20
"""By all of them together, in the two seconds and a half that are looked at."""

SOURCE: Final = """
    import asyncio, json, os, pathlib, time
    from sqlalchemy import text
    from livefeed.feed_source import SourcePage

    CONTROL = pathlib.Path({control!r})
    CALLS = os.open({calls!r}, os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    async def ranked(request):
        told, number = CONTROL.read_text().splitlines()
        if told.startswith("one ") and request.feed != "sick":
            told = "well"
        began_at, outcome = time.monotonic(), "failed"
        try:
            if told.endswith("hangs"):
                await asyncio.sleep(60)
            if told.endswith("fails"):
                raise RuntimeError("told to fail")
            async with request.sessions() as session:
                await session.execute(text("select 1"))
            outcome = "answered"
        finally:
            call = [request.user_id, request.feed, told, began_at, time.monotonic(), outcome]
            os.write(CALLS, json.dumps(call).encode() + b"\\n")
        return SourcePage([{{"id": f"of-{{request.user_id}}", "n": int(number)}}])
"""
"""A feed source that reads the database; it can be told to hang or to fail, for one feed or all."""

Happening = Callable[["World"], AbstractAsyncContextManager[None]]


class Fault(NamedTuple):
    """Something that happens for a while."""

    happens: Happening
    away: frozenset[str] = frozenset()
    """Who answers nobody meanwhile: `primary`, `replica`, `shared`, `source`."""


class SourceCall(NamedTuple):
    """One call of the feed source."""

    user: str
    feed: str
    told: str
    began_at: float
    ended_at: float
    outcome: str


class Gateway(NamedTuple):
    """One gateway, and what stands between it and the servers."""

    process: Process
    primary: PostgresProxy
    replica: PostgresProxy
    shared: RecordingProxy


class World:
    """A primary, its replica, NATS, a shared cache, two gateways, readers and a publisher."""

    def __init__(self, stack: Stack, servers: OwnServers, shared: SharedLevel) -> None:
        self.stack, self.servers, self.shared = stack, servers, shared
        self.control = stack.directory / "control"
        self.calls = stack.directory / "calls"
        self.gateways: dict[str, Gateway] = {}
        self.number = 0
        """Of the newest update that was accepted, which stands in each page."""
        self._told = "well"
        self._readers: LoadProcess
        self._answers: list[Answer] = []

    async def start(self, exits: AsyncExitStack) -> None:
        """Have everything run, and every feed read once."""
        self.tell("well")
        await self.servers.start_replica()
        await self.stack.start_pool()
        self.stack.plug_in(SOURCE.format(control=str(self.control), calls=str(self.calls)))
        await self._start_gateway("log", exits)
        await self._start_gateway("source", exits, feed_source="feed_plugins:ranked")
        doors = (
            Door("log", self._port("log"), "home", hot=12, cold=60, per_second=90.0),
            Door("ranked", self._port("source"), "ranked", hot=6, cold=20, per_second=35.0),
            Door("sick", self._port("source"), "sick", hot=4, cold=10, per_second=25.0),
        )
        users = {f"{kind}{n}" for kind, most in (("hot", 12), ("cold", 60)) for n in range(most)}
        await self.stack.publish(
            [update(user, content={"id": f"of-{user}", "n": 0}) for user in users]
        )
        await self.publish()
        await self.stack.settled()
        load = ReadLoad(doors, self.stack.settings["jwt_secret"], seed=1)
        self._readers = await exits.enter_async_context(LoadProcess(read, load))
        await self._readers.receive()
        ticking = asyncio.create_task(self._tick(), name="ticks")
        exits.push_async_callback(_cancelled, ticking)

    @property
    def replica(self) -> PostgresReplica:
        """The primary's."""
        assert self.servers.replica is not None
        return self.servers.replica

    def tell(self, told: str) -> None:
        """Tell the source what to do, and what is new."""
        self._told = told
        # Renamed into its place: the source never reads half of it.
        new = self.control.with_suffix(".new")
        new.write_text(f"{told}\n{self.number}")
        new.rename(self.control)

    def source_calls(self) -> list[SourceCall]:
        """What the source was asked."""
        lines = self.calls.read_text().splitlines()
        return [SourceCall(*json.loads(line)) for line in lines]

    async def answers(self) -> list[Answer]:
        """All that came since the beginning."""
        self._readers.send(None)
        self._answers += await self._readers.receive()
        return self._answers

    async def publish(self) -> None:
        """Publish one update to everybody, until it is accepted; the source has it too."""
        one = update(
            audience={"feed": True},
            content={"id": "tick", "n": self.number + 1},
            priority="high",
        )
        while True:
            with contextlib.suppress(OutcomeUnknown, Unavailable):
                await self.stack.publish([one], "high")
                break
            await asyncio.sleep(0.1)
        self.number += 1
        self.tell(self._told)

    async def _tick(self) -> None:
        while True:
            await self.publish()
            await asyncio.sleep(TICK_SECONDS)

    async def _start_gateway(self, name: str, exits: AsyncExitStack, **settings: Any) -> None:
        servers = self.servers
        primary, replica = PostgresProxy(servers.postgres.port), PostgresProxy(self.replica.port)
        shared = self.shared.proxy()
        for proxy in (primary, replica, shared):
            await exits.enter_async_context(proxy)
        process = await self.stack.start_gateway(
            snapshot_fresh_seconds=FRESH_SECONDS,
            database_url=_through(servers.postgres, primary),
            replica_urls=[_through(self.replica, replica)],
            # Never elevated: pages would be fresh for twice as long.
            load_thresholds={name: [None, None] for name in get_args(Input)},
            **self.shared.settings(shared.port),
            **settings,
        )
        self.gateways[name] = Gateway(process, primary, replica, shared)

    def _port(self, gateway: str) -> int:
        port = urlsplit(self.gateways[gateway].process.url).port
        assert port is not None
        return port


# What can happen.


@asynccontextmanager
async def primary_stopped(world: World) -> AsyncIterator[None]:
    await world.servers.postgres.stop()
    yield
    await world.servers.postgres.start()


@asynccontextmanager
async def replica_stopped(world: World) -> AsyncIterator[None]:
    await world.replica.stop()
    yield
    await world.replica.start()


@asynccontextmanager
async def primary_hangs(world: World) -> AsyncIterator[None]:
    with frozen(world.servers.postgres):
        yield


@asynccontextmanager
async def replica_hangs(world: World) -> AsyncIterator[None]:
    with frozen(world.replica):
        yield


@asynccontextmanager
async def nats_stopped(world: World) -> AsyncIterator[None]:
    world.servers.nats.kill()
    yield
    await world.servers.nats.start()


@asynccontextmanager
async def nats_hangs(world: World) -> AsyncIterator[None]:
    os.kill(world.servers.nats.pid, signal.SIGSTOP)
    yield
    os.kill(world.servers.nats.pid, signal.SIGCONT)


@asynccontextmanager
async def shared_stopped(world: World) -> AsyncIterator[None]:
    world.shared.server.kill()
    yield
    await world.shared.server.start()


@asynccontextmanager
async def shared_hangs(world: World) -> AsyncIterator[None]:
    os.kill(world.shared.server.pid, signal.SIGSTOP)
    yield
    os.kill(world.shared.server.pid, signal.SIGCONT)


def shared_full(world: World) -> AbstractAsyncContextManager[None]:
    return world.shared.full()


def source(told: str) -> Happening:
    """The feed source is told something."""

    @asynccontextmanager
    async def happens(world: World) -> AsyncIterator[None]:
        world.tell(told)
        yield
        world.tell("well")

    return happens


def together(*faults: Fault) -> Fault:
    """All of them, begun and ended at the same time."""

    @asynccontextmanager
    async def happen(world: World) -> AsyncIterator[None]:
        each = [fault.happens(world) for fault in faults]
        await asyncio.gather(*(one.__aenter__() for one in each))
        yield
        await asyncio.gather(*(one.__aexit__(None, None, None) for one in each))

    return Fault(happen, frozenset().union(*(fault.away for fault in faults)))


PRIMARY_STOPPED: Final = Fault(primary_stopped, frozenset({"primary"}))
PRIMARY_HANGS: Final = Fault(primary_hangs, frozenset({"primary"}))
REPLICA_STOPPED: Final = Fault(replica_stopped, frozenset({"replica"}))
REPLICA_HANGS: Final = Fault(replica_hangs, frozenset({"replica"}))
SHARED_STOPPED: Final = Fault(shared_stopped, frozenset({"shared"}))
SHARED_HANGS: Final = Fault(shared_hangs, frozenset({"shared"}))
SOURCE_HANGS: Final = Fault(source("hangs"), frozenset({"source"}))
SOURCE_FAILS: Final = Fault(source("fails"), frozenset({"source"}))

STOPPED: Final = [PRIMARY_STOPPED, REPLICA_STOPPED, SHARED_STOPPED, SOURCE_FAILS]
HANGING: Final = [PRIMARY_HANGS, REPLICA_HANGS, SHARED_HANGS, SOURCE_HANGS]

DATABASES: Final[dict[str, Fault]] = {
    "primary stopped": PRIMARY_STOPPED,
    "primary hangs": PRIMARY_HANGS,
    "replica stopped": REPLICA_STOPPED,
    "replica hangs": REPLICA_HANGS,
    "both databases stopped": together(PRIMARY_STOPPED, REPLICA_STOPPED),
    "both databases hang": together(PRIMARY_HANGS, REPLICA_HANGS),
}
CACHE: Final[dict[str, Fault]] = {
    "shared cache stopped": SHARED_STOPPED,
    "shared cache hangs": SHARED_HANGS,
    "shared cache full": Fault(shared_full),
}
SOURCE_ALONE: Final[dict[str, Fault]] = {
    "source fails": SOURCE_FAILS,
    "source hangs": SOURCE_HANGS,
    "source fails for one feed": Fault(source("one fails")),
    "source hangs for one feed": Fault(source("one hangs")),
}
NATS: Final[dict[str, Fault]] = {
    "nats stopped": Fault(nats_stopped),
    "nats hangs": Fault(nats_hangs),
}
"""Where the shared cache is elsewhere."""


@pytest.fixture(params=list(SHARED_LEVELS))
async def world(
    request: pytest.FixtureRequest, own_stack: Stack, own_servers: OwnServers
) -> AsyncIterator[World]:
    async with AsyncExitStack() as exits:
        shared = await exits.enter_async_context(SHARED_LEVELS[request.param](own_servers))
        world = World(own_stack, own_servers, shared)
        await world.start(exits)
        yield world


async def test_reads_under_the_worst_faults(world: World) -> None:
    """Everything away at the same time, and everything hanging, which is worse."""
    for name, fault in everything(world).items():
        await reads_outlive(world, name, fault)


@pytest.mark.slow
@pytest.mark.parametrize("alone", [DATABASES, CACHE, SOURCE_ALONE], ids=["db", "cache", "source"])
async def test_reads_under_each_fault(world: World, alone: dict[str, Fault]) -> None:
    """One after the other."""
    more = nats_alone(world) if alone is CACHE else {}
    for name, fault in {**alone, **more}.items():
        await reads_outlive(world, name, fault)


def nats_alone(world: World) -> dict[str, Fault]:
    """What happens to NATS, where that is not what happens to the shared cache."""
    return {} if world.shared.server is world.servers.nats else NATS


def everything(world: World) -> dict[str, Fault]:
    """All that can be away, at once."""
    nats = nats_alone(world)
    return {
        "everything stopped": together(*STOPPED, *list(nats.values())[:1]),
        "everything hangs": together(*HANGING, *list(nats.values())[1:]),
    }


async def reads_outlive(world: World, name: str, fault: Fault) -> None:
    """Have a fault for a while, and look at what readers and servers saw of it."""
    began_at = time.monotonic()
    async with fault.happens(world):
        there_at = time.monotonic()
        await asyncio.sleep(FAULT_SECONDS)
        ends_at = time.monotonic()
    over_at = time.monotonic()
    fresh_after = await fresh_again(world, over_at)
    seen = [one for one in await world.answers() if began_at <= one.due_at]
    during = [one for one in seen if there_at <= one.due_at < ends_at]
    print(f"{name}: {summary(during)}; new again after {fresh_after:.1f} s")
    check_answers(name, seen)
    check_bites(name, fault, [one for one in during if one.due_at > there_at + SETTLED_SECONDS])
    check_probes(world, name, fault, (there_at + SETTLED_SECONDS, ends_at))
    check_source(world, name, began_at)


async def fresh_again(world: World, over_at: float) -> float:
    """Wait until every hot page has what was published after the end, and is not marked; how long
    after the end that was."""
    wanted = world.number + 1
    left = {(door, f"hot{n}") for door, most in _HOT.items() for n in range(most)}

    async def all_fresh() -> bool:
        fresh = {
            (one.door, one.user)
            for one in await world.answers()
            if one.number >= wanted and not one.stale and one.due_at >= over_at
        }
        left.intersection_update(left - fresh)
        return not left

    limit = FRESH_AGAIN_SECONDS + BUSY_COMPUTER_SECONDS
    while not await all_fresh() and time.monotonic() < over_at + limit:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    last = [one for one in await world.answers() if (one.door, one.user) in left][-3:]
    assert not left, f"not new within {limit:g} s, {wanted} is wanted: {last}"
    return time.monotonic() - over_at


_HOT: Final = {"log": 12, "ranked": 6, "sick": 4}


def check_answers(name: str, seen: list[Answer]) -> None:
    """In time; no error for what was read before; what is old is marked; nobody else's."""
    assert not [one for one in seen if one.took - one.late > ANSWER_SECONDS + BUSY_SECONDS], name
    assert not [one for one in seen if one.kind != "stranger" and one.status != 200], name
    refused = [one for one in seen if one.status != 200]
    assert not [one for one in refused if one.status != 503 or one.retry_after < 1], name
    unmarked = [one for one in seen if one.status == 200 and not one.stale]
    assert max((one.age for one in unmarked), default=0) <= UNMARKED_AGE_MAX, name
    assert not [one for one in seen if one.foreign], name


def check_bites(name: str, fault: Fault, seen: list[Answer]) -> None:
    """It was one: whose pages cannot be made is told that they are old, or that there is none."""
    if {"primary", "replica"} <= fault.away:
        doors = {"log", "ranked", "sick"}
    else:
        doors = {"ranked", "sick"} if "source" in fault.away else set()
    old = [one for one in seen if one.door in doors]
    assert all(one.stale or one.status == 503 for one in old), name
    assert bool(old) == bool(doors), name


def check_probes(world: World, name: str, fault: Fault, window: tuple[float, float]) -> None:
    """While somebody is away one caller waits for it at a time, however many read.

    Of the same gateway: each has its own breakers.
    """
    for gateway in world.gateways.values():
        for server in fault.away & {"primary", "replica"}:
            proxy: PostgresProxy = getattr(gateway, server)
            waits = [one for one in proxy.waits if one.began_at >= window[0]]
            for who, most in MOST_AT_ONCE[server].items():
                mine = [one for one in waits if one.who == who]
                assert most_at_once(mine, *window) <= most, (name, server, who)
            assert len([one for one in waits if one.began_at < window[1]]) <= ASKED_MAX, name
        if "shared" in fault.away:
            assert most_at_once(gateway.shared.waits, *window) <= 1, name
    if "source" in fault.away:
        calls = [Wait("", one.began_at, one.ended_at) for one in world.source_calls()]
        assert most_at_once([one for one in calls if one.began_at > window[0]], *window) <= 1, name


def check_source(world: World, name: str, since: float) -> None:
    """What fails is asked once a second for each page."""
    failed: dict[tuple[str, str], float] = {}
    for call in sorted(world.source_calls(), key=lambda call: call.began_at):
        if call.began_at < since:
            continue
        place = (call.user, call.feed)
        before = failed.pop(place, -math.inf)
        assert call.began_at - before >= CACHE_FAILURE_SECONDS, (name, call)
        if call.outcome == "failed":
            # Not its end: one that was given up may end much later.
            failed[place] = call.began_at


def summary(seen: list[Answer]) -> str:
    """A line for people."""
    slowest = max((one.took - one.late for one in seen), default=0.0)
    kinds = Counter(
        f"{one.door} {one.level or one.status}{' stale' if one.stale else ''}" for one in seen
    )
    return f"{len(seen)} answers, slowest {slowest * 1e3:.0f} ms, {dict(sorted(kinds.items()))}"


def _through(server: PostgresServer | PostgresReplica, proxy: RecordingProxy) -> str:
    url = urlsplit(server.url)
    netloc = f"{url.netloc.rpartition(':')[0]}:{proxy.port}"
    return urlunsplit(url._replace(netloc=netloc, query="sslmode=disable"))


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
