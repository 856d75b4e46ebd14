"""What a connection is behind in, and when it may go on: room, budget, one turn at a time.

Nothing of what was missed is kept, only the names of the channels: the log has the rest.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Protocol

from gateway.turn import Asked, Turn
from livefeed.limits import TURN_CHANNELS_MAX
from livefeed.pace import LONG_SECONDS, Pace, Recent

if TYPE_CHECKING:
    from gateway.connection import Connection


class CatchUps(Protocol):
    """What a connection asks when it is behind."""

    def now(self) -> float:
        """The clock, in seconds."""
        ...

    def request(self, turn: Turn) -> None:
        """Read the turn's pages, then call `connection.take`."""
        ...

    def wake(self, connection: Connection, at: float) -> None:
        """Call `connection.go_on` at a time, and not at the one that was named before."""
        ...

    def retry_at(self) -> float:
        """When to ask again for what could not be read."""
        ...

    def forget(self, connection: Connection) -> None:
        """Wake it no more."""
        ...


class Backlog:
    """The channels of a connection that wait for a turn."""

    __slots__ = (
        "_catch_ups",
        "_channels",
        "_connection",
        "_not_before",
        "_only",
        "_only_since",
        "_turn",
        "pace",
    )

    def __init__(self, connection: Connection, catch_ups: CatchUps) -> None:
        self.pace = Pace()
        self._connection: Connection | None = connection
        self._catch_ups = catch_ups
        self._channels: dict[str, None] = {}
        self._turn: Turn | None = None
        """The one that is under way."""
        self._not_before = 0.0
        """When what could not be read may be asked for again."""
        self._only: str | None = None
        """The channel whose live batches were all that was sent since `_only_since`."""
        self._only_since = 0.0

    def add(self, channel: str) -> None:
        """The next page of a channel is wanted."""
        self._channels[channel] = None

    def add_later(self, channel: str) -> None:
        """It is wanted, but asking at once would be in vain."""
        self._channels[channel] = None
        self._not_before = self._catch_ups.retry_at()

    def drop(self, channel: str) -> None:
        """It is wanted no more."""
        self._channels.pop(channel, None)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is waited for."""
        return not self._channels and self._turn is None

    def over(self) -> None:
        """The turn that was under way is over."""
        self._turn = None

    def leave(self) -> None:
        """The connection is gone."""
        if self._connection is not None:
            self._catch_ups.forget(self._connection)
        self._channels.clear()
        # They hold each other, and what is set aside the collector never looks at.
        self._connection = self._turn = None

    def visible(self, visible: bool) -> None:
        """Somebody looks from now on, or nobody."""
        if visible:
            self.pace.show()
            self.go_on()
        else:
            self.pace.hide(self._catch_ups.now())

    def takes_live(self, channel: str) -> bool:
        """Whether the frame of a live batch may be sent now; then it is counted."""
        now = self._catch_ups.now()
        # The frame of the turn that is under way has its place in the budget.
        if not self.pace.try_take(now, 0 if self._turn is None else 1):
            return False
        if channel != self._only:
            self._only, self._only_since = channel, now
        return True

    def sent(self) -> None:
        """The frame of a turn was sent."""
        self.pace.take(self._catch_ups.now())
        self._only = None

    def only(self, channel: str) -> bool:
        """Whether all that was sent in the last second were live batches of this channel."""
        if channel != self._only or not self.is_empty or not self.pace.visible:
            return False
        return self._catch_ups.now() - self._only_since > LONG_SECONDS

    def alone(self, recent: Recent) -> None:
        """From here on it counts itself; before, somebody counted for it."""
        self.pace.recent = recent
        self._only = None

    def go_on(self) -> None:
        """Begin a turn, or have this called again when its frame may be sent."""
        connection = self._connection
        if connection is None or not self._channels or self._turn is not None:
            return
        connection.go_alone()
        if not connection.socket.has_room:
            return
        now = self._catch_ups.now()
        at = max(self._not_before, self.pace.ready_at(now))
        if at > now:
            self._catch_ups.wake(connection, at)
        else:
            self._begin(connection)

    def _begin(self, connection: Connection) -> None:
        asked = {}
        for channel in list(islice(self._channels, TURN_CHANNELS_MAX)):
            del self._channels[channel]
            position = connection.positions[channel]
            asked[channel] = Asked(position, position.position)
        self._turn = Turn(connection, asked)
        self._catch_ups.request(self._turn)
