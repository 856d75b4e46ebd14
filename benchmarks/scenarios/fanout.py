"""What one topic update costs the gateway for each connection, against a bare write loop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from benchmarks.floor import FRAME_BYTES_BESIDE, Writes, measure
from benchmarks.load import Load, Meter
from benchmarks.report import Goal, Report
from benchmarks.scenario import Options, Scenario
from benchmarks.stack import Stack
from benchmarks.traffic import Traffic, clock
from benchmarks.units import CORE, RATIO

NAME: Final = "fanout"
FLOOR_RATIO_GOAL: Final = Goal("≤", 1.25)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    connections: int = 10_000
    updates: int = 60
    per_second: float = 4.0
    warm_up: int = 8
    idle_seconds: float = 5.0


QUICK: Final = Sizes(connections=500, updates=20, per_second=10.0, warm_up=4, idle_seconds=1.0)


async def run(options: Options) -> Report:
    """Publish for everyone on a feed, then have a bare loop write as much to as many."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    traffic = Traffic(seed=options.seed, users=sizes.connections, topic=True)
    options.say("starting the servers")
    async with Stack(settings=options.settings(sizes)) as stack:
        await stack.start_pool()
        options.say(f"connecting {sizes.connections:,} clients")
        async with Load(stack, traffic, connections=sizes.connections) as load:
            cost = await _gateway(stack, load, sizes, options, report)
    options.say("the bare write loop")
    size = len(traffic.update(0, due=clock(), recorded=True)) + FRAME_BYTES_BESIDE
    writes = Writes(sizes.updates, sizes.per_second, size)
    bare = await measure(writes, warm_up=sizes.warm_up, connections=sizes.connections)
    report.add("floor_cpu_us_per_message", round(bare, 2), "µs (floor)")
    report.add("floor_ratio", round(cost / bare, 3) if bare else 0.0, RATIO, FLOOR_RATIO_GOAL)
    return report


async def _gateway(
    stack: Stack, load: Load, sizes: Sizes, options: Options, report: Report
) -> float:
    """CPU of the gateway in µs for each frame that a client has read."""
    options.say("warming up")
    await load.publish(sizes.warm_up, per_second=sizes.per_second, recorded=False)
    meter = Meter(stack, load)
    await asyncio.sleep(sizes.idle_seconds)
    report.add("idle_cpu_percent", meter.read().percent["gateway"], CORE)
    options.say(f"{sizes.updates} updates for {sizes.connections:,} connections each")
    meter = Meter(stack, load)
    before = stack.usage()["gateway"].cpu_seconds
    outcome = await load.publish(sizes.updates, per_second=sizes.per_second)
    spent = stack.usage()["gateway"].cpu_seconds - before
    used = meter.read()
    stack.check()
    report.faults = await load.judge()
    cost = spent / max(1, outcome.deliveries) * 1e6
    report.add("gateway_cpu_us_per_message", round(cost, 2), "µs")
    report.add("p50_ms", round(outcome.latency.percentile(50) * 1e3, 1), "ms")
    report.add("p99_ms", round(outcome.latency.percentile(99) * 1e3, 1), "ms")
    report.add("deliveries", outcome.deliveries)
    report.add("replayed", outcome.replayed)
    used.add_to(report)
    report.notes += outcome.notes()
    return cost


SCENARIO: Final = Scenario(
    NAME, "One topic update to every connection: CPU a message, against a bare write loop.", run
)
