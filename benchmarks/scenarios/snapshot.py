"""How soon a feed is answered over HTTP, from a cache and from the log, and with the log away."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from benchmarks.comparison import compare, compare_answers
from benchmarks.corpus import Corpus, recent_past
from benchmarks.database_counts import (
    BUSY_STATISTICS_SECONDS,
    STATISTICS_SECONDS,
    Counts,
    counts,
)
from benchmarks.drain import drain
from benchmarks.flood import Flood, Trickle, flood
from benchmarks.load import Meter
from benchmarks.load_process import LoadProcess
from benchmarks.measure import LatencyRecorder
from benchmarks.readers import Read, Readers, ReadResult, Sample, Source, read
from benchmarks.reference import Reference
from benchmarks.report import Goal, Report
from benchmarks.scenario import SHORT_WINDOWS, Options, Scenario
from benchmarks.stack import Stack
from benchmarks.units import A_READ, SHARE
from livefeed.limits import MIB

NAME: Final = "snapshot"
CACHED_GOAL: Final = Goal("≤", 10)
UNCACHED_GOAL: Final = Goal("≤", 50)
DEGRADED_GOAL: Final = Goal("≤", 500)
ERRORS_GOAL: Final = Goal("=", 0)
QUERIES_GOAL: Final = Goal("≤", 0.1)
HITS: Final[tuple[Source, ...]] = ("memory", "shared", "hit")
MISSES: Final[tuple[Source, ...]] = ("miss", "unsaid")
FILL_SECONDS_MAX: Final = 300.0
LATE_SECONDS_MAX: Final = 0.05
"""A reader later than this was itself what was slow."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Who reads what, how often, and what is written meanwhile."""

    users: int = 10_000
    hot_percent: int = 20
    hot_reads_percent: int = 80
    items: int = 12
    """Of each user, some of which are removed."""
    fill: int = 100_000
    """Updates that are in the log before the first read."""
    updates_per_second: float = 20.0
    """Of random users, all the time."""
    reads_per_second: float = 2_000.0
    warm_up_seconds: float = 10.0
    seconds: float = 30.0
    quiet_seconds: float = 10.0
    """Without a read, to know what the updates alone ask of the database."""
    degraded_seconds: float = 10.0
    statistics_seconds: float = STATISTICS_SECONDS
    """How long the database is given to count what was done."""
    readers: int = 2
    """Processes."""
    connections: int = 50
    """Of each of them."""
    samples: int = 1_000
    """Answers of each period and process that are compared with the log."""


QUICK: Final = Sizes(
    users=500,
    fill=5_000,
    reads_per_second=100.0,
    warm_up_seconds=3.0,
    seconds=5.0,
    quiet_seconds=3.0,
    degraded_seconds=3.0,
    statistics_seconds=BUSY_STATISTICS_SECONDS,
    readers=1,
    connections=20,
)


@dataclass(slots=True)
class _Run:
    """What all phases share."""

    stack: Stack
    sizes: Sizes
    options: Options
    report: Report
    corpus: Corpus
    readers: list[LoadProcess] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    async def read(self, seconds: float) -> ReadResult:
        """Have all readers read for so long."""
        share = self.sizes.reads_per_second / len(self.readers)
        for process in self.readers:
            process.send(Read(share, seconds, self.sizes.samples))
        result = ReadResult()
        for process in self.readers:
            result.merge(await process.receive(timeout_seconds=seconds + 60))
        self.samples += result.samples
        return result

    async def counts(self) -> Counts:
        """What the databases have counted until now."""
        return await counts(self.stack, settle_seconds=self.sizes.statistics_seconds)


