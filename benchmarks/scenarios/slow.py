"""Whether clients that do not read, or that nobody looks at, are a problem for the others."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass, field
from typing import Final

from benchmarks.crowd import Manner
from benchmarks.load import Load, Meter, Outcome, Used
from benchmarks.load_process import LoadProcess
from benchmarks.measure import growth
from benchmarks.publisher import Burst, publish
from benchmarks.report import Goal, Report, merged
from benchmarks.scenario import Options, Scenario
from benchmarks.stack import Stack
from benchmarks.traffic import Traffic
from benchmarks.units import RATIO
from livefeed.limits import MIB

NAME: Final = "slow"
RATIO_GOAL: Final = Goal("≤", 1.1)
GROWTH_GOAL: Final = Goal("≤", 4)
FRAMES_GOAL: Final = Goal("≤", 10)
MANNERS: Final[tuple[Manner, ...]] = ("stalls", "trickles", "reads", "hides")
"""Of the clients that are told of much: one never reads, one reads a byte a second, one reads all,
and the others are hidden tabs of the same users."""
SLOW_USERS: Final = 3
SAMPLE_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Sizes:
    """Normal clients, hidden tabs, and what is published for both."""

    connections: int = 1_000
    per_second: int = 700
    hidden: int = 100
    slow_per_second: int = 300
    """Of their three users together."""
    seconds: float = 20.0
    """Of each measurement."""
    rounds: int = 3
    """How often they are measured without the others and then with them; at last without."""
    warm_up_seconds: float = 5.0


QUICK: Final = Sizes(
    connections=50,
    per_second=50,
    hidden=10,
    slow_per_second=100,
    seconds=6.0,
    rounds=1,
    warm_up_seconds=2.0,
)


@dataclass(slots=True)
class Beside:
    """What was measured beside the others, round by round."""

    outcomes: list[Outcome] = field(default_factory=list)
    growth_mib: list[float] = field(default_factory=list)
    frames_a_second: list[int] = field(default_factory=list)
    deliveries: int = 0
    reconnects: int = 0
    faults: list[dict[str, int]] = field(default_factory=list)
    used: Used | None = None
    """Of the last round."""
    notes: list[str] = field(default_factory=list)


async def run(options: Options) -> Report:
    """Measure normal clients without the others and with them, in turns."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    normal = Traffic(seed=options.seed, users=sizes.connections)
    options.say("starting the servers")
    settings = {"connections_per_user_max": sizes.hidden + SLOW_USERS, **options.settings(sizes)}
    async with Stack(settings=settings) as stack:
        await stack.start_pool()
        options.say(f"connecting {sizes.connections:,} clients")
        async with Load(stack, normal, connections=sizes.connections) as load:
            options.say("warming up")
            await _publish(load, sizes, sizes.warm_up_seconds, recorded=False)
            without, beside = [], Beside()
            for number in range(sizes.rounds):
                without.append(await _without(stack, load, sizes, options, number))
                await _with(stack, load, sizes, options, beside)
            without.append(await _without(stack, load, sizes, options, sizes.rounds))
            options.say("verifying every delivery")
            report.faults = merged([*beside.faults, await load.judge()])
    _add_beside(report, beside)
    _add_latencies(report, without, beside.outcomes)
    return report


async def _without(
    stack: Stack, load: Load, sizes: Sizes, options: Options, number: int
) -> Outcome:
    """The normal clients, while as much is published for users who are not there."""
    options.say("without slow clients")
    nobody = Traffic(seed=-1 - number, users=SLOW_USERS)
    count = round(sizes.seconds * sizes.slow_per_second)
    async with LoadProcess(publish, stack.nats_url, nobody) as background:
        background.send(Burst(0, count, sizes.slow_per_second, recorded=False))
        outcome = await _publish(load, sizes, sizes.seconds, recorded=True)
        await background.receive()
    return outcome


async def _with(stack: Stack, load: Load, sizes: Sizes, options: Options, beside: Beside) -> None:
    """The normal clients beside the others, and the faults of the others."""
    options.say("connecting slow clients and hidden tabs")
    number = len(beside.outcomes)
    traffic = Traffic(seed=1_000 * (number + 1) + options.seed, users=SLOW_USERS)
    async with Load(stack, traffic, connections=SLOW_USERS + sizes.hidden, manners=MANNERS) as slow:
        options.say("with them")
        meter = Meter(stack, load, slow)
        sampling = asyncio.create_task(_memory(stack))
        count = round(sizes.seconds * sizes.slow_per_second)
        busy, slow_outcome = await asyncio.gather(
            _publish(load, sizes, sizes.seconds, recorded=True),
            # Half of these clients do not take what comes: nobody waits for them yet.
            slow.publish(count, per_second=sizes.slow_per_second, arrive_seconds=0.1),
        )
        beside.used = meter.read()
        sampling.cancel()
        beside.growth_mib.append(_growth(await sampling))
        slow.behave()
        outcome = await slow.publish(0, per_second=1, arrive_seconds=60)
        beside.faults.append(await slow.judge())
    beside.outcomes.append(busy)
    beside.frames_a_second.append(slow_outcome.frames_a_second)
    beside.deliveries += slow_outcome.deliveries + outcome.deliveries
    beside.reconnects += slow_outcome.reconnects + outcome.reconnects
    beside.notes += [*busy.notes(), *beside.used.notes()]


def _add_beside(report: Report, beside: Beside) -> None:
    report.add("gateway_rss_growth_mib", max(beside.growth_mib), "MiB", GROWTH_GOAL)
    report.add("frames_a_second_max", max(beside.frames_a_second), "", FRAMES_GOAL)
    report.add("slow_deliveries", beside.deliveries)
    report.add("slow_reconnects", beside.reconnects)
    report.notes += list(dict.fromkeys(beside.notes))
    if beside.used is not None:
        beside.used.add_to(report)


async def _memory(stack: Stack) -> list[float]:
    """The gateway's resident bytes, twice a second, until cancelled."""
    samples: list[float] = []
    try:
        while True:
            samples.append(float(stack.usage()["gateway"].rss_bytes))
            await asyncio.sleep(SAMPLE_SECONDS)
    except asyncio.CancelledError:
        return samples


async def _publish(load: Load, sizes: Sizes, seconds: float, *, recorded: bool) -> Outcome:
    count = round(seconds * sizes.per_second)
    return await load.publish(count, per_second=sizes.per_second, recorded=recorded)


def _growth(samples: list[float]) -> float:
    return round((growth(samples) or 0.0) / MIB, 2)


def _add_latencies(report: Report, without: list[Outcome], beside: list[Outcome]) -> None:
    for percent in (99, 50):
        alone, together = (
            statistics.median(one.latency.percentile(percent) * 1e3 for one in outcomes)
            for outcomes in (without, beside)
        )
        goal = RATIO_GOAL if percent == 99 else None
        report.add(f"p{percent}_ratio", round(together / alone, 3), RATIO, goal)
        report.add(f"p{percent}_without_ms", round(alone, 3), "ms")
        report.add(f"p{percent}_with_ms", round(together, 3), "ms")


SCENARIO: Final = Scenario(
    NAME, "Normal clients beside some that never read and many that nobody looks at.", run
)
