"""Pages of a feed as the feed source of whoever runs this livefeed ranks it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateway.log_reader import LogReader
from gateway.snapshots import answer
from livefeed.adapters.patience import patient_wait
from livefeed.adapters.postgres.pool import Pool
from livefeed.breaker import PAGES_POLICY, Breaker
from livefeed.channel import channels_of, client_name
from livefeed.errors import AfterRefused, Unavailable
from livefeed.feed_source import (
    AFTER_BYTES_MAX,
    FeedSource,
    SourcePage,
    SourceRequest,
    channel_of,
    checked,
)
from livefeed.feed_view import LIMIT_DEFAULT, FeedItem, check_names, parse_limit
from livefeed.filters import Types, parse_types
from livefeed.limits import SOURCE_LATE_MAX, SOURCE_SECONDS_MAX


@dataclass(frozen=True, slots=True)
class SourceQuery:
    """Which part of a feed a source is asked for."""

    source: str
    limit: int
    after: str | None
    types: Types

    def key(self) -> str:
        """The same for the same page of the same source."""
        return f"{self.source}\t{self.limit}\t{','.join(sorted(self.types))}\t{self.after or ''}"


class SourcePages:
    """Asks the source, in time; one that fails three times in a row is left alone for a moment.

    Args:
        reader: Of the log, whose cursor is read before the source is asked.
        name: The source's: pages of another one are other pages, and so are the log's.
        source: The function.
        sessions: Of a server: makes what the source reads with.
    """

    def __init__(
        self,
        reader: LogReader,
        name: str,
        source: FeedSource,
        sessions: Callable[[Pool], Callable[[], Any]],
    ) -> None:
        self._reader: Final = reader
        self._name: Final = name
        self._source: Final = source
        self._sessions: Final = sessions
        self.breaker: Final = Breaker(PAGES_POLICY)
        self._late: Final[set[asyncio.Future[SourcePage]]] = set()
        """Calls that were given up and have not ended."""

    def parse(self, parameters: Mapping[str, str]) -> SourceQuery:
        """Read the parameters; raises Refused."""
        check_names(parameters)
        after = parameters.get("after")
        if after is not None and not 0 < len(after.encode()) <= AFTER_BYTES_MAX:
            raise AfterRefused
        limit = parse_limit(parameters.get("limit", str(LIMIT_DEFAULT)))
        return SourceQuery(self._name, limit, after, parse_types(parameters.get("types")))

    async def read(self, user_id: str, feed: str, query: SourceQuery) -> bytes:
        """The answer's JSON.

        Raises:
            AfterRefused: The source did not give it out.
            Unavailable: The source fails, is late, or answers what it may not; or the log is away.
        """
        # Before, and of the server that the source will read: whatever is not there yet the client
        # is sent. After the primary's heads comes nothing of what only a replica lacks.
        server, heads = await self._reader.heads_anywhere(channels_of(user_id, feed))
        sessions = self._sessions(server)
        request = SourceRequest(
            user_id, feed, query.limit, query.after, query.types, sessions, SOURCE_SECONDS_MAX
        )
        page, contents = await self._ask(request)
        channel = client_name(channel_of(page, user_id, feed))
        items = [_item(channel, place, content) for place, content in enumerate(contents)]
        return answer(heads, user_id, feed, items=items, unread=page.unread, after=page.next)

    async def _ask(self, request: SourceRequest) -> tuple[SourcePage, list[bytes]]:
        if len(self._late) >= SOURCE_LATE_MAX:
            raise Unavailable("feed source", "calls of it that were given up have not ended yet")
        allowed = self.breaker.begin(time.monotonic())
        if allowed is None:
            raise Unavailable("feed source", "it failed, and is left alone for a moment")
        try:
            page = await self._in_time(request)
            items = checked(page, request.limit)
        except AfterRefused:
            # The client's fault: it must not keep the source from the others.
            allowed.succeeded()
            raise
        except Exception as error:
            allowed.failed(time.monotonic(), jitter=random.random())
            if isinstance(error, Unavailable):
                raise
            detail = f"{type(error).__name__}: {error}".rstrip(": ")
            raise Unavailable("feed source", detail[:300]) from error
        except BaseException:
            allowed.abandoned(time.monotonic())
            raise
        allowed.succeeded()
        return page, items

    async def _in_time(self, request: SourceRequest) -> SourcePage:
        """What the source answers; raises TimeoutError when that is not here in time.

        It is told to end then and not waited for: to give a connection to a server that hangs back
        takes seconds, and a source may pass over that it is told.
        """
        call = asyncio.ensure_future(self._source(request))
        try:
            done = await patient_wait(call, SOURCE_SECONDS_MAX)
        finally:
            if not call.done():
                call.cancel()
                self._late.add(call)
                call.add_done_callback(self._ended)
        if not done:
            raise TimeoutError(f"no answer within {SOURCE_SECONDS_MAX:g} s")
        if call.cancelled():
            raise Unavailable("feed source", "something in it was cancelled")
        return call.result()

    def _ended(self, call: asyncio.Future[SourcePage]) -> None:
        self._late.discard(call)
        if not call.cancelled():
            call.exception()  # Nobody else looks at it.


def _item(channel: str, place: int, content: bytes) -> FeedItem:
    """An item of the source: of seq 0, so that whatever the stream says of it is newer."""
    return FeedItem(
        channel=channel,
        seq=0,
        rank=float(-place),
        update_id=None,
        timestamp=None,
        version=None,
        content=msgspec.Raw(content),
        engagement_seq=None,
        engagement=None,
    )
