"""Where a connection was before the heads were read: it may be further when they are compared."""

from __future__ import annotations

from typing import NamedTuple

from livefeed.position import Position


class Place(NamedTuple):
    """Where a connection was in a channel."""

    position: Position
    reached: int
    target: int

    def is_off(self, head: int, floor: int) -> bool:
        """Whether the log's head or floor calls for anything."""
        return self.is_ahead(head) or self.position.lacks(head, floor)

    def is_ahead(self, head: int) -> bool:
        """Whether it was where the log, read later, is not yet: it was never there."""
        return max(self.reached, self.target) > head


class Marks(NamedTuple):
    """Where a connection was in all of them."""

    epoch: str
    places: dict[str, Place]
