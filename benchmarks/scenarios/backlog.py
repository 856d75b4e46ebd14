"""How fast a backlog is worked off by workers that start from none, and that the log is exact."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from benchmarks.comparison import compare
from benchmarks.corpus import PAST_SECONDS, Corpus
from benchmarks.drain import Drained, drain
from benchmarks.flood import Flood, Flooded, flood
from benchmarks.load import Meter
from benchmarks.load_process import LoadProcess
from benchmarks.reference import Reference
from benchmarks.report import Goal, Report
from benchmarks.scenario import SHORT_WINDOWS, Options, Scenario
from benchmarks.stack import Stack
from benchmarks.units import PER_SECOND

NAME: Final = "backlog"
UPDATES_GOAL: Final = Goal("≥", 10_000)
DELIVERIES_GOAL: Final = Goal("≥", 40_000)
GROWTH_GOAL: Final = Goal("≤", 16)
"""MiB: what one large flush more or less is; a leak of 100 bytes an update would be far above."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much waits, and who works it off."""

    updates: int = 1_000_000
    users: int = 50_000
    items: int = 12
    """Of each user: few enough that most updates speak of one that others speak of too."""
    wide_updates: int = 5_000
    wide_audience: int = 1_000
    wide_users: int = 50_000
    wide_items: int = 60
    processes: int = 1
    """Workers of each function at most."""
    rest_seconds: float = 21.0
    """Between the last publish and the pool's start: no window is open for what is older."""
    seconds_max: float = 900.0
    """A drain that takes longer fails."""


QUICK: Final = Sizes(
    updates=40_000,
    users=2_000,
    wide_updates=200,
    wide_users=4_000,
    wide_items=20,
    rest_seconds=SHORT_WINDOWS["window_low_seconds"] + 0.5,
    seconds_max=120,
)


@dataclass(frozen=True, slots=True)
class _Part:
    """One of the two backlogs; `suffix` ends the names of its figures."""

    corpus: Corpus
    updates: int
    suffix: str = ""


async def run(options: Options) -> Report:
    """Work off many updates for one user each, then few for many users each."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    seed, began_at = options.seed, int(time.time()) - PAST_SECONDS
    narrow = Corpus(seed, sizes.users, sizes.items, 1, began_at)
    wide = Corpus(seed, sizes.wide_users, sizes.wide_items, sizes.wide_audience, began_at, "wide")
    report = Report(NAME)
    drained = await _work_off(_Part(narrow, sizes.updates), sizes, options, report)
    if drained.rss_growth_mib is None:
        report.notes.append("no worker ran for long enough to see its memory grow")
    else:
        report.add("worker_rss_growth_mib", drained.rss_growth_mib, "MiB", GROWTH_GOAL)
    await _work_off(_Part(wide, sizes.wide_updates, "_wide"), sizes, options, report)
    report.add("processes", sizes.processes)
    return report


async def _work_off(part: _Part, sizes: Sizes, options: Options, report: Report) -> Drained:
    """Publish with no pool, start one, wait until nothing is left, compare the log."""
    count = part.updates
    options.say("starting the servers")
    settings = options.settings(sizes, quick=SHORT_WINDOWS)
    async with Stack(settings=settings) as stack:
        options.say(f"publishing {count:,} updates")
        async with LoadProcess(flood, stack.nats_url, part.corpus) as publisher:
            publisher.send(Flood(0, count))
            flooded: Flooded = await publisher.receive(timeout_seconds=sizes.seconds_max)
        options.say("letting the backlog age")
        await asyncio.sleep(sizes.rest_seconds)
        options.say(f"working off {count:,} updates")
        meter = Meter(stack)
        await stack.start_pool(worker_processes_max=sizes.processes)
        drained = await drain(stack, seconds_max=sizes.seconds_max)
        used = meter.read()
        _add_figures(report, part, drained, flooded)
        used.add_to(report, part.suffix)
        options.say("comparing the log with the model")
        await compare(stack, Reference(part.corpus, range(count)), report, part.suffix)
    return drained


def _add_figures(report: Report, part: _Part, drained: Drained, flooded: Flooded) -> None:
    count, suffix = part.updates, part.suffix
    deliveries = count * part.corpus.audience
    if suffix:
        rate = round(deliveries / drained.seconds)
        report.add(f"deliveries_per_second{suffix}", rate, PER_SECOND, DELIVERIES_GOAL)
    else:
        rate = round(count / drained.seconds)
        report.add("updates_per_second", rate, PER_SECOND, UPDATES_GOAL)
    report.add(f"seconds{suffix}", round(drained.seconds, 2), "s")
    report.add(f"worker_rss_max_mib{suffix}", drained.rss_max_mib, "MiB")
    report.add(f"published_per_second{suffix}", round(count / flooded.seconds), PER_SECOND)


SCENARIO: Final = Scenario(
    NAME, "A backlog worked off from no worker: one user an update, then a thousand.", run
)
