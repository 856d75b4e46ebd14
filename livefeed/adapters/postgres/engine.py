"""SQLAlchemy engines whose connections are opened by the driver itself.

SQLAlchemy has another idea of URLs: it knows neither several hosts nor `target_session_attrs` nor
`sslmode`, with which a promoted standby is found.
"""

from __future__ import annotations

from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


def engine_of(url: str, *, connect: dict[str, Any], **options: Any) -> AsyncEngine:
    """An engine on a server.

    Args:
        url: As every other connection has it.
        connect: Arguments of `asyncpg.connect`.
        options: Of the engine.
    """

    async def opened(*_: Any, **__: Any) -> asyncpg.Connection:
        return await asyncpg.connect(url, **connect)

    return create_async_engine("postgresql+asyncpg://", async_creator=opened, **options)
