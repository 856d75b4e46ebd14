"""Where a connection was before the heads were read: it may be further when they are compared."""

from __future__ import annotations

from typing import NamedTuple

from livefeed.position import Position


class Place(NamedTuple):
    """Where a connection was in a channel."""

    position: Position
    reached: int
    target: int


class Marks(NamedTuple):
    """Where a connection was in all of them."""

    epoch: str
    places: dict[str, Place]
