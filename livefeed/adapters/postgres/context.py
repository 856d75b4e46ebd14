"""The read side of what prioritize asks about recipients: presence and mutes, followers."""

from __future__ import annotations

from collections.abc import Sequence

from livefeed.adapters.postgres.pool import Pool
from livefeed.context import RecipientContext
from livefeed.limits import FOLLOW_CLOCK_SECONDS_MAX, FOLLOWERS_PAGE_MAX, PRESENCE_SEEN_SECONDS_MAX

# Rows of those only of whom there is something to know: most are neither here nor have they muted.
_CONTEXTS = """
select user_id, feeds, null as muted from feed_presence presence
where user_id = any($1::text[]) and exists (
    select from feed_gateway gateway where gateway.gateway = presence.gateway
        and seen_at > now() - make_interval(secs => $3)
)
union all
select user_id, null, feed from feed_mute
where user_id = any($1::text[]) and feed = any($2::text[])
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
    users, feeds = {user for user, _ in recipients}, {feed for _, feed in recipients}
    rows = await pool.fetch(_CONTEXTS, list(users), list(feeds), PRESENCE_SEEN_SECONDS_MAX)
    screens: dict[str, set[str]] = {}
    muted: set[tuple[str, str]] = set()
    for user, on_screen, feed in rows:
        if feed is None:
            screens.setdefault(user, set()).update(on_screen)
        else:
            muted.add((user, feed))
    return [
        RecipientContext(
            online=user in screens,
            on_screen=feed in screens.get(user, ()),
            muted=(user, feed) in muted,
        )
        for user, feed in recipients
    ]


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
