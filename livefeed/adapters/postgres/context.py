"""The read side of what prioritize asks about recipients: presence and mutes, followers."""

from __future__ import annotations

from collections.abc import Sequence

from livefeed.adapters.postgres.pool import Pool
from livefeed.context import RecipientContext
from livefeed.limits import FOLLOW_CLOCK_SECONDS_MAX, FOLLOWERS_PAGE_MAX, PRESENCE_SEEN_SECONDS_MAX

# Presence is found by the user alone: with the gateways in the index's condition Postgres sorts the
# ids of the whole fleet again for each user (20 µs a recipient with 100 of them; so it is 5 to 7).
_CONTEXTS = """
with alive as materialized (
    select gateway from feed_gateway where seen_at > now() - make_interval(secs => $3)
)
select coalesce(present.online, false) as online, coalesce(present.on_screen, false) as on_screen,
    exists (
        select from feed_mute mute where mute.user_id = given.user_id and mute.feed = given.feed
    ) as muted
from unnest($1::text[], $2::text[]) with ordinality as given (user_id, feed, number)
cross join lateral (
    select bool_or(counts) as online, bool_or(counts and given.feed = any(feeds)) as on_screen
    from (
        select feeds, gateway in (select gateway from alive) as counts
        from feed_presence presence where presence.user_id = given.user_id
    ) as reported
) as present
order by given.number
"""

# A removal may have been handled before what it removes: who followed only then must not get that.
_FOLLOWERS = """
select follower from feed_follow
where actor = $1 and follower > $2 and ($4 or (
    ended is null and since <= to_timestamp($5 / 1e6) + make_interval(secs => $6)
))
order by follower limit $3
"""


async def read_contexts(
    pool: Pool, recipients: Sequence[tuple[str, str]]
) -> list[RecipientContext]:
    """What is known about each `(user, feed)`, in the order asked, in one query.

    Raises:
        Unavailable: The primary is away, or its schema is missing.
    """
    users, feeds = [user for user, _ in recipients], [feed for _, feed in recipients]
    rows = await pool.fetch(_CONTEXTS, users, feeds, PRESENCE_SEEN_SECONDS_MAX)
    return [RecipientContext(*row) for row in rows]


async def read_followers(
    pool: Pool,
    actor: str,
    *,
    after: str,
    removal: bool,
    accepted_at: int,
    limit: int = FOLLOWERS_PAGE_MAX,
) -> list[str]:
    """The next followers of an actor in the order of their ids; fewer than `limit` are the last.

    Args:
        pool: The primary.
        actor: Who is followed.
        after: The last one of the page before; empty for the first page.
        removal: Also those who follow no more, or only since: removals are for them too.
        accepted_at: Microseconds since 1970; of those who follow, who did so then.
        limit: The most of one page.

    Raises:
        Unavailable: The primary is away, or its schema is missing.
    """
    rows = await pool.fetch(
        _FOLLOWERS, actor, after, limit, removal, float(accepted_at), FOLLOW_CLOCK_SECONDS_MAX
    )
    return [row["follower"] for row in rows]
