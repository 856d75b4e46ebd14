"""A turn: the pages of the log that one connection waits for together, and is sent in one frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.update_frames import Piece
from livefeed.position import Position

if TYPE_CHECKING:
    from gateway.connection import Connection

Place = tuple[str, int]
"""A channel and a position in it."""


class Asked(NamedTuple):
    """From where a channel's page was asked for."""

    position: Position
    after: int


class Turn:
    """Channels whose next page a connection has asked for, and what came of it.

    Args:
        connection: Whose turn it is; it has one at a time.
        asked: By channel.
    """

    __slots__ = ("_open", "asked", "connection", "pieces")

    def __init__(self, connection: Connection, asked: dict[str, Asked]) -> None:
        self.connection = connection
        self.asked = asked
        self.pieces: dict[str, Piece] = {}
        self._open = len(asked)

    @property
    def places(self) -> list[Place]:
        """What has to be read."""
        return [(channel, asked.after) for channel, asked in self.asked.items()]

    def is_wanted(self, channel: str) -> bool:
        """Whether the page is still of use: the connection may be gone, or have begun again."""
        return self.connection.positions.get(channel) is self.asked[channel].position

    def give(self, channel: str, piece: Piece | None) -> bool:
        """Take a page, or the news that none comes; true when the turn is over."""
        if piece is not None:
            self.pieces[channel] = piece
        self._open -= 1
        return self._open == 0
