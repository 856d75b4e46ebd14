"""How large the log's tables and indexes are, and how they are written; and a plot of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

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


def plot(arms: Mapping[str, Sequence[Sample]]) -> str:
    """An SVG of MiB over days: a line for each arm, whole and dashed for its table feed_entry."""
    width, height, left, bottom = 720, 320, 60, 40
    top = max(sample.bytes for samples in arms.values() for sample in samples) * 1.1
    hours = max(samples[-1].hours for samples in arms.values())

    def point(sample_hours: float, size: float) -> str:
        x = left + sample_hours / hours * (width - left - 20)
        y = height - bottom - size / top * (height - bottom - 20)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for day in range(round(hours / 24) + 1):
        x, y = point(day * 24, 0).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 18}" text-anchor="middle">day {day}</text>')
    for step in range(5):
        size = top / 5 * (step + 1)
        x, y = point(0, size).split(",")
        parts.append(f'<path d="M{x},{y} H{width - 20}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y}" text-anchor="end">{size / MIB:.0f} MiB</text>')
    for (name, samples), color in zip(arms.items(), ("#888", "#06c", "#c60", "#090"), strict=False):
        parts += _lines(name, samples, color, point)
    return "\n".join([*parts, "</svg>", ""])


def _lines(name: str, samples: Sequence[Sample], color: str, point: Any) -> list[str]:
    whole = " ".join(point(sample.hours, sample.bytes) for sample in samples)
    entries = " ".join(point(sample.hours, sample.sizes["feed_entry"]) for sample in samples)
    x, y = point(samples[-1].hours, samples[-1].bytes).split(",")
    line = '<polyline fill="none" stroke-width="2" stroke="{}" {} points="{}"/>'
    return [
        line.format(color, "", whole),
        line.format(color, 'stroke-dasharray="4 4"', entries),
        f'<text x="{x}" y="{float(y) - 8}" text-anchor="end" fill="{color}">{name}</text>',
    ]
