"""What a connection takes: memory, and whether a message costs more where there are many."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from benchmarks.load import Load, Meter
from benchmarks.report import Goal, Report, merged
from benchmarks.scenario import Options, Scenario
from benchmarks.stack import Stack
from benchmarks.traffic import Traffic
from livefeed.limits import KIB

NAME: Final = "connections"
A_PROCESS_GOAL: Final = Goal("≥", 10_000)
COUNT_GOAL: Final = Goal("≥", 30_000)
RSS_GOAL: Final = Goal("≤", 30)
GROWTH_GOAL: Final = Goal("≤", 1.2)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    gateways: int = 3
    fewest: int = 1_500
    most: int = 30_000
    messages_per_second: int = 15_000
    """To all connections together, however many they are."""
    seconds: float = 20.0
    warm_up_seconds: float = 4.0
    idle_seconds: float = 10.0


QUICK: Final = Sizes(
    gateways=1,
    fewest=100,
    most=1_000,
    messages_per_second=2_000,
    seconds=5.0,
    warm_up_seconds=1.0,
    idle_seconds=2.0,
)


async def run(options: Options) -> Report:
    """The same number of messages a second to few connections, then to many."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    options.say("starting the servers")
    async with Stack(gateways=sizes.gateways, settings=options.settings(sizes)) as stack:
        await stack.start_pool()
        few, faults_few = await _measure(stack, sizes.fewest, sizes, options, report)
        many, faults_many = await _measure(stack, sizes.most, sizes, options, report)
    report.faults = merged([faults_few, faults_many])
    report.add("cpu_growth", round(many / few, 3) if few else 0.0, "", GROWTH_GOAL)
    return report


async def _measure(
    stack: Stack, connections: int, sizes: Sizes, options: Options, report: Report
) -> tuple[float, dict[str, int]]:
    """CPU of the gateways in µs that each message adds, and the faults."""
    seed = 2 * options.seed + (connections == sizes.most)
    traffic = Traffic(seed, connections, feed=f"feed-{connections}", topic=True)
    rss_before = stack.usage()["gateway"].rss_bytes
    options.say(f"connecting {connections:,} clients")
    async with Load(stack, traffic, connections=connections) as load:
        per_second = sizes.messages_per_second / connections
        warm_up = max(2, round(sizes.warm_up_seconds * per_second))
        await load.publish(warm_up, per_second=per_second, recorded=False)
        rss = stack.usage()["gateway"].rss_bytes - rss_before
        options.say(f"{sizes.messages_per_second:,} messages/s to {connections:,} connections")
        idle = await _idle_share(stack, sizes.idle_seconds)
        meter = Meter(stack, load)
        before, began = stack.usage()["gateway"].cpu_seconds, time.perf_counter()
        count = max(2, round(sizes.seconds * per_second))
        outcome = await load.publish(count, per_second=per_second, arrive_seconds=90)
        used = stack.usage()["gateway"].cpu_seconds - before
        added = used - idle * (time.perf_counter() - began)
        percent = meter.percent()
        stack.check()
        messages = max(1, outcome.deliveries)
        cost = max(0.0, added) / messages * 1e6
        if connections == sizes.most:
            report.add("count_a_process", connections // sizes.gateways, "", A_PROCESS_GOAL)
            report.add("count", connections, "", COUNT_GOAL)
            report.add("rss_kib_per_connection", round(rss / connections / KIB, 1), "KiB", RSS_GOAL)
            report.add("connect_seconds", round(load.connect_seconds, 1), "s")
        report.add(f"cpu_us_per_message_{connections}", round(cost, 2), "µs")
        whole = round(used / messages * 1e6, 2)
        report.add(f"cpu_us_per_message_{connections}_with_idle", whole, "µs")
        report.add(f"idle_cpu_percent_{connections}", round(100 * idle, 2), "% of a core")
        report.add(f"reconnects_{connections}", outcome.reconnects)
        report.notes += [*outcome.notes(), *meter.notes(percent)]
        return cost, await load.judge()


async def _idle_share(stack: Stack, seconds: float) -> float:
    """The share of a core that the gateways use while no message is sent."""
    before, began = stack.usage()["gateway"].cpu_seconds, time.perf_counter()
    await asyncio.sleep(seconds)
    return (stack.usage()["gateway"].cpu_seconds - before) / (time.perf_counter() - began)


SCENARIO: Final = Scenario(
    NAME, "10,000 connections a process, 30,000 in all: memory, and CPU a message.", run
)
