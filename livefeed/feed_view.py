"""A feed as a reader sees it: entries merged into items, in feed order.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from livefeed.channel import client_name
from livefeed.entry import feed_rank
from livefeed.update import CONTENT_REMOVAL, ENGAGEMENT_FACET


@dataclass(frozen=True, slots=True)
class FeedItem:
    """One visible item."""

    channel: str
    """As the client names it."""
    id: str
    rank: float
    seq: int
    """The higher of its two facets' seqs."""
    content_seq: int
    update: dict[str, Any]
    """The newest update of its content, as stored."""
    engagement: dict[str, Any] | None

    def order(self) -> tuple[float, str, str]:
        """Sorts items into feed order: rank descending, then id."""
        return (-self.rank, self.id, self.channel)

    def public(self) -> dict[str, Any]:
        """What an answer over HTTP shows."""
        return {
            "channel": self.channel,
            "seq": self.seq,
            "rank": self.rank,
            "updateId": self.update["updateId"],
            "timestamp": self.update["timestamp"],
            "version": self.update["version"],
            "content": self.update["content"],
            "engagement": self.engagement,
        }


def items_of(
    channel: str, entries: Iterable[tuple[int, int, int, float | None, int, bytes]]
) -> list[FeedItem]:
    """The visible items of one channel.

    Args:
        channel: Its name in the log.
        entries: `(seq, facet, kind, rank, born, body)` of each.
    """
    contents: dict[str, tuple[int, float, dict[str, Any]]] = {}
    engagements: dict[str, tuple[int, dict[str, Any]]] = {}
    for seq, facet, kind, rank, born, body in entries:
        update: dict[str, Any] = msgspec.json.decode(body)
        identifier = update["content"]["id"]
        if facet == ENGAGEMENT_FACET:
            engagements[identifier] = (seq, update["content"])
        elif kind != CONTENT_REMOVAL:
            contents[identifier] = (seq, feed_rank(rank, born), update)
    name = client_name(channel)
    return [
        FeedItem(
            name,
            identifier,
            rank,
            max(seq, engagements[identifier][0]) if identifier in engagements else seq,
            seq,
            update,
            engagements[identifier][1] if identifier in engagements else None,
        )
        for identifier, (seq, rank, update) in contents.items()
    ]
