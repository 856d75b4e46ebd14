"""A week of a feed's traffic against the log, in minutes: its tables have to stop growing.

What is written goes through the real `Log`, and the real retention takes it away, at bounds that
are as much shorter as the week is. The same traffic is written to two databases of one server in
turn: one as migrated, one with the storage settings that Postgres would take by itself.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Final

from benchmarks.chart import svg
from benchmarks.database_sizes import Sample, growth, sizes_and_counts, sizes_chart
from benchmarks.measure import usage_of_postgres
from benchmarks.report import Goal, Report
from benchmarks.scenario import Options, Scenario
from benchmarks.units import RATIO
from benchmarks.week_traffic import Flush, Traffic
from livefeed.adapters.embedded import PostgresServer, free_port
from livefeed.adapters.postgres.log import Log
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.retention import Bounds, only_one
from livefeed.adapters.postgres.schema import migrate
from livefeed.limits import MIB

NAME: Final = "week"
DAYS: Final = 7
SAMPLE_HOURS: Final = 6
TRIM_HOURS: Final = 1
COLLECT_HOURS: Final = 3
LEVEL_DAYS: Final = 2
"""Over how many days, at the end, nothing may grow."""

# A day is seconds here, so what Postgres spreads over minutes has to be let go.
COMPRESSED: Final = {"autovacuum_naptime": "1s", "autovacuum_vacuum_cost_delay": "0"}

_VACUUM: Final = "autovacuum_vacuum_scale_factor, autovacuum_vacuum_insert_scale_factor"
PLAIN: Final = (
    "alter table feed_channel reset (fillfactor, autovacuum_vacuum_scale_factor)",
    f"alter table feed_entry reset ({_VACUUM})",
    f"alter table feed_body reset ({_VACUUM})",
)
"""Takes back what migration 0003 sets."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much happens, and how fast."""

    users: int = 2_000
    events: int = 800
    """Updates in an hour."""
    day_seconds: float = 24.0
    items_max: int = 100
    age_days: float = 3.0
    flush_rows: int = 1_000
    folder: str = ""
    """Where `week.svg` and `week.json` are written; empty is nowhere."""


QUICK: Final = Sizes(users=200, events=120, day_seconds=3.0, flush_rows=300)


@dataclass(slots=True)
class Arm:
    """One of the databases."""

    name: str
    pool: Pool
    log: Log
    samples: list[Sample] = field(default_factory=list)
    flush_seconds: list[float] = field(default_factory=list)
    rows: int = 0
    wal_bytes: int = 0

    async def write(self, flush: Flush) -> None:
        """Persist, timed, with what it adds to the WAL."""
        before = await self._wal()
        began_at = time.perf_counter()
        await self.log.persist(flush.entries, flush.bodies)
        self.flush_seconds.append(time.perf_counter() - began_at)
        self.wal_bytes += await self._wal() - before
        self.rows += len(flush.entries)

    async def retain(self, bounds: Bounds, *, collects: bool) -> None:
        """Trim every channel once, and collect bodies if it is time."""
        async with only_one(self.pool, bounds) as retention:
            assert retention is not None, "nobody else is here"
            after: int | None = 0
            while after is not None:
                after = (await retention.trim(after)).last_id
            if collects:
                async with aclosing(retention.collect()) as steps:
                    async for _ in steps:
                        pass

    async def sample(self, hours: float) -> None:
        """Look at the tables, and at the flushes since the last look."""
        sizes, counts = await sizes_and_counts(self.pool)
        cuts = quantiles(self.flush_seconds, n=100) if len(self.flush_seconds) > 1 else [0.0] * 99
        wal = self.wal_bytes / max(1, self.rows)
        p50, p99 = cuts[49] * 1000, cuts[98] * 1000
        self.samples.append(Sample(hours, sizes, counts, p50, p99, wal))
        self.flush_seconds, self.rows, self.wal_bytes = [], 0, 0

    async def _wal(self) -> int:
        position = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint as bytes"
        return int((await self.pool.fetch(position))[0]["bytes"])


