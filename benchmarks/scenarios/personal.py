"""What one delivery costs all servers together, from publish through the log to a user's socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benchmarks.charts import latency_chart
from benchmarks.load import Load, Meter, Outcome
from benchmarks.report import Goal, Report, merged
from benchmarks.scenario import Options, Scenario, WrongSize
from benchmarks.stack import Stack
from benchmarks.traffic import Traffic
from benchmarks.units import PER_SECOND
from livefeed.subjects import LANES, Lane

NAME: Final = "personal"
GOAL: Final = Goal("≤", 150)
WIDE_GOAL: Final = Goal("≤", 50)
ARRIVE_SECONDS_MAX: Final = 90.0
"""What is medium may wait for its window, and the last ones for what was before them."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is published, to whom."""

    connections: int = 10_000
    per_second: int = 5_000
    """Updates for one user each."""
    seconds: float = 30.0
    warm_up_seconds: float = 8.0
    wide_connections: int = 10_000
    wide_audience: int = 1_000
    wide_per_second: float = 20.0
    """Updates for `wide_audience` users each."""
    wide_seconds: float = 30.0
    gather_seconds: float = 0.05
    """What is due within such a time is published as one atomic batch, some 250 updates: the
    group that `livefeed publish` makes of what comes fast; 0: each update by itself."""
    priority: str = "medium"
    """Of all updates: what one has that says nothing."""


QUICK: Final = Sizes(
    connections=500,
    per_second=500,
    seconds=6.0,
    warm_up_seconds=2.0,
    wide_connections=500,
    wide_audience=100,
    wide_per_second=20.0,
    wide_seconds=6.0,
)


@dataclass(frozen=True, slots=True)
class _Part:
    """One of the two audiences; `suffix` ends the names of its figures."""

    traffic: Traffic
    per_second: float
    seconds: float
    goal: Goal
    suffix: str = ""


async def run(options: Options) -> Report:
    """Publish at a steady rate for one user each, then for many each; all of them are connected."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    parts = _parts(sizes, options.seed)
    options.say("starting the servers")
    async with Stack(settings=options.settings(sizes)) as stack:
        await stack.start_pool()
        for part in parts:
            await _measure(stack, part, sizes, options, report)
    report.add("gather_seconds", sizes.gather_seconds)
    return report


def _parts(sizes: Sizes, seed: int) -> list[_Part]:
    if sizes.priority not in LANES:
        raise WrongSize(f"priority={sizes.priority}: there are {', '.join(LANES)}")
    if sizes.wide_connections % sizes.wide_audience:
        raise WrongSize(f"wide_audience={sizes.wide_audience}: it has to divide wide_connections")
    lanes: tuple[Lane] = (sizes.priority,)
    one = Traffic(2 * seed, sizes.connections, priorities=lanes)
    wide = Traffic(
        2 * seed + 1, sizes.wide_connections, priorities=lanes, audience=sizes.wide_audience
    )
    return [
        _Part(one, sizes.per_second, sizes.seconds, GOAL),
        _Part(wide, sizes.wide_per_second, sizes.wide_seconds, WIDE_GOAL, "_wide"),
    ]


async def _measure(
    stack: Stack, part: _Part, sizes: Sizes, options: Options, report: Report
) -> None:
    """Add what a delivery costs, from the first publish until the last client has its last one."""
    traffic, suffix = part.traffic, part.suffix
    options.say(f"connecting {traffic.users:,} clients")
    async with Load(stack, traffic, connections=traffic.users) as load:
        options.say("warming up")
        await _publish(load, part, sizes, sizes.warm_up_seconds, recorded=False)
        options.say(f"{part.per_second:,g} updates/s for {traffic.audience:,} each")
        meter = Meter(stack, load)
        outcome = await _publish(load, part, sizes, part.seconds, recorded=True)
        used = meter.read()
        stack.check()
        deliveries = max(1, outcome.deliveries)
        cost = sum(used.cpu_seconds.values()) / deliveries * 1e6
        report.add(f"cpu_us_per_delivery{suffix}", round(cost, 2), "µs", part.goal)
        for role, seconds in used.cpu_seconds.items():
            if seconds:
                each = round(seconds / deliveries * 1e6, 2)
                report.add(f"cpu_us_per_delivery{suffix}_{role}", each, "µs")
        _add_rates(report, part, outcome)
        used.add_to(report, suffix)
        report.notes += [f"{part.suffix or 'one user each'}: {note}" for note in outcome.notes()]
        title = f"{part.per_second:,g} updates a second for {traffic.audience:,} users each"
        report.charts.append(latency_chart(title, outcome))
        options.say("verifying every delivery")
        report.faults = merged([report.faults, await load.judge()])


async def _publish(
    load: Load, part: _Part, sizes: Sizes, seconds: float, *, recorded: bool
) -> Outcome:
    return await load.publish(
        max(1, round(seconds * part.per_second)),
        per_second=part.per_second,
        recorded=recorded,
        arrive_seconds=ARRIVE_SECONDS_MAX,
        gather_seconds=sizes.gather_seconds,
    )


def _add_rates(report: Report, part: _Part, outcome: Outcome) -> None:
    suffix, latency = part.suffix, outcome.latency
    rate = round(outcome.deliveries / part.seconds)
    report.add(f"deliveries_per_second{suffix}", rate, PER_SECOND)
    for percent in (50, 99):
        value = round(latency.percentile(percent), 3)
        report.add(f"p{percent}_seconds{suffix}", value, "s")
    late = outcome.published.late.percentile(99) * 1e3
    report.add(f"publisher_late_p99_ms{suffix}", round(late, 1), "ms (load)")
    report.add(f"deliveries{suffix}", outcome.deliveries)
    report.add(f"replayed{suffix}", outcome.replayed)
    report.add(f"unanswered{suffix}", len(outcome.published.unknown))
    report.add(f"refused{suffix}", len(outcome.published.refused))


SCENARIO: Final = Scenario(
    NAME,
    "From publish through the log to a socket: CPU of all servers for each delivery.",
    run,
    plot="latency over time, with one user an update",
)
