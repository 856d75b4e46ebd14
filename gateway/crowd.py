"""A crowd: connections at the same place in a topic, which are sent its next batch all at once.

Most followers of a topic have had everything of it and nothing else lately. For them there is one
position and one frame budget instead of thousands: a batch is one decision, and then a loop that
writes the same bytes to every socket. Whoever is sent anything else, has no room, is hidden or
behind, leaves and is looked at alone, as everybody was before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gateway.frames import Frame
from gateway.update_frames import LiveFrames
from livefeed.filters import Types
from livefeed.messages import LiveChannel
from livefeed.pace import Recent
from livefeed.position import Position
from livefeed.protocol import CloseCode

if TYPE_CHECKING:
    from gateway.connection import Connection

logger = logging.getLogger(__name__)


class Crowd:
    """Those who are at one place in a topic.

    Args:
        channel: The topic's.
        epoch: Of the log that they follow.
        types: What they are sent of it.
        position: Where they are, and the floor that they were told; theirs from here on.
        recent: A history of frames that has all of the topic's of the last second.
        clock: In seconds.
    """

    def __init__(
        self,
        channel: str,
        epoch: str,
        types: Types,
        position: Position,
        recent: Recent,
        clock: Callable[[], float],
    ) -> None:
        self.channel: Final = channel
        self.position: Final = position
        self.recent: Final = recent
        self._epoch: Final = epoch
        self.types: Final = types
        self._clock: Final = clock
        self._writes: dict[Connection, Callable[[bytes], None]] = {}

    def __len__(self) -> int:
        return len(self._writes)

    def members(self) -> tuple[Connection, ...]:
        """Who is in it."""
        return tuple(self._writes)

    def fits(self, epoch: str, position: Position) -> bool:
        """Whether somebody who is there could come in."""
        here = self.position
        at_once = position.position == here.position and position.floor == here.floor
        return at_once and epoch == self._epoch

    def join(self, connection: Connection, write: Callable[[bytes], None]) -> None:
        """Come in.

        Args:
            connection: It is where the crowd is, and was sent nothing but this topic's live batches
                in the last second: what the crowd remembers is at least that.
            write: Writes the bytes of a frame to its socket.
        """
        self._writes[connection] = write

    def leave(self, connection: Connection) -> None:
        """Be looked at alone again."""
        del self._writes[connection]

    def live(self, epoch: str, batch: LiveChannel, frames: LiveFrames) -> bool:
        """Take a live batch; false when each member has to take it alone.

        Args:
            epoch: Of the log.
            batch: Of this topic.
            frames: Makes its frames.
        """
        position, now = self.position, self._clock()
        if batch.channel != self.channel:
            return True  # Of no topic that comes this way: nobody is there.
        if epoch == self._epoch and batch.end <= position.position:
            return True
        if (
            epoch != self._epoch
            or batch.updates is None
            or not position.continues(batch.start, batch.end)
            or self.recent.ready_at(now) > now
        ):
            return False
        # The frame is made first: when it cannot be, the position has not moved past it.
        frame = frames(self.types)
        position.live(batch.start, batch.end, complete=True)
        if frame is not None:
            position.floor = batch.floor
            self.recent.take(now)
            self._write(frame)
            # When the last of them was sent it: a second later holds for all of them.
            self.recent.moved(self._clock())
        return True

    def _write(self, frame: Frame) -> None:
        # Whoever has no room after this frame leaves in the middle of the loop.
        wire, members = frame.wire, self.members()
        failed: list[tuple[Connection, Exception]] = []
        for number, write in enumerate(tuple(self._writes.values())):
            try:
                write(wire)
            except Exception as error:  # noqa: BLE001  # it must not become the others' trouble
                failed.append((members[number], error))
        for connection, fault in failed:
            give_up(connection, fault)


def give_up(connection: Connection, error: Exception) -> None:
    """Close a connection that a live batch could not be given to."""
    logger.error("a live batch could not be given to a connection", exc_info=error)
    try:
        connection.socket.close(CloseCode.UNAVAILABLE, "come back")
    except Exception:
        logger.exception("it could not be closed either")