async def run(options: Options) -> Report:
    """Write the week to both, and compare."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    options.say("starting PostgreSQL")
    async with arms({"default": PLAIN, "as migrated": ()}) as (both, server):
        await live(both, sizes, options)
        if sizes.folder:
            await asyncio.to_thread(_keep, Path(sizes.folder), both)
        _report(report, both)
        used = usage_of_postgres(server.pid)
    report.add("cpu_seconds_postgres", round(used.cpu_seconds, 1), "s")
    report.add("rss_mib_postgres", round(used.rss_bytes / MIB, 1), "MiB")
    report.charts.append(sizes_chart({arm.name: arm.samples for arm in both}))
    return report


@asynccontextmanager
async def arms(
    changes: dict[str, Sequence[str]],
) -> AsyncIterator[tuple[list[Arm], PostgresServer]]:
    """Migrated databases of one server, each with its changes; and the server."""
    with tempfile.TemporaryDirectory(prefix="livefeed-", ignore_cleanup_errors=True) as folder:
        place = Path(folder) / "postgres"
        server = PostgresServer(place, port=free_port(), settings=COMPRESSED)
        await server.start()
        made: list[Arm] = []
        try:
            for number, (name, statements) in enumerate(changes.items()):
                await server.sql(f"create database week_{number}")
                url = f"{server.url.rpartition('/')[0]}/week_{number}"
                await migrate(url)
                pool = Pool(
                    url,
                    dependency="primary",
                    connections_max=2,
                    timeout_seconds=30,
                    application="livefeed-bench",
                )
                for statement in statements:
                    await pool.fetch(statement)
                made.append(Arm(name, pool, Log(pool)))
            yield made, server
        finally:
            for arm in made:
                await arm.pool.close()
            await server.stop()


async def live(both: Sequence[Arm], sizes: Sizes, options: Options) -> None:
    """Let the week pass; an hour takes as long as it has to, but not less than its share."""
    traffic = Traffic(
        options.seed, users=sizes.users, events=sizes.events, rows_max=sizes.flush_rows
    )
    began_at: list[float] = []
    for hour in range(DAYS * 24):
        began_at.append(time.monotonic())
        ends_at = began_at[hour] + sizes.day_seconds / 24
        options.say(f"day {hour // 24 + 1} of {DAYS}")
        for flush in traffic.hour(hour, accepted_at=time.time_ns() // 1000):
            # Now one first, now the other: what wakes up meanwhile shall not always meet the same.
            for arm in both if hour % 2 else reversed(both):
                await arm.write(flush)
        bounds = bounds_now(began_at, sizes)
        for arm in both:
            if (hour + 1) % TRIM_HOURS == 0:
                await arm.retain(bounds, collects=(hour + 1) % COLLECT_HOURS == 0)
            if (hour + 1) % SAMPLE_HOURS == 0:
                await arm.sample(hour + 1)
        await asyncio.sleep(max(0.0, ends_at - time.monotonic()))


def bounds_now(began_at: Sequence[float], sizes: Sizes) -> Bounds:
    """The bounds in seconds, so that an hour of the week is one however long it took to write."""
    now = time.monotonic()
    hour = now - began_at[-1]
    oldest = began_at[max(0, len(began_at) - round(sizes.age_days * 24))]
    return Bounds(
        items_max=sizes.items_max,
        age_seconds_max=now - oldest,
        settled_seconds=hour,
        body_age_seconds_min=hour,
    )


def _report(report: Report, both: Iterable[Arm]) -> None:
    plain, chosen = both
    report.add("growth", growth(chosen.samples, LEVEL_DAYS * 24), RATIO, Goal("≤", 1.1))
    for arm in (chosen, plain):
        name = arm.name.replace(" ", "_")
        # What Postgres would do by itself is a reference.
        of = "" if arm is chosen else f" ({name})"
        last = arm.samples[-1]
        report.add(f"{name}_mib", last.bytes / MIB, f"MiB{of}")
        for table, counts in last.counts.items():
            report.add(f"{name}_{table}_hot", counts["hot"] / max(1, counts["updated"]))
            report.add(f"{name}_{table}_dead", counts["dead"] / max(1, counts["live"]))
        report.add(f"{name}_wal_bytes_per_row", _mean(s.wal_bytes_per_row for s in arm.samples))
        report.add(f"{name}_flush_p50_ms", _mean(s.flush_p50_ms for s in arm.samples), f"ms{of}")
        report.add(f"{name}_flush_p99_ms", _mean(s.flush_p99_ms for s in arm.samples), f"ms{of}")
    report.add("size_ratio", chosen.samples[-1].bytes / plain.samples[-1].bytes, RATIO)
    for what in ("wal_bytes_per_row", "flush_p50_ms"):
        one, other = (_mean(getattr(s, what) for s in arm.samples) for arm in (chosen, plain))
        report.add(f"{what}_ratio", one / other, RATIO)


def _mean(values: Iterable[float]) -> float:
    """Of the second half of the week, when all channels are full."""
    found = list(values)[DAYS * 24 // SAMPLE_HOURS // 2 :]
    return sum(found) / len(found)


def _keep(folder: Path, both: Iterable[Arm]) -> None:
    samples = {arm.name: arm.samples for arm in both}
    (folder / "week.svg").write_text(svg(sizes_chart(samples)), encoding="utf-8")
    text = json.dumps({name: [one._asdict() for one in s] for name, s in samples.items()})
    (folder / "week.json").write_text(text, encoding="utf-8")


SCENARIO: Final = Scenario(
    NAME,
    "A week of traffic against the log, in minutes: its tables stop growing.",
    run,
    plot="sizes over days",
)
