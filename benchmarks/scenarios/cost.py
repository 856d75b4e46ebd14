"""What livefeed costs against a naive path: the same updates, the same feeds at the end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks import naive
from benchmarks.database_counts import (
    BUSY_STATISTICS_SECONDS,
    STATISTICS_SECONDS,
    Counts,
    counts,
)
from benchmarks.drain import drain
from benchmarks.load import Meter, Outcome, Used
from benchmarks.load_process import LoadProcess
from benchmarks.mix import Mix
from benchmarks.publisher import Burst, Published, publish
from benchmarks.report import Goal, Report, merged
from benchmarks.scenario import SHORT_WINDOWS, Options, Scenario
from benchmarks.spectators import Arrive, ReadAll, Sent, Spectators, spectate
from benchmarks.stack import Stack
from benchmarks.units import RATIO
from livefeed.adapters.embedded import free_port
from livefeed.limits import MIB
from livefeed.topology import LANE_STREAM

NAME: Final = "cost"
CPU_GOAL: Final = Goal("≥", 4)
ARRIVE_SECONDS_MAX: Final = 60.0
LEAD_SECONDS: Final = 3.0
"""From the mix's making, until when its first update is published, about."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is published, for how many."""

    users: int = 5_000
    updates: int = 10_000
    per_second: float = 200.0
    few: int = 5
    """Recipients of half of the items."""
    some: int = 50
    """Of 35 in a hundred."""
    many: int = 500
    """Of 15 in a hundred."""
    statistics_seconds: float = STATISTICS_SECONDS
    """How long the database is given to count what was done."""
    seconds_max: float = 900.0
    """What takes longer to handle all of it fails."""


QUICK: Final = Sizes(
    users=500,
    updates=1_000,
    many=200,
    statistics_seconds=BUSY_STATISTICS_SECONDS,
    seconds_max=120.0,
)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a path used from the first update to the last read."""

    used: Used
    counts: Counts
    sent: Sent
    seconds: float
    published: Published

    @property
    def cpu_seconds(self) -> float:
        return sum(self.used.cpu_seconds.values())

    @property
    def sent_bytes(self) -> int:
        return self.sent.frame_bytes + self.sent.answer_bytes


@dataclass(slots=True)
class _Path:
    """One of the two ways, ready to be loaded."""

    stack: Stack
    port: int
    worker: LoadProcess | None = None
    """The naive path's own; livefeed has a pool."""
    gateway: LoadProcess | None = None

    async def handled(self, updates: int, seconds_max: float) -> None:
        """Wait until all is handled."""
        if self.worker is None:
            await drain(self.stack, seconds_max=seconds_max)
        else:
            self.worker.send(updates)
            await self.worker.receive(timeout_seconds=seconds_max)
            self.stack.check()

    def servers(self) -> dict[str, int]:
        """Its own processes, by the role that each has in livefeed."""
        own = {"workers": self.worker, "gateway": self.gateway}
        return {role: process.pid for role, process in own.items() if process is not None}


