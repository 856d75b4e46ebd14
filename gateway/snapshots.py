"""The same log over HTTP: a feed's items at a cursor, page by page."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateway.log_reader import LogReader
from livefeed.access import Principal
from livefeed.adapters.postgres.reads import Page
from livefeed.channel import channels_of, client_name
from livefeed.cursor import Cursor, client_epoch, format_cursor
from livefeed.errors import Overloaded, Refused
from livefeed.feed_view import FeedItem, items_of
from livefeed.limits import SNAPSHOTS_AT_ONCE, SNAPSHOTS_WAITING_MAX
from livefeed.protocol import ERRORS

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 200
READS_MAX: Final = 200
"""Log pages of one channel that one request reads: more than a channel can hold."""

FeedOrder = tuple[float, str, str]


@dataclass(frozen=True, slots=True)
class PageQuery:
    """Which part of a feed is asked for."""

    limit: int
    after: FeedOrder | None
    """The feed-order key of the last item that the client has."""


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


def parse_query(parameters: Mapping[str, str]) -> PageQuery:
    """Read `limit` and `after`; raises Refused."""
    limit = parameters.get("limit", str(LIMIT_DEFAULT))
    # Three digits are enough, and int() is slow for very many.
    digits = limit.isascii() and limit.isdigit() and len(limit) <= 3
    if not digits or not 1 <= int(limit) <= LIMIT_MAX:
        raise Refused("parameter_invalid", f"limit is a number from 1 to {LIMIT_MAX}")
    after = parameters.get("after")
    return PageQuery(int(limit), None if after is None else _decode_after(after))


async def snapshot(
    reader: LogReader, principal: Principal, feed: str, query: PageQuery
) -> dict[str, Any]:
    """The answer of `GET /v1/feeds/{feed}`.

    Raises:
        Unavailable: The log cannot be read now.
    """
    channels = channels_of(principal.user_id, feed)
    first = await reader.pages([(channel, 0) for channel in channels])
    seen = await reader.seen(principal.user_id, channels, first[0].epoch)
    seen_by_name = {client_name(channel): position for channel, position in seen.items()}
    items: list[FeedItem] = []
    for page in first:
        items += await _items(reader, page)
    items.sort(key=FeedItem.order)
    after = query.after
    rest = items if after is None else [item for item in items if item.order() > after]
    shown = rest[: query.limit]
    # The cursor of the first read: what changed during the later ones is sent again, and changes
    # nothing.
    cursor = Cursor(
        client_epoch(first[0].epoch, principal.user_id),
        {client_name(page.channel): page.head for page in first},
    )
    return {
        "feed": feed,
        "items": [item.public() for item in shown],
        "cursor": format_cursor(cursor),
        "floor": {client_name(page.channel): page.floor for page in first},
        "unread": sum(item.content_seq > seen_by_name.get(item.channel, 0) for item in items),
        "next": _encode_after(shown[-1].order()) if len(rest) > len(shown) else None,
    }


async def _items(reader: LogReader, page: Page) -> list[FeedItem]:
    newest = {}
    for _ in range(READS_MAX):
        for one in page.updates:
            identifier = msgspec.json.decode(one.body)["content"]["id"]
            newest[identifier, one.facet] = one
        if not page.more:
            break
        await asyncio.sleep(0)  # The others' turn: to read a page through takes a while.
        (page,) = await reader.pages([(page.channel, page.end)])
    return items_of(page.channel, newest.values())


def _encode_after(order: FeedOrder) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(order)).rstrip(b"=").decode()


def _decode_after(text: str) -> FeedOrder:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        rank, identifier, channel = msgspec.json.decode(raw, type=tuple[float, str, str])
    except (ValueError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused("parameter_invalid", "after is not a value of `next`") from error
    return rank, identifier, channel
