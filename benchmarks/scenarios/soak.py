"""Clients come and go, then every part is killed: nothing grows, nothing breaks, little is late."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.chaos import Chaos, plan
from benchmarks.charts import soak_chart
from benchmarks.crowd import Away
from benchmarks.drain import drain
from benchmarks.load import Load, Meter, Outcome, together
from benchmarks.measure import slope
from benchmarks.report import Goal, Report, merged
from benchmarks.scenario import Options, Scenario
from benchmarks.scenarios.lanes import PROMISED_SECONDS, WITHIN_GOAL
from benchmarks.stack import Stack
from benchmarks.traffic import Traffic
from benchmarks.units import SHARE
from livefeed.limits import MIB
from livefeed.subjects import Lane
from livefeed.topology import DEAD_LETTERS

NAME: Final = "soak"
SLOPE_GOAL: Final = Goal("≤", 16)
"""MiB an hour: what a leak of 20 bytes an update would be."""
BROKEN_GOAL: Final = Goal("=", 0)
RELIABILITY_GOAL: Final = Goal("≥", 0.995)
MIX: Final[tuple[Lane, ...]] = ("high", *("medium",) * 3, *("low",) * 6)
SAMPLES_MAX: Final = 600
SLOTS_MAX: Final = 300
SETTLED_SECONDS_MIN: Final = 60.0
"""A slope over less says nothing."""
OURS: Final = ("gateway", "pool", "workers")
PATIENCE_SECONDS: Final = 60.0
"""For how long the publisher tries again: longer than anything is away."""
ARRIVE_SECONDS_MAX: Final = 120.0
DRAIN: Final = {"drain_wait_seconds": 0.5, "drain_seconds": 2}
"""A gateway that is told to leave sends its clients away, as in a deploy."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How long, and how much meanwhile."""

    minutes: float = 8.0
    """Half of it with clients that come and go, half with blows."""
    gateways: int = 2
    connections: int = 500
    per_second: int = 200
    churn_per_second: float = 5.0
    """Connections that are cut, and come back within a second."""
    blow_seconds: float = 20.0
    """From one blow to the next, in the mean."""
    warm_up_seconds: float = 5.0
    drain_seconds_max: float = 300.0


QUICK: Final = Sizes(
    minutes=0.6, connections=100, per_second=50, blow_seconds=4.0, warm_up_seconds=1.0
)


@dataclass(slots=True)
class _Run:
    """What the parts of a run share."""

    stack: Stack
    load: Load
    sizes: Sizes
    options: Options
    report: Report
    rss: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """By role of the servers: seconds from the beginning, and MiB."""

    async def publish(self, seconds: float) -> Outcome:
        """Publish all the time, each update until it is accepted."""
        return await self.load.publish(
            round(seconds * self.sizes.per_second),
            per_second=self.sizes.per_second,
            arrive_seconds=ARRIVE_SECONDS_MAX,
            patience_seconds=PATIENCE_SECONDS,
        )

    async def sample(self, every_seconds: float) -> None:
        """Look at the memory of every server until cancelled."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            at = loop.time() - began
            for role, usage in self.stack.usage().items():
                self.rss[role].append((at, usage.rss_bytes / MIB))
            await asyncio.sleep(every_seconds)


async def run(options: Options) -> Report:
    """Publish and verify without an end while clients come and go, and then while parts die."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    seconds = sizes.minutes * 30
    traffic = Traffic(options.seed, sizes.connections, priorities=MIX)
    slot = max(1.0, 2 * seconds / SLOTS_MAX)
    options.say("starting the servers")
    settings = DRAIN | options.settings(sizes)
    async with Stack(gateways=sizes.gateways, settings=settings) as stack:
        await stack.start_pool()
        options.say(f"connecting {sizes.connections:,} clients")
        connections = sizes.connections
        async with Load(stack, traffic, connections=connections, slot_seconds=slot) as load:
            this = _Run(stack, load, sizes, options, report)
            await load.publish(
                round(sizes.warm_up_seconds * sizes.per_second),
                per_second=sizes.per_second,
                recorded=False,
            )
            await _churn(this, seconds)
            await _chaos(this, seconds)
    return report


async def _churn(this: _Run, seconds: float) -> None:
    """Clients come and go; nothing may grow."""
    this.options.say(f"clients come and go for {seconds:g} s")
    sampling = asyncio.create_task(this.sample(max(1.0, seconds / SAMPLES_MAX)))
    meter = Meter(this.stack, this.load)
    this.load.churn(this.sizes.churn_per_second)
    try:
        outcome = await this.publish(seconds)
    finally:
        sampling.cancel()
    this.load.churn(0)
    used = meter.read()
    this.stack.check()
    _add_slopes(this.report, this.rss)
    this.report.add("reconnects_churn", outcome.reconnects)
    used.add_to(this.report)
    this.report.notes += outcome.notes()


