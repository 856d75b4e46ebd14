"""Revocations: what `livefeed revoke` writes and every gateway reads."""

from __future__ import annotations

from typing import Final, NamedTuple

import asyncpg

from livefeed.adapters.postgres.pool import Pool
from livefeed.limits import REVOCATIONS_MAX
from livefeed.revocation import Revocation, RevocationKind

# Revoked again, it counts from now, and no shorter than it did.
_ADD: Final = """
insert into feed_revocation as old (kind, name, revoked_at, until)
values ($1, $2, now(), now() + make_interval(secs => $3))
on conflict (kind, name) do update
set revoked_at = excluded.revoked_at, until = greatest(old.until, excluded.until)
returning kind, name, revoked_at, until
"""

_READ: Final = """
select kind, name, revoked_at, until from feed_revocation
where until > now() and revoked_at > coalesce(to_timestamp($1), '-infinity')
order by revoked_at desc, kind, name limit $2
"""


class Read(NamedTuple):
    """What is in force, newest first."""

    revocations: list[Revocation]
    read_at: float
    """Seconds since 1970, by Postgres's clock."""


async def add_revocation(
    pool: Pool, kind: RevocationKind, name: str, *, seconds: float
) -> Revocation:
    """Revoke a user's tokens, or one token, for a time.

    Raises:
        Unavailable: The primary is away, or its schema is missing.
    """
    (row,) = await pool.fetch(_ADD, kind, name, float(seconds))
    return _revocation(row)


async def read_revocations(
    pool: Pool, since: float | None = None, *, most: int = REVOCATIONS_MAX
) -> Read:
    """What is in force and was revoked after a time; all of it without one.

    Raises:
        Unavailable: As for `add_revocation`.
    """
    (clock,) = await pool.fetch("select extract(epoch from now())::float8 as now")
    rows = await pool.fetch(_READ, since, most)
    return Read([_revocation(row) for row in rows], clock["now"])


def _revocation(row: asyncpg.Record) -> Revocation:
    return Revocation(
        row["kind"], row["name"], row["revoked_at"].timestamp(), row["until"].timestamp()
    )
