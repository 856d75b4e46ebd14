"""The write side of `feed_follow`: who follows whom, since when, and until when.

An ended follow keeps its row: removals of what it brought are for its follower too.
`docs/audiences.md` has the same statements for applications that keep the table themselves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import NamedTuple

from livefeed.adapters.postgres.pool import Pool
from livefeed.follow import Follow
from livefeed.limits import AUDIENCE_ROWS_MAX

# Rows in order here and below: two who write the same ones do not wait for each other in a circle.
_ADD = """
with changed as (
    insert into feed_follow as held (actor, follower)
    select distinct actor, follower collate "C"
    from unnest($1::text[], $2::text[]) as given (actor, follower)
    order by 1, 2
    on conflict (actor, follower) do update set since = now(), ended = null
    where held.ended is not null
    returning true
)
select count(*) from changed
"""

_END = """
with standing as (
    select follower from feed_follow
    where actor = $1 and follower = any($2::text[]) and ended is null
    order by follower for update
), changed as (
    update feed_follow held set ended = now() from standing
    where held.actor = $1 and held.follower = standing.follower
    returning true
)
select count(*) from changed
"""

_READ = """
select follower, since, ended from feed_follow
where actor = $1 and follower > $2 and (ended is null or $4)
order by follower limit $3
"""


class FollowRow(NamedTuple):
    """One follower of an actor."""

    follower: str
    since: datetime
    ended: datetime | None


async def add_follows(pool: Pool, follows: Sequence[Follow]) -> int:
    """Begin follows, at most AUDIENCE_ROWS_MAX; returns how many were none before.

    Raises:
        Unavailable: The primary is away, or its schema is missing.
    """
    actors, followers = [one.actor for one in follows], [one.follower for one in follows]
    (row,) = await pool.fetch(_ADD, actors, followers)
    return int(row["count"])


async def end_follows(pool: Pool, actor: str, followers: Sequence[str]) -> int:
    """End follows of an actor, at most AUDIENCE_ROWS_MAX; returns how many were some before.

    Raises:
        Unavailable: As for `add_follows`.
    """
    (row,) = await pool.fetch(_END, actor, followers)
    return int(row["count"])


async def follow_pages(pool: Pool, actor: str, *, ended: bool) -> AsyncIterator[list[FollowRow]]:
    """The followers of an actor in the order of their ids, a page at a time.

    Args:
        pool: The primary.
        actor: Who is followed.
        ended: Also those who follow no more.

    Raises:
        Unavailable: As for `add_follows`.
    """
    after = ""
    while True:
        rows = await pool.fetch(_READ, actor, after, AUDIENCE_ROWS_MAX, ended)
        yield [FollowRow(*row) for row in rows]
        if len(rows) < AUDIENCE_ROWS_MAX:
            return
        after = rows[-1]["follower"]
