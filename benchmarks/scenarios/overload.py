"""Whether the high lane notices that the low one has far more to do than can be done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from benchmarks.charts import latency_chart
from benchmarks.comparison import compare
from benchmarks.corpus import PAST_SECONDS, Corpus
from benchmarks.drain import drain
from benchmarks.flood import Pour, flood
from benchmarks.load import Load, Meter, Outcome
from benchmarks.load_process import LoadProcess
from benchmarks.reference import Reference
from benchmarks.report import Goal, Report, merged
from benchmarks.scenario import SHORT_WINDOWS, Options, Scenario
from benchmarks.stack import Stack
from benchmarks.traffic import Traffic
from benchmarks.units import PER_SECOND, RATIO
from livefeed.adapters.nats.connection import Connection, close
from livefeed.adapters.nats.lag import consumer_lag
from livefeed.subjects import Lane
from livefeed.topology import UPDATES, prioritize_consumer

NAME: Final = "overload"
RATIO_GOAL: Final = Goal("≤", 2)
LOW: Final[Lane] = "low"
LOOK_SECONDS: Final = 0.5
FULL_SHARE: Final = 0.9
"""While the workers take some the bound itself is seldom seen."""
WAITING_GOAL: Final = Goal("≥", 1)
"""With less the low lane was not saturated, and nothing was measured."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is published in the high lane, and how much waits in the low one."""

    connections: int = 200
    per_second: int = 20
    seconds: float = 60.0
    """Of each of the two measurements."""
    warm_up_seconds: float = 5.0
    waiting: int = 300_000
    """Low updates that wait all the time."""
    low_users: int = 20_000
    low_items: int = 30
    processes: int = 1
    """Workers of each function at most."""
    fill_seconds_max: float = 120.0
    soak_seconds: float = 20.0
    """From a full backlog to the measurement: a window of the low lane, so that it flushes too."""
    seconds_max: float = 900.0
    """What waits at the end has to be worked off within this."""


QUICK: Final = Sizes(
    connections=50,
    seconds=8.0,
    warm_up_seconds=2.0,
    waiting=10_000,
    low_users=2_000,
    soak_seconds=SHORT_WINDOWS["window_low_seconds"],
)


class _Looked(NamedTuple):
    """The low lane at one moment."""

    published: int
    """Updates that the stream has taken until now, high ones too."""
    waiting: int
    """Low updates that nobody has taken yet, or that are being handled."""
    seconds: float