async def run(options: Options) -> Report:
    """Have the same mix done by both, one after the other."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    async with _naive() as path:
        simple = await _spend(path, "naive", sizes, options)
    async with _livefeed(options, sizes) as path:
        ours = await _spend(path, "livefeed", sizes, options)
        lane_messages = await path.stack.stored_ever(LANE_STREAM)
    _add_ratios(report, simple, ours)
    for name, spent in (("naive", simple), ("livefeed", ours)):
        _add_figures(report, name, spent)
    report.faults = merged([simple.sent.faults, ours.sent.faults])
    mix = _mix(sizes, options)
    report.add("deliveries", sum(len(event.users) for event in mix.events))
    report.add("updates", sizes.updates)
    report.add("lane_messages", lane_messages)
    return report


def _mix(sizes: Sizes, options: Options) -> Mix:
    began_at = time.time() + LEAD_SECONDS
    audiences = (sizes.few, sizes.some, sizes.many)
    return Mix(options.seed, sizes.users, sizes.updates, sizes.per_second, audiences, began_at)


@asynccontextmanager
async def _naive() -> AsyncIterator[_Path]:
    async with Stack(gateways=0) as stack:
        urls, port = (stack.nats_url, stack.database_url), free_port()
        async with (
            LoadProcess(naive.work, *urls) as worker,
            LoadProcess(naive.serve, *urls, port) as gateway,
        ):
            await worker.receive()
            await gateway.receive()
            yield _Path(stack, port, worker, gateway)


@asynccontextmanager
async def _livefeed(options: Options, sizes: Sizes) -> AsyncIterator[_Path]:
    settings = options.settings(sizes, quick=SHORT_WINDOWS)
    async with Stack(settings=settings) as stack:
        await stack.start_pool()
        yield _Path(stack, stack.gateway_ports[0])


async def _spend(path: _Path, name: str, sizes: Sizes, options: Options) -> Spent:
    """Publish everything, read every feed at the end, and say what that cost."""
    stack, mix, updates = path.stack, _mix(sizes, options), sizes.updates
    spectators = Spectators(mix, path.port, stack.jwt_secret, name == "naive")
    async with (
        LoadProcess(publish, stack.nats_url, mix) as publisher,
        LoadProcess(spectate, spectators) as clients,
    ):
        options.say(f"{name}: connecting {len(mix.connected):,} clients")
        await clients.receive()
        before = await counts(stack, settle_seconds=0)
        loads = {"publisher": publisher.pid, "clients": clients.pid}
        meter = Meter(stack, processes=loads, servers=path.servers())
        began = time.perf_counter()
        options.say(f"{name}: {updates:,} updates")
        publisher.send(Burst(0, updates, sizes.per_second, recorded=False))
        published: Published = await publisher.receive(timeout_seconds=sizes.seconds_max)
        if published.accepted != updates:
            raise ConnectionError(f"only {published.accepted} updates were accepted")
        await path.handled(updates, sizes.seconds_max)
        clients.send(Arrive(ARRIVE_SECONDS_MAX))
        await clients.receive(timeout_seconds=ARRIVE_SECONDS_MAX + 30)
        options.say(f"{name}: reading every feed")
        clients.send(ReadAll())
        sent: Sent = await clients.receive(timeout_seconds=sizes.seconds_max)
        seconds = time.perf_counter() - began
        used = meter.read()
        after = await counts(stack, settle_seconds=sizes.statistics_seconds)
    stack.keep |= any(sent.faults.values())
    return Spent(used, after.since(before), sent, seconds, published)


def _add_ratios(report: Report, simple: Spent, ours: Spent) -> None:
    """The naive path over livefeed."""

    def ratio(of_simple: float, of_ours: float) -> float:
        return round(of_simple / of_ours, 2) if of_ours else 0.0

    report.add("cpu_ratio", ratio(simple.cpu_seconds, ours.cpu_seconds), RATIO, CPU_GOAL)
    transactions = simple.counts.transactions, ours.counts.transactions
    report.add("transactions_ratio", ratio(*transactions), RATIO)
    report.add("bytes_ratio", ratio(simple.sent_bytes, ours.sent_bytes), RATIO)
    report.add("wal_ratio", ratio(simple.counts.wal_bytes, ours.counts.wal_bytes), RATIO)


def _add_figures(report: Report, name: str, spent: Spent) -> None:
    # What the naive path takes is a reference, which nobody is to make better.
    seconds, mib = ("s", "MiB") if name == "livefeed" else (f"s ({name})", f"MiB ({name})")
    report.add(f"cpu_seconds_{name}", round(spent.cpu_seconds, 2), seconds)
    for role, value in spent.used.cpu_seconds.items():
        if value:
            report.add(f"cpu_seconds_{name}_{role}", round(value, 2), seconds)
    for role, value in spent.used.rss_mib.items():
        if value:
            report.add(f"rss_mib_{name}_{role}", value, mib)
    report.add(f"transactions_{name}", spent.counts.transactions)
    report.add(f"wal_mib_{name}", round(spent.counts.wal_bytes / MIB, 2), mib)
    report.add(f"sent_mib_{name}", round(spent.sent_bytes / MIB, 2), mib)
    report.add(f"sent_mib_live_{name}", round(spent.sent.frame_bytes / MIB, 2), mib)
    report.add(f"frames_{name}", spent.sent.frames)
    report.add(f"updates_sent_{name}", spent.sent.updates)
    report.add(f"seconds_{name}", round(spent.seconds, 1), seconds)
    notes = [*Outcome(spent.published).notes(), *spent.used.notes()]
    report.notes += [f"{name}: {note}" for note in notes]


SCENARIO: Final = Scenario(
    NAME, "The same updates by a naive path and by livefeed: CPU, transactions, bytes.", run
)
