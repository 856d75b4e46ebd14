"""How fast a backlog is worked off by workers that start from none, and that the log is exact."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from benchmarks.corpus import Corpus
from benchmarks.drain import Drained, drain
from benchmarks.flood import Flood, Flooded, flood
from benchmarks.load import Meter
from benchmarks.load_process import LoadProcess
from benchmarks.log_reader import channels
from benchmarks.reference import Reference
from benchmarks.report import Goal, Report, merged
from benchmarks.scenario import Options, Scenario
from benchmarks.stack import Stack
from livefeed.adapters.nats.connection import close

NAME: Final = "backlog"
UPDATES_GOAL: Final = Goal("≥", 10_000)
DELIVERIES_GOAL: Final = Goal("≥", 40_000)
GROWTH_GOAL: Final = Goal("≤", 16)
"""MiB: what one large flush more or less is; a leak of 100 bytes an update would be far above."""
PAST_SECONDS: Final = 2 * 3600
"""How long ago the first update says that it was; no update may be ahead of the clock."""


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
    updates=40_000, users=2_000, wide_updates=200, wide_users=4_000, wide_items=20, seconds_max=120
)


async def run(options: Options) -> Report:
    """Work off many updates for one user each, then few for many users each."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    began_at = int(time.time()) - PAST_SECONDS
    narrow = Corpus(options.seed, sizes.users, sizes.items, 1, began_at)
    wide = Corpus(
        options.seed, sizes.wide_users, sizes.wide_items, sizes.wide_audience, began_at, "wide"
    )
    drained = await _work_off(narrow, sizes.updates, "", sizes, options, report)
    report.add("updates_per_second", round(sizes.updates / drained.seconds), "", UPDATES_GOAL)
    if drained.rss_growth_mib is None:
        report.notes.append("no worker ran for long enough to see its memory grow")
    else:
        report.add("worker_rss_growth_mib", drained.rss_growth_mib, "MiB", GROWTH_GOAL)
    report.add("worker_rss_max_mib", drained.rss_max_mib, "MiB")
    drained = await _work_off(wide, sizes.wide_updates, "_wide", sizes, options, report)
    deliveries = sizes.wide_updates * sizes.wide_audience
    report.add(
        "deliveries_per_second_wide", round(deliveries / drained.seconds), "", DELIVERIES_GOAL
    )
    report.add("worker_rss_max_mib_wide", drained.rss_max_mib, "MiB")
    report.add("processes", sizes.processes)
    report.add("seed", options.seed)
    return report


async def _work_off(
    corpus: Corpus, count: int, suffix: str, sizes: Sizes, options: Options, report: Report
) -> Drained:
    """Publish with no pool, start one, wait until nothing is left, compare the log."""
    options.say("starting the servers")
    async with Stack(settings=options.settings(sizes)) as stack:
        connection = await stack.connect("livefeed-bench")
        options.say(f"publishing {count:,} updates")
        async with LoadProcess(flood, stack.nats_url, corpus) as publisher:
            publisher.send(Flood(0, count))
            flooded: Flooded = await publisher.receive(timeout_seconds=sizes.seconds_max)
        report.add(f"published_per_second{suffix}", round(count / flooded.seconds))
        options.say("letting the backlog age")
        await asyncio.sleep(sizes.rest_seconds)
        options.say(f"working off {count:,} updates")
        meter = Meter(stack)
        await stack.start_pool(worker_processes_max=sizes.processes)
        drained = await drain(stack, connection, seconds_max=sizes.seconds_max)
        percent = meter.percent()
        report.add(f"seconds{suffix}", round(drained.seconds, 2), "s")
        for role, value in percent.items():
            report.add(f"cpu_percent_{role}{suffix}", value, "% of a core")
        report.notes += meter.notes(percent)
        options.say("comparing the log with the model")
        await compare(stack, Reference(corpus, range(count)), report, suffix)
        await close(connection)
    return drained


async def compare(stack: Stack, reference: Reference, report: Report, suffix: str = "") -> None:
    """Read the whole log, and add what is wrong with it to the report."""
    async with stack.database() as pool:
        async for channel in channels(pool):
            reference.compare(channel)
    findings = reference.finish()
    report.faults = merged([report.faults, findings.faults])
    report.notes += findings.examples
    report.add(f"entries{suffix}", findings.entries)
    stack.keep |= any(findings.faults.values())


SCENARIO: Final = Scenario(
    NAME, "A backlog worked off from no worker: one user an update, then a thousand.", run
)
