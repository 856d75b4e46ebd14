"""One update for a million followers, and the urgent ones behind it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from benchmarks.charts import latency_chart
from benchmarks.drain import drain
from benchmarks.load import Load, Meter, Outcome
from benchmarks.report import Goal, Report
from benchmarks.scenario import Options, Scenario
from benchmarks.stack import Stack
from benchmarks.traffic import Traffic
from benchmarks.units import PER_SECOND
from livefeed.adapters.nats.connection import close
from livefeed.adapters.nats.publish import Publisher

NAME: Final = "followers"
RSS_GOAL: Final = Goal("≤", 256)
"""Of each worker, whatever the audience."""
ACTOR: Final = "author"
FEED: Final = "followed"

_FOLLOW = """
insert into feed_follow (actor, follower)
select $1, 'follower-' || lpad(number::text, 8, '0') from generate_series(1, $2) as number
"""
_REACHED = """
select count(*) as channels, count(*) filter (where seq = 1) as once
from feed_channel where name like 'user:follower-%'
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many follow, and what is published beside it."""

    followers: int = 1_000_000
    connections: int = 200
    per_second: int = 20
    seconds: float = 30.0
    """Of each of the two measurements of the high lane."""
    warm_up_seconds: float = 5.0
    priority: str = "high"
    """Of the large update; high is the worst for those behind it."""
    seconds_max: float = 600.0


QUICK: Final = Sizes(followers=50_000, connections=50, seconds=5.0, warm_up_seconds=2.0)


async def run(options: Options) -> Report:
    """Measure the high lane alone, then right behind an update for everybody who follows."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    high = Traffic(seed=options.seed, users=sizes.connections)
    options.say("starting the servers")
    async with Stack(settings=options.settings(sizes)) as stack:
        options.say(f"{sizes.followers:,} users follow")
        async with stack.database() as pool, pool.connection() as connection:
            await connection.execute(_FOLLOW, ACTOR, sizes.followers, timeout=120)
            await connection.execute("analyze feed_follow")
        await stack.start_pool()
        async with Load(stack, high, connections=sizes.connections) as load:
            options.say("warming up")
            await _high(load, sizes, sizes.warm_up_seconds, recorded=False)
            options.say("the high lane alone")
            idle = await _high(load, sizes, sizes.seconds, recorded=True)
            options.say("the high lane behind the large update")
            meter = Meter(stack, load)
            await _publish(stack, sizes)
            # It ends at the first moment at which nothing waits, which is not before the last page.
            draining = asyncio.create_task(drain(stack, seconds_max=sizes.seconds_max))
            busy = await _high(load, sizes, sizes.seconds, recorded=True)
            used = meter.read()
            options.say("waiting for the last followers")
            drained = await draining
            report.faults = await load.judge()
        await _verify(stack, sizes, report)
    report.add("seconds", round(drained.seconds, 1), "s")
    rate = round(sizes.followers / drained.seconds)
    report.add("deliveries_per_second", rate, PER_SECOND)
    report.add("worker_rss_max_mib", drained.rss_max_mib, "MiB", RSS_GOAL)
    _add_latencies(report, idle, busy)
    used.add_to(report)
    report.notes += busy.notes()
    report.charts.append(latency_chart("High beside an update for everybody who follows", busy))
    return report


async def _high(load: Load, sizes: Sizes, seconds: float, *, recorded: bool) -> Outcome:
    count = round(seconds * sizes.per_second)
    return await load.publish(
        count, per_second=sizes.per_second, recorded=recorded, uneven=True, arrive_seconds=60
    )


async def _publish(stack: Stack, sizes: Sizes) -> None:
    update = {
        "updateId": "the-large-one",
        "audience": {"followers": ACTOR},
        "feedType": FEED,
        "updateType": "new_content",
        "content": {"id": "p1", "text": "x" * 200},
        "timestamp": datetime.now(UTC).isoformat(),
    }
    connection = await stack.connect("livefeed-bench")
    try:
        publisher = Publisher(connection)
        publisher.start()
        subject = f"feed.updates.{sizes.priority}.bench"
        await publisher.publish(subject, json.dumps(update).encode())
    finally:
        await close(connection)


async def _verify(stack: Stack, sizes: Sizes, report: Report) -> None:
    """Every follower has it, once, and nobody else has."""
    async with stack.database() as pool:
        (row,) = await pool.fetch(_REACHED)
    report.faults["lost"] += max(0, sizes.followers - row["channels"])
    report.faults["foreign"] += max(0, row["channels"] - sizes.followers)
    report.faults["doubled"] += row["channels"] - row["once"]


def _add_latencies(report: Report, idle: Outcome, busy: Outcome) -> None:
    for percent in (50, 99):
        alone = idle.latency.percentile(percent) * 1e3
        behind = busy.latency.percentile(percent) * 1e3
        report.add(f"high_p{percent}_idle_ms", round(alone, 3), "ms")
        report.add(f"high_p{percent}_ms", round(behind, 3), "ms")
    report.add("high_max_ms", round(busy.latency.maximum * 1e3, 3), "ms")


SCENARIO: Final = Scenario(
    NAME,
    "One update for a million followers, and the urgent ones behind it.",
    run,
    plot="latency over time",
)
