"""What the log has at some places, for `reconcile`; reads only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from livefeed.adapters.postgres.pool import Pool
from livefeed.limits import FOLLOWERS_PAGE_MAX
from livefeed.moment import moment_of
from livefeed.order import OrderKey, microseconds
from livefeed.reconcile import Followers, Found, Place

_FOUND = """
select entry.explicit, entry.version, entry.ref, coalesce(entry.seq, 0) as seq,
    coalesce(channel.floor, 0) as floor, channel.forgotten_at
from unnest($1::text[], $2::bigint[], $3::smallint[]) with ordinality
    as given (channel, item, facet, number)
left join feed_channel channel on channel.name = given.channel
left join feed_entry entry on entry.channel_id = channel.id
    and entry.item = given.item and entry.facet = given.facet
order by given.number
"""

# Whom `reconcile` may expect to have got an update for certain; prioritize, which is generous by
# `FOLLOW_CLOCK_SECONDS_MAX`, asks with a statement of its own in `context.py`.
_FOLLOWERS = """
select follower from feed_follow
where actor = $1 and follower > $2 and (ended is null or $3) and since <= $4
order by follower limit $5
"""


async def read_places(pool: Pool, places: Sequence[Place]) -> list[Found]:
    """What stands at each place, in the order asked, in one statement.

    Raises:
        Unavailable: The primary is away, or its schema is missing.
    """
    channels = [place.key.channel for place in places]
    items = [place.key.item for place in places]
    facets = [place.key.facet for place in places]
    rows = await pool.fetch(_FOUND, channels, items, facets)
    return [
        Found(
            None if row["ref"] is None else OrderKey(row["explicit"], row["version"], row["ref"]),
            row["seq"],
            row["floor"],
            None if row["forgotten_at"] is None else microseconds(row["forgotten_at"]),
        )
        for row in rows
    ]


async def read_expected_followers(
    pool: Pool, followers: Followers, *, accepted_at: int, limit: int = FOLLOWERS_PAGE_MAX
) -> list[str]:
    """The followers of now that one message was for: those who followed when it was accepted.

    Raises:
        Unavailable: The primary is away, or its schema is missing.
    """
    since: datetime = moment_of(accepted_at)
    rows = await pool.fetch(
        _FOLLOWERS, followers.actor, followers.after, followers.ended, since, limit
    )
    return [row["follower"] for row in rows]
