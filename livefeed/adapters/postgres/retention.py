"""What leaves the database: entries beyond a channel's bounds, bodies that no entry refers to, what
silent gateways have reported, follows that ended long ago, old `seen` markers, pages that ended.

Everything goes in short statements, each a transaction of its own, that skip what a writer has
locked: a writer never waits for more than one of them, and none of them waits for a writer.
Decision 0010 says why bodies are marked in a temporary table.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from livefeed.adapters.postgres.pool import Connection, Pool
from livefeed.limits import (
    BODY_AGE_SECONDS_MIN,
    CACHE_TABLE_BYTES_MAX,
    CACHE_TABLE_KEPT_SHARE,
    CACHE_TABLE_ROWS_MAX,
    CHANNEL_AGE_SECONDS_MAX,
    CHANNEL_ITEMS_MAX,
    FOLLOW_ENDED_SECONDS_MAX,
    GATEWAY_SILENT_SECONDS_MAX,
    RETAIN_PAGES_MAX,
    RETAIN_ROWS_MAX,
    TRIM_CHANNELS_MAX,
    TRIM_OLD_ENTRIES_MAX,
    TRIM_SETTLED_SECONDS,
)

WHENEVER_SECONDS: Final = 1e9
"""Whatever ends, ends sooner."""
RETAIN_LOCK: Final = 0x72657461  # "reta": one retain at a time in the fleet.


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a channel keeps, what a collection spares, and how much one statement takes."""

    items_max: int = CHANNEL_ITEMS_MAX
    age_seconds_max: float = CHANNEL_AGE_SECONDS_MAX
    settled_seconds: float = TRIM_SETTLED_SECONDS
    body_age_seconds_min: float = BODY_AGE_SECONDS_MIN
    silent_seconds_max: float = GATEWAY_SILENT_SECONDS_MAX
    ended_seconds_max: float = FOLLOW_ENDED_SECONDS_MAX
    channels_max: int = TRIM_CHANNELS_MAX
    old_entries_max: int = TRIM_OLD_ENTRIES_MAX
    rows_max: int = RETAIN_ROWS_MAX
    pages_max: int = round(CACHE_TABLE_ROWS_MAX * CACHE_TABLE_KEPT_SHARE)
    page_bytes_max: int = round(CACHE_TABLE_BYTES_MAX * CACHE_TABLE_KEPT_SHARE)
    pages_at_once: int = RETAIN_PAGES_MAX


class Trimmed(NamedTuple):
    """What a step of trimming did."""

    last_id: int | None
    """The last channel that it is through with; None behind the last of all."""
    channels: int
    raised: int
    entries: int


# A channel that gave out no more seqs above its floor than it may keep items has none to lose, and
# one whose first entry is young has no old ones: most channels cost two index probes. By age it is
# not above the first entry that is younger: an old one stands there when its item's birth became
# known late, and goes when they do.
_LOOK = """
with step as (
    select channel.id, channel.seq, floor, oldest.seq as first, coalesce((
        select persisted_at < now() - make_interval(secs => $4)
        from feed_body where ref = oldest.ref
    ), true) as old
    from (select id, seq, floor from feed_channel where id > $1 order by id limit $2) as channel
    left join lateral (
        select entry.seq, entry.ref from feed_entry entry
        where channel_id = channel.id order by entry.seq limit 1
    ) as oldest on true
)
select id, first <= floor as leftover, greatest(by_settled.seq, by_age.seq) as target
from step
left join lateral (
    select entry.seq from feed_entry entry
    where step.seq - step.floor > $3 and channel_id = step.id and facet = 0
    order by entry.seq desc offset $3 limit 1
) as by_count on true
left join lateral (
    select max(entry.seq) filter (where younger = 0) as seq from (
        select slice.seq, count(*) filter (
            where persisted_at >= now() - make_interval(secs => $6)
        ) over (order by slice.seq) as younger
        from (
            select entry.seq, entry.ref from feed_entry entry
            where channel_id = step.id and entry.seq <= by_count.seq order by entry.seq limit $5
        ) as slice left join feed_body using (ref)
    ) as entry
) as by_settled on true
left join lateral (
    select max(entry.seq) filter (where younger = 0) as seq from (
        select slice.seq, count(*) filter (
            where persisted_at >= now() - make_interval(secs => $4)
        ) over (order by slice.seq) as younger
        from (
            select entry.seq, entry.ref from feed_entry entry
            where step.old and channel_id = step.id order by entry.seq limit $5
        ) as slice left join feed_body using (ref)
    ) as entry
) as by_age on true
order by id
"""

_RAISE = """
with wanted as (
    select channel.id, least(given.target, channel.seq) as floor
    from feed_channel channel
    join unnest($1::bigint[], $2::bigint[]) as given (id, target) on given.id = channel.id
    where channel.floor < given.target
    order by channel.id for no key update of channel skip locked
)
update feed_channel channel set floor = wanted.floor, forgotten_at = greatest(forgotten_at, (
    select max(persisted_at) from feed_entry entry join feed_body using (ref)
    where channel_id = channel.id and entry.seq <= wanted.floor
))
from wanted where channel.id = wanted.id
returning channel.id
"""

