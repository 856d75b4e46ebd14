"""A page of a user's view of a feed.

One statement, so epoch, heads, floors, items and the number of unread ones are of one moment: what
is not in the page is either elsewhere in the feed or above the heads. The entries are put in order
without their bodies; only those of the items that are shown are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import asyncpg

from livefeed.adapters.postgres.pool import Pool
from livefeed.channel import channels_of
from livefeed.entry import BORN_BY_UPDATE, BORN_UNKNOWN
from livefeed.errors import Unavailable
from livefeed.feed_view import PageKey, PageQuery, StoredItem
from livefeed.update import CONTENT_FACET, ENGAGEMENT_FACET


@dataclass(frozen=True, slots=True)
class SnapshotPage:
    """Part of a user's view of a feed at one moment; a channel that does not exist is at 0."""

    epoch: str
    heads: Mapping[str, int]
    floors: Mapping[str, int]
    unread: int
    """Items of the whole feed whose content is newer than what any device has shown."""
    items: list[StoredItem]
    more: bool
    """Whether there are items after these."""


# `entry.feed_rank` in SQL. One walk over each channel: its own subquery, for which the planner has
# no other way than the index, whatever it believes about how many entries a channel has.
_RANK: Final = f"""coalesce(entry.rank, case
            when entry.born >= {BORN_UNKNOWN} then 0
            when entry.born >= {BORN_BY_UPDATE // 2}
                then (entry.born - {BORN_BY_UPDATE})::float8 / 1000000::float8
            else entry.born::float8 / 1000000::float8 end)"""

_PAGE: Final = f"""
with channel as materialized (
    select wanted.number - 1 as number, wanted.name, channel.id, epoch.epoch,
        coalesce(channel.seq, 0) as head, coalesce(channel.floor, 0) as floor,
        coalesce((select max(position) from feed_seen seen where seen.user_id = $2
            and seen.channel = wanted.name and seen.epoch = epoch.epoch), 0) as seen
    from unnest($1::text[]) with ordinality as wanted (name, number)
    cross join feed_epoch epoch
    left join feed_channel channel on channel.name = wanted.name
), entry as materialized (
    select channel.number, channel.seen, entry.*
    from channel cross join lateral (
        select entry.item, entry.facet, entry.seq, entry.ref, {_RANK} as rank
        from feed_entry entry
        where entry.channel_id = channel.id and entry.seq > channel.floor
            and entry.kind = any($3::smallint[])
        offset 0
    ) as entry
), item as (
    select number, item, coalesce(content.rank, '-infinity') as rank, content.seq, content.ref,
        engagement.seq as engagement_seq, engagement.ref as engagement_ref
    from (select * from entry where facet = {CONTENT_FACET}) as content
    full join (
        select number, item, seq, ref from entry where facet = {ENGAGEMENT_FACET}
    ) as engagement using (number, item)
), shown as (
    select *, count(*) over () > $4 as more
    from item
    where $5::float8 is null or rank < $5 or rank = $5 and (item, number) > ($6::bigint, $7::bigint)
    order by rank desc, item, number limit $4
)
select channel.name, channel.epoch, channel.head, channel.floor,
    (select count(*) from entry where facet = {CONTENT_FACET} and seq > seen) as unread,
    shown.*, content_body.body, engagement_body.body as engagement
from channel
left join shown on shown.number = channel.number
left join feed_body content_body on content_body.ref = shown.ref
left join feed_body engagement_body on engagement_body.ref = shown.engagement_ref
order by shown.rank desc, shown.item, shown.number
"""  # noqa: S608  # our own words


async def read_snapshot_page(pool: Pool, user_id: str, feed: str, query: PageQuery) -> SnapshotPage:
    """The items of a feed, as a user sees it, after a place.

    Args:
        pool: Of the primary or the replica.
        user_id: Whose view, and whose devices have shown something.
        feed: The feed's name.
        query: The part of the feed.

    Raises:
        Unavailable: The server is away, or its schema is missing.
    """
    own, everyones = channels_of(user_id, feed)
    after = query.after or (None, None, None)
    rows = await pool.fetch(
        _PAGE, [everyones, own], user_id, list(query.kinds), query.limit, *after
    )
    if not rows:
        raise Unavailable(pool.dependency, "the log has no epoch: the row of feed_epoch is gone")
    shown = [row for row in rows if row["rank"] is not None]
    return SnapshotPage(
        epoch=rows[0]["epoch"],
        heads={row["name"]: row["head"] for row in rows},
        floors={row["name"]: row["floor"] for row in rows},
        unread=rows[0]["unread"],
        items=[_item(row) for row in shown],
        more=bool(shown) and shown[0]["more"],
    )


def _item(row: asyncpg.Record) -> StoredItem:
    return StoredItem(
        row["name"],
        PageKey(row["rank"], row["item"], row["number"]),
        row["seq"],
        row["body"],
        row["engagement_seq"],
        row["engagement"],
    )
