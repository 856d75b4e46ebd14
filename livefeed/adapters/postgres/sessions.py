"""SQLAlchemy sessions on a server of the log, for feed sources: the only use of SQLAlchemy while
serving."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakSet

import asyncpg
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from livefeed.adapters.postgres.pool import OnConnect, Pool

CONNECT_SECONDS_MAX: Final = 3.0
RECYCLE_SECONDS: Final = 1_800


def engine_of(
    url: str, connect: Mapping[str, Any], *, prepare: OnConnect | None = None, **options: Any
) -> AsyncEngine:
    """An engine of SQLAlchemy's.

    The URL is read by asyncpg, as for the pools: SQLAlchemy knows none with several hosts.

    Args:
        url: Of the server.
        connect: What asyncpg is given beside it.
        prepare: Called with each new connection.
        options: What SQLAlchemy is given.
    """

    async def creator() -> asyncpg.Connection:
        connection: asyncpg.Connection = await asyncpg.connect(url, **connect)
        if prepare is not None:
            await prepare(connection)
        return connection

    return create_async_engine("postgresql+asyncpg://", async_creator=creator, **options)


class Sessions:
    """Makes sessions; every statement in them reads only.

    Args:
        url: Of the server.
        connections: At most; further sessions wait for a moment and then fail.
        timeout_seconds: Of a statement, and of the wait for a connection.
        application: What `pg_stat_activity` shows.
    """

    def __init__(
        self, url: str, *, connections: int, timeout_seconds: float, application: str
    ) -> None:
        connect = {
            "timeout": CONNECT_SECONDS_MAX,
            "command_timeout": timeout_seconds,
            "server_settings": {
                "application_name": application,
                "statement_timeout": f"{timeout_seconds * 1000:.0f}",
                "idle_in_transaction_session_timeout": "10000",
                "jit": "off",
            },
        }
        self._connections: Final[WeakSet[asyncpg.Connection]] = WeakSet()
        self._engine: Final[AsyncEngine] = engine_of(
            url,
            connect,
            prepare=self._prepare,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=timeout_seconds,
            pool_recycle=RECYCLE_SECONDS,
            pool_pre_ping=True,
        )
        self._make: Final = async_sessionmaker(self._engine, expire_on_commit=False)

    def __call__(self) -> AsyncSession:
        """A session, which is a context; one task at a time may use it."""
        return self._make()

    async def close(self) -> None:
        """Close every connection, without a goodbye: a server that hangs would not answer it."""
        for connection in self._connections:
            connection.terminate()
        await self._engine.dispose()

    async def _prepare(self, connection: asyncpg.Connection) -> None:
        self._connections.add(connection)
        # Not while it connects: the URL may ask for a server that takes writes.
        await connection.execute("set default_transaction_read_only = on")


class ServerSessions:
    """Sessions on each server that a read may be sent to, from when it first is.

    Args:
        connections: To each server, at most.
        timeout_seconds: As for `Sessions`.
        application: What `pg_stat_activity` shows.
    """

    def __init__(self, *, connections: int, timeout_seconds: float, application: str) -> None:
        self._connections: Final = connections
        self._timeout_seconds: Final = timeout_seconds
        self._application: Final = application
        self._each: Final[dict[str, Sessions]] = {}

    def of(self, pool: Pool) -> Sessions:
        """Those on the server that a pool leads to."""
        if pool.url not in self._each:
            self._each[pool.url] = Sessions(
                pool.url,
                connections=self._connections,
                timeout_seconds=self._timeout_seconds,
                application=self._application,
            )
        return self._each[pool.url]

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(sessions.close() for sessions in self._each.values()))
