"""The write side of `feed_mute`: which feeds a user has muted.

`docs/audiences.md` has the same statements for applications that keep the table themselves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from livefeed.adapters.postgres.pool import Pool
from livefeed.limits import AUDIENCE_ROWS_MAX

_ADD = """
with changed as (
    insert into feed_mute (user_id, feed)
    select distinct $1, feed from unnest($2::text[]) as given (feed) order by feed
    on conflict (user_id, feed) do nothing
    returning true
)
select count(*) from changed
"""

_REMOVE = """
with changed as (
    delete from feed_mute where user_id = $1 and feed = any($2::text[]) returning true
)
select count(*) from changed
"""

_READ = "select feed from feed_mute where user_id = $1 and feed > $2 order by feed limit $3"


async def add_mutes(pool: Pool, user: str, feeds: Sequence[str]) -> int:
    """Mute feeds for a user, at most AUDIENCE_ROWS_MAX; returns how many were not muted before.

    Raises:
        Unavailable: The primary is away, or its schema is missing.
    """
    (row,) = await pool.fetch(_ADD, user, feeds)
    return int(row["count"])


async def remove_mutes(pool: Pool, user: str, feeds: Sequence[str]) -> int:
    """Mute feeds no more; returns how many were muted.

    Raises:
        Unavailable: As for `add_mutes`.
    """
    (row,) = await pool.fetch(_REMOVE, user, feeds)
    return int(row["count"])


async def mute_pages(pool: Pool, user: str) -> AsyncIterator[list[str]]:
    """The feeds that a user has muted, in order, a page at a time.

    Raises:
        Unavailable: As for `add_mutes`.
    """
    after = ""
    while True:
        rows = await pool.fetch(_READ, user, after, AUDIENCE_ROWS_MAX)
        yield [row["feed"] for row in rows]
        if len(rows) < AUDIENCE_ROWS_MAX:
            return
        after = rows[-1]["feed"]
