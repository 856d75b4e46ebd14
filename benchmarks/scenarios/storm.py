"""How long it takes until all are caught up again after every connection broke at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benchmarks.drain import drain
from benchmarks.load import Load, Meter
from benchmarks.report import Goal, Report
from benchmarks.scenario import Options, Scenario
from benchmarks.stack import Stack
from benchmarks.traffic import Traffic

NAME: Final = "storm"
CAUGHT_UP_GOAL: Final = Goal("≤", 8)
SETTLE_SECONDS_MAX: Final = 180.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """Who is cut, and what is missed."""

    connections: int = 10_000
    gateways: int = 1
    """Processes that the clients are spread over."""
    missed: int = 10
    """Updates of each client, on average, while it is away."""
    per_second: int = 4_000
    spread_seconds: float = 0.5
    """Over which the clients come back: the first bound of the protocol."""
    seconds_max: float = 120.0


QUICK: Final = Sizes(connections=300, per_second=1_000, seconds_max=30.0)


async def run(options: Options) -> Report:
    """Cut all clients, publish what they miss, and let them come back."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    traffic = Traffic(seed=options.seed, users=sizes.connections)
    options.say("starting the servers")
    async with Stack(gateways=sizes.gateways, settings=options.settings(sizes)) as stack:
        await stack.start_pool()
        options.say(f"connecting {sizes.connections:,} clients")
        async with Load(stack, traffic, connections=sizes.connections) as load:
            report.add("connect_seconds", round(load.connect_seconds, 2), "s")
            load.cut()
            missed = sizes.connections * sizes.missed
            options.say(f"publishing {missed:,} updates that nobody hears of")
            await load.publish(missed, per_second=sizes.per_second, arrive_seconds=0)
            await drain(stack, seconds_max=SETTLE_SECONDS_MAX)
            options.say("all of them come back")
            meter = Meter(stack, load)
            back = await load.come_back(
                spread_seconds=sizes.spread_seconds, seconds_max=sizes.seconds_max
            )
            used = meter.read()
            report.add("caught_up_seconds", round(back.maximum, 2), "s", CAUGHT_UP_GOAL)
            report.add("caught_up_p50_seconds", round(back.percentile(50), 2), "s")
            used.add_to(report)
            options.say("verifying every delivery")
            outcome = await load.publish(0, per_second=1)
            report.add("replayed", outcome.replayed)
            report.faults = await load.judge()
    report.add("gateways", sizes.gateways)
    return report


SCENARIO: Final = Scenario(
    NAME, "Every client cut at once; until all are caught up with what they missed.", run
)
