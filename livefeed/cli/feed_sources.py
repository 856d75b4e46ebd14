"""The feed source that the settings name, with sessions to read with."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from gateway.feed_door import Pages
from gateway.log_reader import LogReader
from gateway.source_pages import SourcePages
from livefeed.cli.plugins import feed_source
from livefeed.limits import SOURCE_SECONDS_MAX
from livefeed.settings import Settings


@contextlib.asynccontextmanager
async def pages_of_source(
    settings: Settings,
) -> AsyncIterator[Callable[[LogReader], Pages[Any]] | None]:
    """What makes the pages of a feed source, for a gateway's time; None where there is none."""
    source = feed_source(settings)
    if source is None:
        yield None
        return
    # Only here: SQLAlchemy takes a while to import, and most gateways need none.
    from livefeed.adapters.postgres.sessions import Sessions

    sessions = Sessions(
        settings.replica_urls[0] if settings.replica_urls else settings.database_url,
        connections=settings.database_pool_connections,
        timeout_seconds=SOURCE_SECONDS_MAX,
        application="livefeed-feed-source",
    )
    try:
        yield lambda reader: SourcePages(reader, source, sessions)
    finally:
        await sessions.close()
