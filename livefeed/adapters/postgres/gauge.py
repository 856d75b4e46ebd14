"""How far a Postgres server has come, asked again and again over a connection of its own."""

from __future__ import annotations

from typing import Final

import asyncpg

from livefeed.adapters.patience import patient_timeout
from livefeed.adapters.postgres.pool import UNAVAILABLE
from livefeed.errors import Unavailable
from livefeed.replica_choice import Look

# Not pg_current_wal_lsn: what is not flushed yet is sent to no replica, so none lacks it.
_PRIMARY: Final = "select pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint as position"
_REPLICA: Final = """
select pg_is_in_recovery() as follows,
    pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')::bigint as received,
    pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint as replayed,
    extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::float8 as age_seconds
"""
_ROOM: Final = """
select current_setting('max_connections')::int
    - current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true)::int, 0) as connections_max
"""


class Gauge:
    """Looks at one server, with one connection beside its pool.

    A pool that is busy, or full of calls to a server that hung, would say nothing about the server.
    Whatever goes wrong, the connection is dropped: the next look finds out with a new one.

    Args:
        url: Where the server is.
        dependency: What errors call it.
        seconds_max: How long a look may take, with the connect.
        application: What `pg_stat_activity` shows.
    """

    def __init__(self, url: str, *, dependency: str, seconds_max: float, application: str) -> None:
        self._url = url
        self._dependency = dependency
        self._seconds_max = seconds_max
        self._application = application
        self._connection: asyncpg.Connection | None = None

    async def position(self) -> int:
        """Bytes of write-ahead log that a primary has flushed; raises Unavailable."""
        return int((await self._row(_PRIMARY))["position"])

    async def look(self) -> Look:
        """How far a replica has come; raises Unavailable, also when it is none any more."""
        row = await self._row(_REPLICA)
        if not row["follows"]:
            raise Unavailable(self._dependency, "it takes writes: it was promoted, follows nobody")
        return Look(
            received=row["received"], replayed=row["replayed"], age_seconds=row["age_seconds"]
        )

    async def connections_max(self) -> int:
        """Connections that the server has for us, without the reserved ones; raises Unavailable."""
        return int((await self._row(_ROOM))["connections_max"])

    def close(self) -> None:
        """Drop the connection, at once."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _row(self, statement: str) -> asyncpg.Record:
        try:
            async with patient_timeout(self._seconds_max):
                if self._connection is None:
                    self._connection = await asyncpg.connect(
                        self._url, server_settings={"application_name": self._application}
                    )
                row = await self._connection.fetchrow(statement)
        except UNAVAILABLE as error:
            self.close()
            detail = f"{type(error).__name__}: {error}".rstrip(": ")
            raise Unavailable(self._dependency, detail) from error
        except BaseException:
            self.close()
            raise
        assert row is not None  # a select without a source has one row
        return row