async def run(options: Options) -> Report:
    """Measure the high lane alone, then while low updates come as fast as they can be published."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    high = Traffic(seed=options.seed, users=sizes.connections)
    began_at = int(time.time()) - PAST_SECONDS
    low = Corpus(options.seed, sizes.low_users, sizes.low_items, 1, began_at, only=LOW)
    options.say("starting the servers")
    settings = options.settings(sizes, quick=SHORT_WINDOWS)
    async with Stack(settings=settings) as stack:
        await stack.start_pool(worker_processes_max=sizes.processes)
        async with Load(stack, high, connections=sizes.connections) as load:
            options.say("warming up")
            await _high(load, sizes, sizes.warm_up_seconds, recorded=False)
            options.say("the high lane alone")
            idle = await _high(load, sizes, sizes.seconds, recorded=True)
            async with LoadProcess(flood, stack.nats_url, low) as publisher:
                busy, poured = await _overload(stack, load, publisher, sizes, options, report)
            _add_latencies(report, idle, busy)
            options.say("working off what waits")
            drained = await drain(stack, seconds_max=sizes.seconds_max)
            report.add("drain_seconds", round(drained.seconds, 1), "s")
            options.say("verifying every delivery")
            report.faults = merged([report.faults, await load.judge()])
        await compare(stack, Reference(low, range(poured)), report)
    report.add("processes", sizes.processes)
    return report


async def _overload(
    stack: Stack,
    load: Load,
    publisher: LoadProcess,
    sizes: Sizes,
    options: Options,
    report: Report,
) -> tuple[Outcome, int]:
    """The high lane while low updates wait, and how many of those there were at the end."""
    connection = await stack.connect("livefeed-bench")
    try:
        options.say(f"waiting until {sizes.waiting:,} low updates wait")
        publisher.send(Pour(sizes.waiting))
        async with asyncio.timeout(sizes.fill_seconds_max):
            async for look in _looks(connection):
                if look.waiting >= sizes.waiting * FULL_SHARE:
                    break
        await asyncio.sleep(sizes.soak_seconds)
        # Nothing high came for that long, so its workers have left: their start is no part of the
        # comparison, here as little as before the first measurement, and a figure of its own.
        options.say("warming up under the flood")
        cold = await _high(load, sizes, sizes.warm_up_seconds, recorded=True)
        report.add("high_cold_max_ms", round(cold.latency.maximum * 1e3, 3), "ms")
        options.say("the high lane under the flood")
        meter = Meter(stack, load, processes={"flood": publisher.pid})
        looks: list[_Looked] = []
        looking = asyncio.create_task(_collect(_looks(connection), looks))
        busy = await _high(load, sizes, sizes.seconds, recorded=True)
        looking.cancel()
        used = meter.read()
        publisher.send("enough")
        poured: int = await publisher.receive()
    finally:
        await close(connection)
    _add_load(report, looks)
    used.add_to(report)
    report.notes += busy.notes()
    report.charts.append(latency_chart("High under a flood of low", busy))
    return busy, poured


async def _looks(connection: Connection) -> AsyncIterator[_Looked]:
    while True:
        info = await connection.jetstream().stream_info(UPDATES)
        lags = await consumer_lag(connection, UPDATES)
        waiting = lags[prioritize_consumer(LOW).name]
        yield _Looked(int(info.state.last_seq), waiting, time.perf_counter())
        await asyncio.sleep(LOOK_SECONDS)


async def _collect(looks: AsyncIterator[_Looked], collected: list[_Looked]) -> None:
    async for look in looks:
        collected.append(look)  # noqa: PERF401  # it is cancelled, and what is there counts


async def _high(load: Load, sizes: Sizes, seconds: float, *, recorded: bool) -> Outcome:
    count = round(seconds * sizes.per_second)
    return await load.publish(
        count, per_second=sizes.per_second, recorded=recorded, uneven=True, arrive_seconds=60
    )


def _add_load(report: Report, looks: list[_Looked]) -> None:
    """How much more there was to do than could be done."""
    first, last = looks[0], looks[-1]
    published = last.published - first.published
    taken = published + first.waiting - last.waiting
    report.add("low_waiting_least", min(look.waiting for look in looks), "", WAITING_GOAL)
    offered = round((published + first.waiting) / max(1, taken), 1)
    report.add("low_offered_ratio", offered, RATIO)
    report.add("low_taken_per_second", round(taken / (last.seconds - first.seconds)), PER_SECOND)


def _add_latencies(report: Report, idle: Outcome, busy: Outcome) -> None:
    for percent in (99, 50):
        alone = idle.latency.percentile(percent) * 1e3
        flooded = busy.latency.percentile(percent) * 1e3
        goal = RATIO_GOAL if percent == 99 else None
        report.add(f"high_p{percent}_ratio", round(flooded / alone, 2), RATIO, goal)
        report.add(f"high_p{percent}_idle_ms", round(alone, 3), "ms")
        report.add(f"high_p{percent}_ms", round(flooded, 3), "ms")
    report.add("high_max_idle_ms", round(idle.latency.maximum * 1e3, 3), "ms")
    report.add("high_max_ms", round(busy.latency.maximum * 1e3, 3), "ms")


SCENARIO: Final = Scenario(
    NAME,
    "The high lane under a flood in the low one, against the high lane alone.",
    run,
    plot="latency over time",
)
