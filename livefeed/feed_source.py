"""Feed sources: what code of whoever runs this livefeed is asked for, and what it answers.

Pure. A source ranks a feed its own way, from tables of its own. The log's cursor is read before the
source is asked, on the server that its sessions lead to, so whatever that one does not have yet is
sent by the stream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from livefeed.channel import topic_channel, user_channel
from livefeed.errors import Unavailable
from livefeed.filters import Types
from livefeed.identity import is_id
from livefeed.limits import PAGE_BYTES_MAX

AFTER_BYTES_MAX: Final = 512
"""Of a source's own token for the next page."""
SCOPES: Final = frozenset({"me", "all"})


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """What a source is asked for.

    Args:
        user_id: Whose view of the feed.
        feed: The feed.
        limit: Most items.
        after: The `next` of the page before, None for the first. A client may send anything: raise
            `AfterRefused` for what was none.
        types: What the client wants of the feed; a source may pass it over.
        sessions: Makes a SQLAlchemy session on a replica that is close behind (the primary where
            there is none): `async with request.sessions() as session`. One for each query that runs
            beside others.
        deadline_seconds: How long the answer is waited for.
    """

    user_id: str
    feed: str
    limit: int
    after: str | None
    types: Types
    sessions: Callable[[], Any]
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class SourcePage:
    """What a source answers.

    Args:
        items: In the order in which they are shown. Each is the content as clients see it, with an
            `id`.
        next: A token for the next page, None when there is none.
        scope: `me` or `all`: in which of the user's two channels the stream has updates of them.
        unread: How many of the whole feed the user has not seen, if the source knows.
    """

    items: Sequence[Mapping[str, Any]]
    next: str | None = None
    scope: str = "me"
    unread: int = 0


FeedSource = Callable[[SourceRequest], Awaitable[SourcePage]]


def channel_of(page: SourcePage, user_id: str, feed: str) -> str:
    """The channel that a page's items are in."""
    return user_channel(user_id, feed) if page.scope == "me" else topic_channel(feed)


def checked(page: Any, limit: int) -> list[bytes]:
    """The items of a page as JSON.

    Raises:
        Unavailable: It is not what a source may answer: the detail says why.
    """
    if not isinstance(page, SourcePage) or page.scope not in SCOPES:
        raise Unavailable("feed source", "it must answer a SourcePage with scope `me` or `all`")
    if len(page.items) > limit:
        raise Unavailable("feed source", f"{len(page.items)} items where {limit} were asked for")
    if page.next is not None and not 0 < len(page.next.encode()) <= AFTER_BYTES_MAX:
        raise Unavailable("feed source", f"`next` must be at most {AFTER_BYTES_MAX} bytes")
    found = []
    for item in page.items:
        identifier = item.get("id")
        if not isinstance(identifier, str) or not is_id(identifier):
            raise Unavailable("feed source", "each item needs an `id` that is one")
        found.append(_encoded(item))
    if sum(map(len, found)) > PAGE_BYTES_MAX:
        raise Unavailable("feed source", f"a page may have {PAGE_BYTES_MAX} bytes")
    return found


def _encoded(item: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(item)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise Unavailable("feed source", f"an item is no JSON: {error}") from None
