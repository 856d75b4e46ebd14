"""The same log over HTTP: a feed's items at a cursor, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from gateway.log_reader import LogReader
from livefeed.channel import client_name
from livefeed.cursor import Cursor, client_epoch, format_cursor
from livefeed.errors import Overloaded
from livefeed.feed_view import FeedItem, PageQuery, parse_query, public_item
from livefeed.limits import SNAPSHOTS_AT_ONCE, SNAPSHOTS_WAITING_MAX
from livefeed.protocol import ERRORS

__all__ = ["PageQuery", "SnapshotTurns", "parse_query", "read_snapshot"]

_encoder: Final = msgspec.json.Encoder()


class SnapshotTurns:
    """A few snapshots are made at once; the other requests wait, and no more than so many.

    Args:
        at_once: How many are made at once.
        waiting_max: How many requests may wait.
    """

    def __init__(
        self, at_once: int = SNAPSHOTS_AT_ONCE, waiting_max: int = SNAPSHOTS_WAITING_MAX
    ) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._waiting_max: Final = waiting_max
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, which lasts as long as the context; raises Overloaded."""
        if self._waiting >= self._waiting_max:
            raise Overloaded("busy", ERRORS["busy"])
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()


async def read_snapshot(reader: LogReader, user_id: str, feed: str, query: PageQuery) -> bytes:
    """The answer of `GET /v1/feeds/{feed}`, as JSON.

    Raises:
        Unavailable: The log cannot be read now.
    """
    page = await reader.snapshot_page(user_id, feed, query)
    # Entries of equal rank are divided over the pages by the hashes of their ids; within a page
    # they stand as everywhere else.
    items = sorted(map(public_item, page.items), key=FeedItem.order)
    positions = {client_name(channel): head for channel, head in page.heads.items()}
    return _encoder.encode(
        {
            "feed": feed,
            "items": items,
            "cursor": format_cursor(Cursor(client_epoch(page.epoch, user_id), positions)),
            "floor": {client_name(channel): floor for channel, floor in page.floors.items()},
            "unread": page.unread,
            "next": str(page.items[-1].key) if page.more else None,
        }
    )
