"""SQLAlchemy engines whose connections are opened by the driver itself.

SQLAlchemy has another idea of URLs: it knows neither several hosts nor `target_session_attrs` nor
`sslmode`, with which a promoted standby is found.
"""

from __future__ import annotations

from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from livefeed.adapters.postgres.pool import OnConnect


def engine_of(
    url: str, *, connect: dict[str, Any], prepare: OnConnect | None = None, **options: Any
) -> AsyncEngine:
    """An engine on a server.

    Args:
        url: As every other connection has it.
        connect: Arguments of `asyncpg.connect`.
        prepare: Called with each new connection.
        options: Of the engine.
    """

    async def opened(*_: Any, **__: Any) -> asyncpg.Connection:
        connection: asyncpg.Connection = await asyncpg.connect(url, **connect)
        if prepare is not None:
            await prepare(connection)
        return connection

    return create_async_engine("postgresql+asyncpg://", async_creator=opened, **options)
