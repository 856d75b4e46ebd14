"""How long an update takes from its publisher to its user's screen, idle and under load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benchmarks.charts import latency_chart
from benchmarks.load import Load, Meter, Outcome
from benchmarks.measure import LatencyRecorder
from benchmarks.report import Goal, Report, merged
from benchmarks.scenario import Options, Scenario
from benchmarks.stack import Stack
from benchmarks.traffic import Traffic

NAME: Final = "latency"
P50_IDLE_GOAL: Final = Goal("≤", 15)
P99_GOAL: Final = Goal("≤", 100)
P999_GOAL: Final = Goal("≤", 250)
IDLE_PER_SECOND: Final = 8.0
"""Within the frame budget of one client, however they are shifted."""
SECOND_DEVICES: Final = 0.1
"""The share of connections that are a user's second one."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    connections: int = 10_000
    per_second: int = 1_000
    seconds: float = 60.0
    warm_up_seconds: float = 10.0
    worker_life_seconds: float = 5.0
    idle_updates: int = 200
    idle_warm_up: int = 20


QUICK: Final = Sizes(
    connections=1_000,
    per_second=200,
    seconds=10.0,
    warm_up_seconds=3.0,
    idle_updates=30,
    idle_warm_up=5,
)


async def run(options: Options) -> Report:
    """Measure one client on an idle stack, then many under a steady load."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    options.say("starting the servers")
    async with Stack(settings=options.settings(sizes)) as stack:
        idle = await _idle(stack, sizes, options, report)
        busy = await _busy(stack, sizes, options, report)
    report.faults = merged([idle, busy])
    return report


async def _idle(stack: Stack, sizes: Sizes, options: Options, report: Report) -> dict[str, int]:
    """One client, one update at a time, no worker that starts or leaves meanwhile."""
    await stack.start_pool()
    traffic = Traffic(seed=2 * options.seed, users=1)
    async with Load(stack, traffic, connections=1) as load:
        options.say("one client, warming up")
        await load.publish(sizes.idle_warm_up, per_second=IDLE_PER_SECOND, recorded=False)
        options.say(f"one client, {sizes.idle_updates} updates")
        outcome = await load.publish(sizes.idle_updates, per_second=IDLE_PER_SECOND, uneven=True)
        faults = await load.judge()
    await stack.stop_pool()
    latency = outcome.latency
    report.add("p50_idle_ms", _milliseconds(latency, 50), "ms", P50_IDLE_GOAL)
    report.add("p99_idle_ms", _milliseconds(latency, 99), "ms")
    return faults


async def _busy(stack: Stack, sizes: Sizes, options: Options, report: Report) -> dict[str, int]:
    """Many clients, a steady rate, workers that leave and are replaced all the time."""
    life = sizes.worker_life_seconds
    await stack.start_pool(worker_life_seconds=life, worker_idle_seconds=life)
    users = max(1, round(sizes.connections * (1 - SECOND_DEVICES)))
    traffic = Traffic(seed=2 * options.seed + 1, users=users)
    options.say(f"connecting {sizes.connections:,} clients")
    async with Load(stack, traffic, connections=sizes.connections) as load:
        report.add("connect_seconds", round(load.connect_seconds, 2), "s")
        options.say(f"warming up at {sizes.per_second:,} updates/s")
        warm_up = round(sizes.warm_up_seconds * sizes.per_second)
        await load.publish(warm_up, per_second=sizes.per_second, recorded=False)
        options.say(f"{sizes.per_second:,} updates/s for {sizes.seconds:g} s")
        recycled = _recycled(stack)
        meter = Meter(stack, load)
        count = round(sizes.seconds * sizes.per_second)
        outcome = await load.publish(count, per_second=sizes.per_second)
        used = meter.read()
        options.say("verifying every delivery")
        stack.check()
        _add_latencies(report, outcome)
        report.add("workers_recycled", _recycled(stack) - recycled)
        used.add_to(report)
        report.notes += outcome.notes()
        report.charts.append(latency_chart("Latency under a steady load", outcome))
        return await load.judge()


def _add_latencies(report: Report, outcome: Outcome) -> None:
    latency, published = outcome.latency, outcome.published
    report.add("p50_ms", _milliseconds(latency, 50), "ms")
    report.add("p99_ms", _milliseconds(latency, 99), "ms", P99_GOAL)
    report.add("p999_ms", _milliseconds(latency, 99.9), "ms", P999_GOAL)
    report.add("max_ms", _milliseconds(latency, 100), "ms")
    report.add("publish_ack_p50_ms", _milliseconds(published.acknowledged, 50), "ms")
    report.add("publish_ack_p99_ms", _milliseconds(published.acknowledged, 99), "ms")
    report.add("publisher_late_p99_ms", _milliseconds(published.late, 99), "ms")
    report.add("published", published.accepted)
    report.add("unanswered", len(published.unknown))
    report.add("refused", len(published.refused))
    report.add("deliveries", outcome.deliveries)
    report.add("replayed", outcome.replayed)
    report.add("reconnects", outcome.reconnects)
    report.add("resets", outcome.resets)


def _milliseconds(latency: LatencyRecorder, percent: float) -> float:
    return round(latency.percentile(percent) * 1e3, 3)


def _recycled(stack: Stack) -> int:
    """Workers that have left at the end of their life."""
    return sum(summary["reason"] == "end of life" for summary in stack.worker_summaries())


SCENARIO: Final = Scenario(
    NAME,
    "From publish to the client: idle, and with many connections and recycling workers.",
    run,
    plot="latency over time",
)
