"""How long each lane takes under a mixed load, and that nobody waits for half a minute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benchmarks.charts import lanes_chart
from benchmarks.load import Load, Meter, Outcome
from benchmarks.report import Goal, Report
from benchmarks.scenario import Options, Scenario
from benchmarks.stack import Stack
from benchmarks.traffic import Traffic
from benchmarks.units import SHARE
from livefeed.subjects import Lane

NAME: Final = "lanes"
MEDIUM_GOAL: Final = Goal("≤", 6)
LOW_GOAL: Final = Goal("≤", 20)
WITHIN_GOAL: Final = Goal("≥", 0.95)
PROMISED_SECONDS: Final = 30.0
MIX: Final[tuple[Lane, ...]] = ("high", *("medium",) * 3, *("low",) * 6)
ARRIVE_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is published, to whom."""

    connections: int = 2_000
    per_second: int = 300
    seconds: float = 60.0
    warm_up_seconds: float = 5.0
    processes: int = 1
    """Workers of each function at most."""


QUICK: Final = Sizes(connections=200, per_second=100, seconds=12.0, warm_up_seconds=2.0)


async def run(options: Options) -> Report:
    """Publish to connected clients at a steady rate, in all three priorities."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    traffic = Traffic(seed=options.seed, users=sizes.connections, priorities=MIX)
    options.say("starting the servers")
    async with Stack(settings=options.settings(sizes)) as stack:
        await stack.start_pool(worker_processes_max=sizes.processes)
        options.say(f"connecting {sizes.connections:,} clients")
        async with Load(stack, traffic, connections=sizes.connections) as load:
            options.say("warming up")
            await _publish(load, sizes, sizes.warm_up_seconds, recorded=False)
            options.say(f"{sizes.per_second:,} updates/s for {sizes.seconds:g} s")
            meter = Meter(stack, load)
            outcome = await _publish(load, sizes, sizes.seconds, recorded=True)
            used = meter.read()
            stack.check()
            _add_figures(report, outcome)
            used.add_to(report)
            report.notes += outcome.notes()
            report.charts.append(lanes_chart("Latency by lane", outcome))
            options.say("verifying every delivery")
            report.faults = await load.judge()
    report.add("processes", sizes.processes)
    return report


async def _publish(load: Load, sizes: Sizes, seconds: float, *, recorded: bool) -> Outcome:
    return await load.publish(
        round(seconds * sizes.per_second),
        per_second=sizes.per_second,
        recorded=recorded,
        arrive_seconds=ARRIVE_SECONDS_MAX,
    )


def _add_figures(report: Report, outcome: Outcome) -> None:
    goals: dict[str, Goal] = {"medium_p95_seconds": MEDIUM_GOAL, "low_p95_seconds": LOW_GOAL}
    for lane, latency in outcome.latencies.items():
        for percent in (50, 95, 99, 100):
            name = f"{lane}_p{percent}_seconds" if percent < 100 else f"{lane}_max_seconds"
            report.add(name, round(latency.percentile(percent), 3), "s", goals.get(name))
    within = outcome.latency.share_within(PROMISED_SECONDS)
    report.add("within_30s", round(within, 4), SHARE, WITHIN_GOAL)
    report.add("published", outcome.published.accepted)
    report.add("deliveries", outcome.deliveries)
    report.add("replayed", outcome.replayed)


SCENARIO: Final = Scenario(
    NAME,
    "From publish to the client in each lane, under a steady load of all three.",
    run,
    plot="latency over time, by lane",
)
