"""SQLAlchemy sessions on a replica, for feed sources: the only use of SQLAlchemy while serving."""

from __future__ import annotations

from typing import Final
from weakref import WeakSet

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from livefeed.adapters.postgres.engine import engine_of

CONNECT_SECONDS_MAX: Final = 3.0
RECYCLE_SECONDS: Final = 1_800


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
        self._connections: Final[WeakSet[asyncpg.Connection]] = WeakSet()
        self._engine: Final[AsyncEngine] = engine_of(
            url,
            connect={
                "timeout": CONNECT_SECONDS_MAX,
                "command_timeout": timeout_seconds,
                "server_settings": {
                    "application_name": application,
                    "statement_timeout": f"{timeout_seconds * 1000:.0f}",
                    "idle_in_transaction_session_timeout": "10000",
                    "jit": "off",
                },
            },
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
        # Not from the start: a server that is looked for because it takes writes would not do.
        await connection.execute("set default_transaction_read_only = on")
