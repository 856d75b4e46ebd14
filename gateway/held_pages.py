"""What clients were given of the log and have not read: a bound for all connections together."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from gateway.turn import Turn
from livefeed.limits import PAGES_HELD_BYTES_MAX, PAGES_HELD_SECONDS_MAX
from livefeed.protocol import CloseCode

if TYPE_CHECKING:
    from gateway.connection import Connection

logger = logging.getLogger(__name__)


class HeldPages:
    """Bytes of pages that wait in the outboxes; counted anew only where they may be too many.

    Args:
        bytes_max: Where no further page is read.
    """

    def __init__(self, bytes_max: int = PAGES_HELD_BYTES_MAX) -> None:
        self._bytes_max: Final = bytes_max
        self._given_at: dict[Connection, float] = {}
        self._bytes = 0
        """No less than there are: what was written since the last count is in it."""
        self.times_full = 0
        self.closed = 0
        """Connections that were closed to make room."""

    def given(self, turn: Turn, now: float) -> None:
        """A connection was given the pages of a turn."""
        # Of one that is gone nothing is wanted, and nothing may stay.
        pieces = [piece for channel, piece in turn.pieces.items() if turn.is_wanted(channel)]
        size = sum(len(piece.updates(turn.connection.types)) for piece in pieces)
        if size:
            self._given_at[turn.connection] = now
            self._bytes += size

    def forget(self, connection: Connection) -> None:
        """The connection is gone."""
        self._given_at.pop(connection, None)

    def full(self, now: float) -> bool:
        """Whether no page may be read now; then it closes who has read nothing for a while."""
        if self._bytes < self._bytes_max:
            return False
        self._count()
        if self._bytes < self._bytes_max:
            return False
        self.times_full += 1
        stalled = [
            connection
            for connection, at in self._given_at.items()
            if now - at > PAGES_HELD_SECONDS_MAX
        ]
        for connection in stalled:
            self.forget(connection)
            connection.socket.cut(CloseCode.TOO_SLOW, "come back")
        if stalled:
            self.closed += len(stalled)
            logger.warning("closed %d clients that do not read: others need the room", len(stalled))
        return True

    def _count(self) -> None:
        self._given_at = {
            connection: at
            for connection, at in self._given_at.items()
            if connection.socket.pending_bytes and not connection.socket.closed
        }
        self._bytes = sum(connection.socket.pending_bytes for connection in self._given_at)
