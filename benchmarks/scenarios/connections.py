"""What a connection takes: memory, and whether a message costs more where there are many."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.charts import FLOOR_FIGURE, connections_chart
from benchmarks.floor import FRAME_BYTES_BESIDE, Writes, measure
from benchmarks.load import Load, Meter
from benchmarks.report import Goal, Report, merged
from benchmarks.scenario import Options, Scenario, WrongSize
from benchmarks.stack import Stack
from benchmarks.traffic import Traffic, clock
from benchmarks.units import CORE, RATIO, SHARE
from livefeed.limits import FRAMES_A_SECOND_MAX, KIB

NAME: Final = "connections"
A_PROCESS_GOAL: Final = Goal("≥", 10_000)
COUNT_GOAL: Final = Goal("≥", 30_000)
RSS_GOAL: Final = Goal("≤", 30)
GROWTH_GOAL: Final = Goal("≤", 1.2)
DEVIATION_GOAL: Final = Goal("≤", 0.2)
FIRST: Final = 20
"""Clients of each gateway that come and leave first: what is made once is no connection's."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    gateways: int = 3
    counts: str = "1000,3000,10000,30000"
    """Connections, each number of them to a stack of its own."""
    messages_per_second: int = 8_000
    """To all connections together, however many they are."""
    seconds: float = 30.0
    warm_up_seconds: float = 4.0
    idle_seconds: float = 10.0


QUICK: Final = Sizes(
    gateways=1,
    counts="250,1000",
    messages_per_second=2_000,
    seconds=5.0,
    warm_up_seconds=1.0,
    idle_seconds=2.0,
)


@dataclass(frozen=True, slots=True)
class _Measured:
    """What was found with one number of connections."""

    cpu_us_per_message: float
    rss_kib_per_connection: float


