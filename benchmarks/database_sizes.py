"""How large the log's tables and indexes are, and how they are written; and a chart of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from benchmarks.chart import Chart, Line, Panel
from livefeed.adapters.postgres.pool import Pool
from livefeed.limits import MIB

TABLES: Final = ("feed_entry", "feed_channel", "feed_body")

_SIZES: Final = """
select relation.relname as name, pg_relation_size(relation.oid) as bytes
from pg_class relation where relation.relname = any($1::text[])
union all
select index.relname, pg_relation_size(index.oid)
from pg_index join pg_class index on index.oid = indexrelid
join pg_class relation on relation.oid = indrelid where relation.relname = any($1::text[])
union all
select relation.relname || '_toast', pg_total_relation_size(relation.reltoastrelid)
from pg_class relation where relation.relname = any($1::text[]) and reltoastrelid <> 0
"""

_COUNTS: Final = """
select relname as name, n_live_tup as live, n_dead_tup as dead, n_tup_upd as updated,
    n_tup_hot_upd as hot, autovacuum_count as vacuums
from pg_stat_user_tables where relname = any($1::text[])
"""


class Sample(NamedTuple):
    """The tables at one moment."""

    hours: float
    sizes: dict[str, int]
    """Bytes by table, index, and `<table>_toast`."""
    counts: dict[str, dict[str, int]]
    """By table: live and dead rows, updates so far, those that were HOT, vacuums so far."""
    flush_p50_ms: float
    flush_p99_ms: float
    wal_bytes_per_row: float

    @property
    def bytes(self) -> int:
        """All of it."""
        return sum(self.sizes.values())


async def sizes_and_counts(pool: Pool) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """What Postgres says of the log's tables now."""
    sizes = {row["name"]: row["bytes"] for row in await pool.fetch(_SIZES, TABLES)}
    rows = await pool.fetch(_COUNTS, TABLES)
    counts = {row["name"]: {key: row[key] for key in list(row.keys())[1:]} for row in rows}
    return sizes, counts


def growth(samples: Sequence[Sample], hours: float) -> float:
    """How much larger than at the same hour of the day some time ago; 1 is level."""
    last = samples[-1]
    before = min(samples, key=lambda sample: abs(last.hours - hours - sample.hours))
    return last.bytes / before.bytes


def sizes_chart(arms: Mapping[str, Sequence[Sample]]) -> Chart:
    """MiB over days: a line for each arm, whole, and dashed for its table feed_entry."""
    lines: list[Line] = []
    for name, samples in arms.items():
        whole = [(sample.hours / 24, sample.bytes / MIB) for sample in samples]
        entries = [(sample.hours / 24, sample.sizes["feed_entry"] / MIB) for sample in samples]
        lines += [Line(name, whole), Line(f"{name}, feed_entry", entries, dashed=True)]
    ends = ", ".join(f"{name} {samples[-1].bytes / MIB:.1f}" for name, samples in arms.items())
    description = f"The size of the log's tables and indexes over days, at the end: {ends} MiB."
    return Chart("The log over a week", description, [Panel("Size, MiB", "days", lines)])
