"""A pool of connections to one Postgres server, with every timeout set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from livefeed.errors import Unavailable

CONNECT_SECONDS_MAX: Final = 3.0
LOCK_SECONDS_MAX: Final = 2.0
WAIT_SECONDS_MAX: Final = 2.0

DATA_ERRORS: Final = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
"""Errors of the data itself: the same statement will fail for ever."""
UNAVAILABLE: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresError,
)
"""Every other error: the same call may succeed later, when the server or its schema is mended."""

LOOKUPS: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
"""For statements that look some rows up by an index, however large their tables are: planned once a
connection, and in the way that stays right when a table grows. Planning was half of the time that a
page of a snapshot takes, and a third of a flush of one entry."""

Connection = asyncpg.pool.PoolConnectionProxy
OnConnect = Callable[[asyncpg.Connection], Coroutine[Any, Any, None]]


class Pool:
    """Connections to the primary or to a replica; opened when first needed.

    Args:
        url: Where the server is.
        dependency: What errors call it.
        connections_max: Connections at most; more callers wait.
        timeout_seconds: The longest statement.
        wait_seconds: The longest wait for a connection.
        application: What `pg_stat_activity` shows.
        lookups: Whether its statements are look-ups, see `LOOKUPS`; those of one that walks over
            whole tables are not.
        on_connect: Called with each new connection.
    """

    def __init__(
        self,
        url: str,
        *,
        dependency: str,
        connections_max: int,
        timeout_seconds: float,
        application: str,
        wait_seconds: float = WAIT_SECONDS_MAX,
        lookups: bool = True,
        on_connect: OnConnect | None = None,
    ) -> None:
        self.url: Final = url
        self.dependency = dependency
        self._wait_seconds = wait_seconds
        self._pool = asyncpg.create_pool(
            url,
            min_size=0,
            max_size=connections_max,
            max_inactive_connection_lifetime=300,
            timeout=CONNECT_SECONDS_MAX,
            command_timeout=timeout_seconds,
            init=on_connect,
            reset=_keep_session,
            server_settings={
                "application_name": application,
                "statement_timeout": f"{timeout_seconds * 1000:.0f}",
                "lock_timeout": f"{LOCK_SECONDS_MAX * 1000:.0f}",
                "idle_in_transaction_session_timeout": "10000",
                "jit": "off",
                **(LOOKUPS if lookups else {}),
            },
        )
        self._opened = False
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for a few statements.

        Raises:
            Unavailable: For every error that says nothing about the data.
        """
        try:
            if not self._opened:
                async with self._opening:
                    await self._pool
                    self._opened = True
            async with self._pool.acquire(timeout=self._wait_seconds) as connection:
                try:
                    yield connection
                except (asyncpg.InternalClientError, asyncio.CancelledError, TimeoutError):
                    # A connection that was cut between two states is good for nothing any more.
                    # And one whose statement is given up would be waited for until its server has
                    # said that it gave it up too: for ever, by one that hangs.
                    connection.terminate()
                    raise
        except DATA_ERRORS:
            raise
        except UNAVAILABLE as error:
            detail = f"{type(error).__name__}: {error}".rstrip(": ")
            if isinstance(error, asyncpg.UndefinedTableError):
                detail = "it has no schema yet; run `livefeed migrate`"
            raise Unavailable(self.dependency, detail) from error

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of one statement.

        Raises:
            Unavailable: As for `connection`.
        """
        async with self.connection() as connection:
            return await connection.fetch(statement, *arguments)

    async def close(self) -> None:
        """Close every connection, within a bound."""
        if not self._opened:
            return
        try:
            async with asyncio.timeout(2):
                await self._pool.close()
        except (TimeoutError, *UNAVAILABLE):
            self._pool.terminate()


async def _keep_session(_connection: object) -> None:
    """Nothing here changes a session, so returning a connection needs no round trip."""