# Not under the channel's lock: nobody reads at or below a floor. A row that a writer holds moves
# above it, or stays as it is when nothing was newer: then it is a leftover of the next step.
_DELETE_ENTRIES = """
with fallen as (
    select entry.channel_id, entry.item, entry.facet
    from feed_channel channel join feed_entry entry on entry.channel_id = channel.id
    where channel.id = any($1::bigint[]) and entry.seq <= channel.floor
    limit $2 for update of entry skip locked
)
delete from feed_entry entry using fallen
where entry.channel_id = fallen.channel_id and entry.item = fallen.item
    and entry.facet = fallen.facet
returning true
"""

_MARKS = "create temporary table retain_marks (ref bytea primary key)"

_MARK = """
with slice as materialized (
    select channel_id, item, facet, ref from feed_entry
    where (channel_id, item, facet) > ($1, $2, $3)
    order by channel_id, item, facet limit $4
), marked as (
    insert into retain_marks select distinct ref from slice on conflict do nothing
)
select channel_id, item, facet from slice order by channel_id desc, item desc, facet desc limit 1
"""

_SWEEP = """
with slice as materialized (
    select ref from feed_body where ref > $1 order by ref limit $2
), unused as (
    select ref from feed_body body
    where ref = any(array(select ref from slice)) and persisted_at < $3
        and not exists (select from retain_marks marks where marks.ref = body.ref)
    order by ref for update skip locked
), gone as (
    delete from feed_body body using unused where body.ref = unused.ref returning true
)
select ref as last, (select count(*) from gone) as gone from slice order by ref desc limit 1
"""


# A gateway that was not dead finds its row gone, takes a new id and reports everything again.
_FORGET_GATEWAYS = """
with silent as (
    select gateway from feed_gateway where seen_at < now() - make_interval(secs => $1)
    limit $2 for update skip locked
)
delete from feed_gateway gone using silent where gone.gateway = silent.gateway returning true
"""

# A gateway's own row is there before its first report and gone before its last, so what has none
# counts no more. From one gateway to the next, not through all that each has reported.
_FORGET_PRESENCE = """
with recursive reporting (gateway) as (
    (select gateway from feed_presence order by gateway limit 1)
    union all
    select (
        select presence.gateway from feed_presence presence
        where presence.gateway > reporting.gateway order by presence.gateway limit 1
    ) from reporting where reporting.gateway is not null
), silent as materialized (
    select gateway from reporting where gateway is not null
    except all select gateway from feed_gateway
), fallen as (
    select left_over.* from silent cross join lateral (
        select user_id, gateway from feed_presence presence
        where presence.gateway = silent.gateway limit $1 for update skip locked
    ) as left_over limit $1
)
delete from feed_presence gone using fallen
where gone.user_id = fallen.user_id and gone.gateway = fallen.gateway
returning true
"""

_FORGET_FOLLOWS = """
with fallen as (
    select actor, follower from feed_follow where ended < now() - make_interval(secs => $1)
    limit $2 for update skip locked
)
delete from feed_follow gone using fallen
where gone.actor = fallen.actor and gone.follower = fallen.follower
returning true
"""

_FORGET_REVOCATIONS = """
delete from feed_revocation where ctid = any(array(
    select ctid from feed_revocation where until < now() limit $1 for update skip locked
)) returning true
"""


# A marker as old as the oldest entry says nothing: whatever it had seen is gone.
_FORGET_SEEN = """
with fallen as (
    select user_id, channel, device from feed_seen
    where seen_at < now() - make_interval(secs => $1)
    limit $2 for update skip locked
)
delete from feed_seen gone using fallen
where gone.user_id = fallen.user_id and gone.channel = fallen.channel
    and gone.device = fallen.device
returning true
"""

# Those that end first, and no later than after some seconds.
_FORGET_PAGES = """
delete from feed_page where key = any(array(
    select key from feed_page where ends_at <= now() + make_interval(secs => $1)
    order by ends_at limit $2 for update skip locked
)) returning octet_length(value) as bytes
"""

# No value is read for it: their lengths stand in the rows.
_PAGES = """
select count(*) as pages, coalesce(sum(octet_length(value)), 0)::bigint as bytes from feed_page
"""


