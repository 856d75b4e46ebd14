"""The write side of presence: what a gateway says of the users that are connected through it.

Both tables are unlogged. A row of `feed_presence` counts while its gateway's row in `feed_gateway`
is young; after a crash of the server, or on a promoted standby, both are empty.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Final

from livefeed.adapters.postgres.pool import Pool
from livefeed.limits import PRESENCE_ROWS_MAX

_SEEN = "update feed_gateway set seen_at = now() where gateway = $1 returning true"

_COME = "insert into feed_gateway (gateway) values ($1)"

# Feeds come joined, because arrays of arrays have one length; no feed has a comma in its name.
_PUT = """
insert into feed_presence (user_id, gateway, feeds)
select user_id, $1, string_to_array(feeds, ',')
from unnest($2::text[], $3::text[]) as given (user_id, feeds)
on conflict (user_id, gateway) do update set feeds = excluded.feeds
"""

_TAKE_BACK = "delete from feed_presence where gateway = $1 and user_id = any($2::text[])"

_GO = "delete from feed_gateway where gateway = $1"

_TAKE_BACK_SOME = """
delete from feed_presence where ctid = any(array(
    select ctid from feed_presence where gateway = $1 limit $2
)) returning true
"""

Feeds = tuple[str, ...]
"""Feeds on the screen of a user, in order; of a user without a visible device there are none."""


class PresenceTable:
    """What one gateway reports; every call raises Unavailable while the primary is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool: Final = pool
        self._gateway = ""
        """The id under which it reports, as soon as it is seen."""

    async def seen(self) -> bool:
        """Say that the gateway is there; returns whether what it reported is there too."""
        if await self._pool.fetch(_SEEN, self._gateway):
            return True
        # Another id: what may be left under the old one shall not count again.
        gateway = secrets.token_hex(8)
        await self._pool.fetch(_COME, gateway)
        self._gateway = gateway
        return False

    async def put(self, users: Mapping[str, Feeds]) -> None:
        """Users that are connected, at most PRESENCE_ROWS_MAX, with their feeds on the screen."""
        feeds = [",".join(names) for names in users.values()]
        await self._pool.fetch(_PUT, self._gateway, list(users), feeds)

    async def take_back(self, users: Iterable[str]) -> None:
        """Users that are connected no more, at most PRESENCE_ROWS_MAX."""
        await self._pool.fetch(_TAKE_BACK, self._gateway, list(users))

    async def leave(self) -> None:
        """Delete everything that the gateway has reported; from the first statement on none of it
        counts."""
        await self._pool.fetch(_GO, self._gateway)
        while await self._pool.fetch(_TAKE_BACK_SOME, self._gateway, PRESENCE_ROWS_MAX):
            pass