async def run(options: Options) -> Report:
    """The same number of messages a second to few connections, then to more and more."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    counts = _counts(sizes)
    measured: dict[int, _Measured] = {}
    bare: dict[int, float] = {}
    for count in counts:
        options.say("starting the servers")
        async with Stack(gateways=sizes.gateways, settings=options.settings(sizes)) as stack:
            await stack.start_pool()
            await _first(stack, sizes, options)
            measured[count] = await _measure(stack, count, sizes, options, report)
        bare[count] = await _floor(count, sizes, options, report)
    _add_totals(report, measured, sizes)
    report.add("floor_growth", _growth(list(bare.values())), RATIO)
    report.charts.append(connections_chart(report.values()))
    return report


def _counts(sizes: Sizes) -> list[int]:
    try:
        counts = [int(text) for text in sizes.counts.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < sizes.gateways or counts != sorted(set(counts)):
        raise WrongSize(f"counts={sizes.counts}: name growing numbers, as in 1000,3000")
    if sizes.messages_per_second / counts[0] >= FRAMES_A_SECOND_MAX:
        most = counts[0] * FRAMES_A_SECOND_MAX
        raise WrongSize(
            f"messages_per_second={sizes.messages_per_second}: fewer than {most}, or "
            f"{counts[0]} connections are behind and catch up, which is another thing"
        )
    return counts


async def _first(stack: Stack, sizes: Sizes, options: Options) -> None:
    traffic = Traffic(2 * options.seed, users=1, feed="first", topic=True)
    async with Load(stack, traffic, connections=FIRST * sizes.gateways) as load:
        await load.publish(5, per_second=5, recorded=False)


async def _measure(
    stack: Stack, connections: int, sizes: Sizes, options: Options, report: Report
) -> _Measured:
    """CPU of the gateways that each message adds, and their memory for each connection."""
    traffic = Traffic(2 * options.seed + 1, connections, feed="many", topic=True)
    rss_before = stack.usage()["gateway"].rss_bytes
    options.say(f"connecting {connections:,} clients")
    async with Load(stack, traffic, connections=connections) as load:
        per_second = sizes.messages_per_second / connections
        warm_up = max(2, round(sizes.warm_up_seconds * per_second))
        await load.publish(warm_up, per_second=per_second, recorded=False)
        rss = stack.usage()["gateway"].rss_bytes - rss_before
        options.say(f"{sizes.messages_per_second:,} messages/s to {connections:,} connections")
        idle = await _idle_share(stack, sizes.idle_seconds)
        meter, began = Meter(stack, load), time.perf_counter()
        count = max(2, round(sizes.seconds * per_second))
        outcome = await load.publish(count, per_second=per_second, arrive_seconds=90)
        seconds = time.perf_counter() - began
        used = meter.read()
        stack.check()
        spent = used.cpu_seconds["gateway"]
        messages = max(1, outcome.deliveries)
        found = _Measured(
            max(0.0, spent - idle * seconds) / messages * 1e6, rss / connections / KIB
        )
        suffix = f"_{connections}"
        report.add(f"cpu_us_per_message{suffix}", round(found.cpu_us_per_message, 2), "µs")
        whole = round(spent / messages * 1e6, 2)
        report.add(f"cpu_us_per_message{suffix}_with_idle", whole, "µs")
        report.add(f"idle_cpu_percent{suffix}", round(100 * idle, 2), CORE)
        rss_kib = round(found.rss_kib_per_connection, 1)
        report.add(f"rss_kib_per_connection{suffix}", rss_kib, "KiB")
        report.add(f"connect_seconds{suffix}", round(load.connect_seconds, 1), "s")
        report.add(f"reconnects{suffix}", outcome.reconnects)
        used.add_to(report, suffix)
        report.notes += outcome.notes()
        report.faults = merged([report.faults, await load.judge()])
    return found


async def _floor(count: int, sizes: Sizes, options: Options, report: Report) -> float:
    """CPU of loops that do nothing but write as much to as many, for each message."""
    options.say("the bare write loop")
    per_second = sizes.messages_per_second / count
    writes = Writes(max(2, round(sizes.seconds * per_second)), per_second, _frame_bytes(options))
    warm_up = max(2, round(sizes.warm_up_seconds * per_second))
    bare = await measure(writes, warm_up=warm_up, connections=count, servers=sizes.gateways)
    report.add(f"{FLOOR_FIGURE}{count}", round(bare, 2), "µs (floor)")
    return bare


def _frame_bytes(options: Options) -> int:
    traffic = Traffic(options.seed, users=1, feed="many", topic=True)
    return len(traffic.update(0, due=clock(), recorded=True)) + FRAME_BYTES_BESIDE


def _add_totals(report: Report, measured: Mapping[int, _Measured], sizes: Sizes) -> None:
    most, every = max(measured), list(measured.values())
    rss = round(every[-1].rss_kib_per_connection, 1)
    report.add("count_a_process", most // sizes.gateways, "", A_PROCESS_GOAL)
    report.add("count", most, "", COUNT_GOAL)
    report.add("rss_kib_per_connection", rss, "KiB", RSS_GOAL)
    costs = [one.cpu_us_per_message for one in every]
    report.add("cpu_growth", _growth(costs), RATIO, GROWTH_GOAL)
    cpu = _deviation(costs)
    report.add("cpu_deviation", cpu, SHARE, DEVIATION_GOAL)
    memory = _deviation([one.rss_kib_per_connection for one in every])
    report.add("rss_deviation", memory, SHARE, DEVIATION_GOAL)


def _growth(costs: Sequence[float]) -> float:
    """By how much the last costs more than the first."""
    return round(costs[-1] / costs[0], 3) if costs[0] else 0.0


def _deviation(values: Sequence[float]) -> float:
    """By what share all of them are at most away from one constant, the best one there is."""
    low, high = min(values), max(values)
    return round((high - low) / (high + low), 3) if high + low > 0 else 0.0


async def _idle_share(stack: Stack, seconds: float) -> float:
    """The share of a core that the gateways use while no message is sent."""
    before, began = stack.usage()["gateway"].cpu_seconds, time.perf_counter()
    await asyncio.sleep(seconds)
    return (stack.usage()["gateway"].cpu_seconds - before) / (time.perf_counter() - began)


SCENARIO: Final = Scenario(
    NAME,
    "1,000 to 30,000 connections, 10,000 a process: memory, and CPU a message.",
    run,
    plot="CPU a message and memory a connection over connections",
)
"""`--plot` and `bench plot` draw the same: its figures are enough."""
