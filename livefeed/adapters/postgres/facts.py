"""What there is to know of a Postgres server's health: by reading, from one connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from livefeed.database_health import DatabaseFacts, ReplayFacts
from livefeed.errors import Unavailable

CONNECT_SECONDS_MAX: Final = 2.0
STATEMENT_SECONDS_MAX: Final = 2.0
REPLAY_SECONDS_MAX: Final = 1.0
"""How long a replica gets to reach where the primary was; only then is it asked how far behind."""
REPLAY_LOOK_SECONDS: Final = 0.05

_SERVER = """
select current_setting('server_version') as version,
    current_setting('server_version_num')::int as version_number,
    pg_is_in_recovery() as in_recovery,
    current_setting('transaction_read_only') = 'on' as read_only,
    current_setting('fsync') = 'on' as fsync,
    current_setting('full_page_writes') = 'on' as full_page_writes,
    current_setting('synchronous_commit') as synchronous_commit,
    (select sum(numbackends) from pg_stat_database)::int as connections,
    current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0) as connections_max,
    to_regclass('alembic_version') is not null as has_revision,
    to_regclass('feed_epoch') is not null as has_epoch,
    case when not pg_is_in_recovery() then
        ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
    end as timeline,
    pg_wal_lsn_diff(
        case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end,
        '0/0'
    )::bigint as position
"""

_REPLAY = """
select pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint as position,
    case when pg_is_in_recovery() then pg_is_wal_replay_paused() else false end as paused,
    exists (select from pg_stat_wal_receiver) as streams,
    extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::float8 as seconds
"""


async def database_facts(url: str, dependency: str) -> DatabaseFacts:
    """The server as a session of ours sees it; changes nothing, not even the epoch.

    Raises:
        Unavailable: When it does not answer, or refuses us.
    """
    async with _connection(url, dependency) as connection:
        server = await connection.fetchrow(_SERVER)
        assert server is not None  # a select without a source has one row
        revision = epoch = None
        if server["has_revision"]:
            revision = await connection.fetchval("select version_num from alembic_version")
        if server["has_epoch"]:
            epoch = await connection.fetchrow("select epoch, timeline from feed_epoch")
    names = set(DatabaseFacts.__dataclass_fields__) & set(server.keys())
    return DatabaseFacts(
        **{name: server[name] for name in names},
        revision=revision,
        epoch=epoch["epoch"] if epoch else None,
        epoch_timeline=epoch["timeline"] if epoch else None,
    )


async def replay_facts(url: str, *, primary_position: int | None) -> ReplayFacts:
    """How far a replica is behind where the primary was a moment before.

    The age of its last transaction is no measure by itself: it grows while nothing is written.

    Raises:
        Unavailable: When it does not answer, or refuses us.
    """
    async with _connection(url, "replica") as connection:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        while True:
            row = await connection.fetchrow(_REPLAY)
            assert row is not None
            waited = loop.time() - began_at
            behind = max(0, (primary_position or 0) - (row["position"] or 0))
            if not behind or row["paused"] or waited > REPLAY_SECONDS_MAX:
                break
            await asyncio.sleep(REPLAY_LOOK_SECONDS)
    return ReplayFacts(
        bytes_behind=None if primary_position is None else behind,
        seconds_behind=max(waited, row["seconds"] or 0.0) if behind else 0.0,
        paused=row["paused"],
        streams=row["streams"],
    )


@asynccontextmanager
async def _connection(url: str, dependency: str) -> AsyncIterator[asyncpg.Connection]:
    try:
        connection = await asyncpg.connect(
            url,
            timeout=CONNECT_SECONDS_MAX,
            command_timeout=STATEMENT_SECONDS_MAX,
            server_settings={"application_name": "livefeed-doctor"},
        )
        try:
            yield connection
        finally:
            connection.terminate()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        detail = f"{type(error).__name__}: {error}".rstrip(": ")
        raise Unavailable(dependency, detail) from error
