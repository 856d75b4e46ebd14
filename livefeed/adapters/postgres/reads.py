"""The read side of the keyed log: catch-up pages and heads.

Each page is one statement, so epoch, floor, head and rows are of one moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import asyncpg

from livefeed.adapters.postgres.pool import Pool
from livefeed.errors import Unavailable
from livefeed.limits import PAGE_BYTES_MAX, PAGE_ENTRIES_MAX


class StoredUpdate(NamedTuple):
    """One entry with its body."""

    seq: int
    facet: int
    kind: int
    rank: float | None
    born: int
    body: bytes


@dataclass(slots=True)
class Page:
    """What a channel holds after a position."""

    channel: str
    epoch: str
    head: int
    floor: int
    end: int
    """The position that a reader of this page has reached."""
    more: bool
    """Whether there are entries after `end`."""
    updates: list[StoredUpdate] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Heads:
    """Heads and floors of some channels at one moment; a channel that does not exist is at 0."""

    epoch: str
    heads: Mapping[str, int]
    floors: Mapping[str, int]


_PAGES = """
select wanted.number, wanted.name, epoch.epoch, coalesce(channel.seq, 0) as head,
    coalesce(channel.floor, 0) as floor, page.*
from unnest($1::text[], $2::bigint[], $4::bigint[])
    with ordinality as wanted (name, position, bytes_max, number)
cross join feed_epoch epoch
left join feed_channel channel on channel.name = wanted.name
left join lateral (
    select entry.seq, entry.facet, entry.kind, entry.rank, entry.born, body.body,
        count(*) over () as available,
        row_number() over (order by entry.seq) as place,
        sum(octet_length(body.body)) over (order by entry.seq) as bytes
    from (
        select * from feed_entry
        where channel_id = channel.id and seq > greatest(wanted.position, channel.floor)
        order by seq limit $3
    ) as entry
    join feed_body body on body.ref = entry.ref
) as page on page.place = 1 or page.bytes <= wanted.bytes_max
order by wanted.number, page.seq
"""

_HEADS = """
select channel.name, channel.seq, channel.floor, epoch.epoch
from feed_epoch epoch left join feed_channel channel on channel.name = any($1::text[])
"""


async def read_pages(
    pool: Pool,
    positions: Sequence[tuple[str, int]],
    *,
    entries_max: int = PAGE_ENTRIES_MAX,
    bytes_max: int | Sequence[int] = PAGE_BYTES_MAX,
) -> list[Page]:
    """The next page of each channel after its position, in the order asked.

    Args:
        pool: Of the primary or the replica.
        positions: Channels and where to begin in each.
        entries_max: Most entries of one page.
        bytes_max: Most bytes of a page, or of each of them.

    Raises:
        Unavailable: The server is away, or its schema is missing.
    """
    names = [name for name, _ in positions]
    starts = [position for _, position in positions]
    shares = [bytes_max] * len(names) if isinstance(bytes_max, int) else list(bytes_max)
    rows = await _fetch(pool, _PAGES, names, starts, entries_max, shares)
    grouped = [list(group) for _, group in groupby(rows, key=lambda row: row["number"])]
    return [_page(group, entries_max) for group in grouped]


async def read_heads(pool: Pool, channels: Sequence[str]) -> Heads:
    """The heads of channels.

    Raises:
        Unavailable: The server is away, or its schema is missing.
    """
    rows = await _fetch(pool, _HEADS, list(channels))
    heads, floors = dict.fromkeys(channels, 0), dict.fromkeys(channels, 0)
    for row in rows:
        if row["name"] is not None:
            heads[row["name"]], floors[row["name"]] = row["seq"], row["floor"]
    return Heads(rows[0]["epoch"], heads, floors)


async def _fetch(pool: Pool, statement: str, *arguments: object) -> list[asyncpg.Record]:
    rows = await pool.fetch(statement, *arguments)
    if not rows:
        raise Unavailable(pool.dependency, "the log has no epoch: the row of feed_epoch is gone")
    return rows


def _page(rows: list[asyncpg.Record], entries_max: int) -> Page:
    first = rows[0]
    updates = [
        StoredUpdate(row["seq"], row["facet"], row["kind"], row["rank"], row["born"], row["body"])
        for row in rows
        if row["seq"] is not None
    ]
    available = first["available"] or 0
    more = available == entries_max or len(updates) < available
    end = updates[-1].seq if more else max(first["head"], first["floor"])
    return Page(first["name"], first["epoch"], first["head"], first["floor"], end, more, updates)
