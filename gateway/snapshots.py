"""The same log over HTTP: a feed's items at a cursor, page by page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from gateway.log_reader import LogReader
from livefeed.channel import client_name
from livefeed.cursor import Cursor, client_epoch, format_cursor
from livefeed.feed_view import FeedItem, PageQuery, parse_query, public_item

_encoder: Final = msgspec.json.Encoder()


class Moment(Protocol):
    """Where the log was."""

    @property
    def epoch(self) -> str: ...

    @property
    def heads(self) -> Mapping[str, int]: ...

    @property
    def floors(self) -> Mapping[str, int]: ...


class LogPages:
    """Pages of feeds as the log has them.

    Args:
        reader: Of the log.
    """

    def __init__(self, reader: LogReader) -> None:
        self._reader: Final = reader

    def parse(self, parameters: Mapping[str, str]) -> PageQuery:
        """Read the parameters; raises Refused."""
        return parse_query(parameters)

    async def read(self, user_id: str, feed: str, query: PageQuery) -> bytes:
        """The answer's JSON; raises Unavailable."""
        return await read_snapshot(self._reader, user_id, feed, query)


async def read_snapshot(reader: LogReader, user_id: str, feed: str, query: PageQuery) -> bytes:
    """The answer of `GET /v1/feeds/{feed}`, as JSON.

    Raises:
        Unavailable: The log cannot be read now.
    """
    page = await reader.snapshot_page(user_id, feed, query)
    # Entries of equal rank are divided over the pages by the hashes of their ids; within a page
    # they stand as everywhere else.
    items = sorted(map(public_item, page.items), key=FeedItem.order)
    after = str(page.items[-1].key) if page.more else None
    return answer(page, user_id, feed, items=items, unread=page.unread, after=after)


def answer(
    moment: Moment,
    user_id: str,
    feed: str,
    *,
    items: Sequence[FeedItem],
    unread: int,
    after: str | None,
) -> bytes:
    """A page's JSON.

    Args:
        moment: The log's, at which it is true.
        user_id: Whose view of the feed.
        feed: The feed.
        items: In the order in which they are shown.
        unread: How many of the whole feed nobody has shown yet.
        after: What the next page is asked for with; None on the last one.
    """
    positions = {client_name(channel): head for channel, head in moment.heads.items()}
    return _encoder.encode(
        {
            "feed": feed,
            "items": items,
            "cursor": format_cursor(Cursor(client_epoch(moment.epoch, user_id), positions)),
            "floor": {client_name(channel): floor for channel, floor in moment.floors.items()},
            "unread": unread,
            "next": after,
        }
    )