async def _chaos(this: _Run, seconds: float) -> None:
    """Parts die; nothing may be lost, and hardly anything may be late."""
    report, options, sizes = this.report, this.options, this.sizes
    blows = plan(options.seed, seconds=seconds, every_seconds=sizes.blow_seconds)
    options.say(f"{len(blows)} blows in {seconds:g} s")
    chaos = Chaos(this.stack, blows, random.Random(options.seed))
    outcome, _ = await asyncio.gather(this.publish(seconds), chaos.run())
    options.say("waiting until every update is in the log")
    await drain(this.stack, seconds_max=sizes.drain_seconds_max)
    late = await this.load.publish(0, per_second=1, arrive_seconds=ARRIVE_SECONDS_MAX)
    options.say("verifying every delivery")
    this.stack.check()
    dead = {"lost": await this.stack.stored(DEAD_LETTERS)}
    report.faults = merged([await this.load.judge(), dead])
    broken = sum(report.faults.values())
    report.add("broken_invariants", broken, "", BROKEN_GOAL)
    _add_reliability(report, outcome, late, seconds * sizes.connections)
    _add_away(report, [*outcome.away, *late.away], chaos)
    report.add("blows", len(chaos.struck))
    marks = [(at, str(blow)) for at, blow in chaos.struck]
    report.charts.append(soak_chart(outcome, marks, this.rss))


def _add_slopes(report: Report, rss: Mapping[str, list[tuple[float, float]]]) -> None:
    """By how much each role grew, settled: what grows for ever is a leak."""
    slopes: dict[str, tuple[float, float]] = {}
    for role, samples in rss.items():
        settled = samples[len(samples) // 4 :]
        if settled and settled[-1][0] - settled[0][0] >= SETTLED_SECONDS_MIN:
            half = len(settled) // 2
            halves = slope(settled[:half]), slope(settled[half:])
            slopes[role] = slope(settled) * 3600, abs(halves[0] - halves[1]) / 2 * 3600
    if not slopes:
        report.notes.append("too short to say whether memory grows: --set minutes=8 or more")
        return
    steepest = max((role for role in OURS if role in slopes), key=lambda role: slopes[role][0])
    report.add("rss_slope_mib_per_hour", round(slopes[steepest][0], 1), "MiB/h", SLOPE_GOAL)
    for role, (each, scatter) in slopes.items():
        report.add(f"rss_slope_mib_per_hour_{role}", round(each, 1), "MiB/h")
        report.add(f"rss_slope_scatter_{role}", round(scatter, 1), "MiB/h (scatter)")


def _add_reliability(
    report: Report, outcome: Outcome, late: Outcome, client_seconds: float
) -> None:
    latencies = {
        lane: together([one, late.latencies[lane]]) for lane, one in outcome.latencies.items()
    }
    away = sum(one.seconds for one in (*outcome.away, *late.away))
    report.add("reliability", round(1 - away / client_seconds, 5), SHARE, RELIABILITY_GOAL)
    wanted = outcome.published.accepted + len(outcome.published.unknown)
    within = sum(one.share_within(PROMISED_SECONDS) * one.count for one in latencies.values())
    report.add("within_30s", round(within / max(1, wanted), 5), SHARE, WITHIN_GOAL)
    for lane, latency in latencies.items():
        share = round(latency.share_within(PROMISED_SECONDS), 5)
        report.add(f"within_30s_{lane}", share, SHARE)
        for percent in (50, 99, 100):
            name = f"{lane}_p{percent}_seconds" if percent < 100 else f"{lane}_max_seconds"
            report.add(name, round(latency.percentile(percent), 3), "s")
    report.add("published", outcome.published.accepted)
    report.add("unanswered", len(outcome.published.unknown))
    report.add("refused", len(outcome.published.refused))
    report.add("deliveries", outcome.deliveries + late.deliveries)
    report.add("replayed", outcome.replayed + late.replayed)
    report.add("reconnects", outcome.reconnects + late.reconnects)


def _add_away(report: Report, away: Sequence[Away], chaos: Chaos) -> None:
    """Which blows had clients away, and for how long, all of them together."""
    by_blow: dict[str, list[float]] = defaultdict(list)
    for one in away:
        blow = chaos.blow_before(one.since)
        by_blow[f"{blow.deed}_{blow.part}" if blow else "before"].append(one.seconds)
    for name, seconds in sorted(by_blow.items()):
        report.add(f"away_clients_{name}", len(seconds))
        report.add(f"away_seconds_{name}", round(sum(seconds), 1), "s (all clients)")
        report.add(f"away_longest_seconds_{name}", round(max(seconds), 2), "s (longest)")


SCENARIO: Final = Scenario(
    NAME,
    "Clients come and go, then every part is killed, frozen and told to leave, for minutes.",
    run,
    plot="latency under blows, and memory while clients come and go",
)