class Retention:
    """Trims channels and collects bodies, over the one session that holds the fleet's lock."""

    def __init__(self, connection: Connection, bounds: Bounds) -> None:
        self._connection = connection
        self._bounds = bounds

    async def first_channel(self, place: float) -> int:
        """The id after which to begin: a run that is cut short shall not always cut the same."""
        last = await self._connection.fetchval("select max(id) from feed_channel")
        return int(place * (last or 0))

    async def trim(self, after: int) -> Trimmed:
        """Raise the floors of the next channels, and delete what is below them."""
        bounds = self._bounds
        looked = await self._connection.fetch(
            _LOOK,
            after,
            bounds.channels_max,
            bounds.items_max,
            bounds.age_seconds_max,
            bounds.old_entries_max,
            bounds.settled_seconds,
        )
        targets = {row["id"]: row["target"] for row in looked if row["target"] is not None}
        raised = await self.raise_floors(targets)
        fallen = raised | {row["id"] for row in looked if row["leftover"]}
        deleted = []
        if fallen:
            deleted = await self._connection.fetch(_DELETE_ENTRIES, sorted(fallen), bounds.rows_max)
        if len(deleted) == bounds.rows_max:
            # There is more below these floors: the next step finds it there.
            return Trimmed(after, 0, len(raised), len(deleted))
        last = looked[-1]["id"] if len(looked) == bounds.channels_max else None
        return Trimmed(last, len(looked), len(raised), len(deleted))

    async def raise_floors(self, targets: Mapping[int, int]) -> set[int]:
        """Raise the floors of channels, by id, and say which; never above a head, nor down.

        With a floor rises `forgotten_at`: when the newest of what fell had been persisted. What is
        below is deleted with the next step that comes by the channel.
        """
        if not targets:
            return set()
        rows = await self._connection.fetch(_RAISE, list(targets), list(targets.values()))
        return {row["id"] for row in rows}

    async def forget_gateways(self) -> int:
        """Delete the rows of gateways that were silent for long; from then on they count no more.

        This and the others like it are one step each, and return how many rows went, at most
        `rows_max`.
        """
        seconds = self._bounds.silent_seconds_max
        return await self._deleted(_FORGET_GATEWAYS, seconds, self._bounds.rows_max)

    async def forget_presence(self) -> int:
        """Delete what gateways have reported that are not there any more."""
        return await self._deleted(_FORGET_PRESENCE, self._bounds.rows_max)

    async def forget_follows(self) -> int:
        """Delete follows that ended longer ago than the log remembers what they brought."""
        seconds = self._bounds.ended_seconds_max
        return await self._deleted(_FORGET_FOLLOWS, seconds, self._bounds.rows_max)

    async def forget_seen(self) -> int:
        """Delete markers that are older than whatever a channel keeps."""
        seconds = self._bounds.age_seconds_max
        return await self._deleted(_FORGET_SEEN, seconds, self._bounds.rows_max)

    async def forget_revocations(self) -> int:
        """Delete revocations that are over."""
        return await self._deleted(_FORGET_REVOCATIONS, self._bounds.rows_max)

    async def forget_pages(self) -> int:
        """Delete pages of the feed source that have ended, at most `pages_at_once`."""
        return await self._deleted(_FORGET_PAGES, 0.0, self._bounds.pages_at_once)

    async def drop_pages(self) -> AsyncGenerator[int]:
        """Delete the pages that end first while there are too many, or too large ones together;
        yields after each step how many went in it."""
        bounds = self._bounds
        (row,) = await self._connection.fetch(_PAGES)
        pages, size = row["pages"] - bounds.pages_max, row["bytes"] - bounds.page_bytes_max
        while pages > 0 or size > 0:
            most = bounds.pages_at_once if size > 0 else min(pages, bounds.pages_at_once)
            gone = await self._connection.fetch(_FORGET_PAGES, WHENEVER_SECONDS, most)
            if not gone:
                return  # Others are writing what is left.
            pages, size = pages - len(gone), size - sum(one["bytes"] for one in gone)
            yield len(gone)

    async def _deleted(self, statement: str, *arguments: float) -> int:
        return len(await self._connection.fetch(statement, *arguments))

    async def collect(self) -> AsyncGenerator[int]:
        """Delete the bodies without an entry; yields after each step how many went in it.

        Marks every body in use in a walk over the entries, then deletes those that were old when
        the walk began and are not marked. An entry that came to a place behind the walk has a body
        that was made, or made young, not long before the walk or after it.
        """
        before = await self._connection.fetchval(
            "select now() - make_interval(secs => $1)", self._bounds.body_age_seconds_min
        )
        await self._connection.execute(_MARKS)
        try:
            async for _ in self._mark():
                yield 0
            async for gone in self._sweep(before):
                yield gone
        finally:
            await self._connection.execute("drop table retain_marks")

    async def _mark(self) -> AsyncIterator[None]:
        place = (0, -(2**63), 0)
        while row := await self._connection.fetchrow(_MARK, *place, self._bounds.rows_max):
            place = tuple(row)
            yield

    async def _sweep(self, before: datetime) -> AsyncIterator[int]:
        last = b""
        while row := await self._connection.fetchrow(_SWEEP, last, self._bounds.rows_max, before):
            last = row["last"]
            yield row["gone"]


@asynccontextmanager
async def only_one(pool: Pool, bounds: Bounds) -> AsyncIterator[Retention | None]:
    """The fleet's one retention, or None when another process has it.

    Raises:
        Unavailable: The server is away, or its schema is missing.
    """
    async with pool.connection() as connection:
        if not await connection.fetchval("select pg_try_advisory_lock($1)", RETAIN_LOCK):
            yield None
            return
        try:
            yield Retention(connection, bounds)
        finally:
            await connection.execute("select pg_advisory_unlock($1)", RETAIN_LOCK)