async def run(options: Options) -> Report:
    """Fill the log, read from it while it is written, take it away, and compare the answers."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    corpus = Corpus(options.seed, sizes.users, sizes.items, 1, recent_past(), NAME)
    options.say("starting the servers")
    async with AsyncExitStack() as exits:
        settings = options.settings(sizes, quick=SHORT_WINDOWS)
        stack = Stack(replica=True, settings=settings)
        await exits.enter_async_context(stack)
        this = _Run(stack, sizes, options, report, corpus)
        publisher = LoadProcess(flood, stack.nats_url, corpus)
        await exits.enter_async_context(publisher)
        await _fill(this, publisher)
        for number in range(sizes.readers):
            readers = _readers(this, number)
            this.readers.append(await exits.enter_async_context(LoadProcess(read, readers)))
        for process in this.readers:
            await process.receive()
        publisher.send(Trickle(sizes.fill, sizes.updates_per_second))
        await _measure(this, publisher)
        await _without_database(this)
        publisher.send(None)
        published: int = await publisher.receive()
        await _verify(this, published)
    return report


def _readers(this: _Run, number: int) -> Readers:
    stack, sizes = this.stack, this.sizes
    return Readers(
        corpus=this.corpus,
        port=stack.gateway_ports[0],
        jwt_secret=stack.jwt_secret,
        seed=this.options.seed * sizes.readers + number,
        connections=sizes.connections,
        hot_percent=sizes.hot_percent,
        hot_reads_percent=sizes.hot_reads_percent,
    )


async def _fill(this: _Run, publisher: LoadProcess) -> None:
    """Have something in every feed before it is read."""
    this.options.say(f"filling the feeds with {this.sizes.fill:,} updates")
    publisher.send(Flood(0, this.sizes.fill))
    await publisher.receive(timeout_seconds=FILL_SECONDS_MAX)
    await this.stack.start_pool()
    await drain(this.stack, seconds_max=FILL_SECONDS_MAX)


async def _measure(this: _Run, publisher: LoadProcess) -> None:
    """The period that most figures are of, and one without reads before it, after a warm-up."""
    sizes, report = this.sizes, this.report
    this.options.say(f"warming up with {sizes.reads_per_second:,.0f} reads a second")
    warm = await this.read(sizes.warm_up_seconds)
    this.options.say("updates alone")
    quiet_before = await this.counts()
    await asyncio.sleep(sizes.quiet_seconds)
    before = await this.counts()
    quiet = before.since(quiet_before).transactions
    quiet_rate = quiet / (sizes.quiet_seconds + sizes.statistics_seconds)
    this.options.say(f"{sizes.reads_per_second:,.0f} reads a second")
    pids = {f"readers_{number}": one.pid for number, one in enumerate(this.readers, 1)}
    meter = Meter(this.stack, processes={"publisher": publisher.pid, **pids})
    loop = asyncio.get_running_loop()
    began = loop.time()
    result = await this.read(sizes.seconds)
    used = meter.read()
    asked = (await this.counts()).since(before).transactions
    beside = quiet_rate * (loop.time() - began)
    this.stack.check()
    _add_latencies(report, result)
    _add_queries(report, result, asked, beside)
    used.add_to(report)
    report.notes += _notes(result, warm)


def _add_latencies(report: Report, result: ReadResult) -> None:
    """How soon answers came, by where they came from."""
    for name, sources, goal in (
        ("cached", HITS, CACHED_GOAL),
        ("uncached", MISSES, UNCACHED_GOAL),
    ):
        latency = LatencyRecorder()
        for source in sources:
            latency.merge(result.latencies.get(source, LatencyRecorder()))
        if latency.count:
            report.add(f"{name}_p50_ms", round(latency.percentile(50) * 1e3, 2), "ms")
            report.add(f"{name}_p99_ms", round(latency.percentile(99) * 1e3, 2), "ms", goal)
    answered = max(1, result.answered)
    for source in HITS:
        if source in result.latencies or source != "hit":
            latency = result.latencies.get(source, LatencyRecorder())
            report.add(f"hit_share_{source}", round(latency.count / answered, 4), SHARE)
    hits = sum(one.count for source, one in result.latencies.items() if source in HITS)
    report.add("hit_share", round(hits / answered, 4), SHARE)
    report.add("reads_answered", result.answered)
    report.add("reads_failed", result.errors)
    report.add("sent_mib", round(result.size / MIB, 2), "MiB (sent)")


def _add_queries(report: Report, result: ReadResult, asked: int, beside: float) -> None:
    """What reads ask of both databases; without what the updates ask."""
    answered = max(1, result.answered)
    queries = max(0.0, asked - beside) / answered
    report.add("queries_per_read", round(queries, 4), A_READ, QUERIES_GOAL)
    report.add("transactions_per_read", round(asked / answered, 4), A_READ)


def _notes(result: ReadResult, warm: ReadResult) -> list[str]:
    """What a reader of the figures has to know of the answers."""
    notes: list[str] = []
    if set(result.latencies) | set(warm.latencies) == {"unsaid"}:
        notes.append(
            "no answer has a Cache-Status: this gateway has no cache, so all count as uncached"
        )
    elif not any(source in MISSES for source in result.latencies):
        notes.append("every answer came from a cache, so there is no uncached_p99_ms")
    if result.errors:
        notes.append(f"{result.errors:,} reads failed: {_named(result.statuses)}")
    if result.late.maximum > LATE_SECONDS_MAX:
        notes.append(
            f"the readers fell behind their schedule by up to {result.late.maximum:.2f} s; "
            "latencies count from the schedule"
        )
    return notes


def _named(statuses: dict[int, int]) -> str:
    parts = (
        f"{number:,} {f'with {status}' if status else 'without an answer'}"
        for status, number in sorted(statuses.items())
    )
    return ", ".join(parts)


async def _without_database(this: _Run) -> None:
    """Read while neither the primary nor its replica is there."""
    this.options.say("stopping the primary and its replica")
    await this.stack.stop_databases()
    this.options.say("reading without a database")
    result = await this.read(this.sizes.degraded_seconds)
    report = this.report
    report.add("degraded_max_ms", round(result.slowest * 1e3, 1), "ms", DEGRADED_GOAL)
    report.add("degraded_error_share", round(result.known.share, 4), SHARE, ERRORS_GOAL)
    report.add("degraded_error_share_unread", round(result.unknown.share, 4), SHARE)
    report.add("degraded_reads", result.answered + result.errors)
    report.add("degraded_stale", result.stale)
    if result.errors:
        text = f"without a database {result.errors:,} reads failed: {_named(result.statuses)}"
        report.notes.append(text)
    this.options.say("starting them again")
    await this.stack.start_databases()


async def _verify(this: _Run, published: int) -> None:
    """Compare the log with the model, and the answers that were kept with the log."""
    stack, report = this.stack, this.report
    this.options.say("waiting until every update is in the log")
    await drain(stack, seconds_max=FILL_SECONDS_MAX)
    this.options.say("reading once more")
    await this.read(1.0)
    this.options.say("comparing the log with the model, and the answers with the log")
    await compare(stack, Reference(this.corpus, range(published)), report)
    await compare_answers(stack, this.corpus, this.samples, report)
    report.add("published", published)
    stack.keep |= any(report.faults.values())


SCENARIO: Final = Scenario(
    NAME, "Feeds over HTTP: from a cache, from the log, and while the database is away.", run
)
