"""Whether a client was sent exactly what it had to be sent: nothing lost, doubled or foreign.

Pure: frames go in, counts come out.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Final

import msgspec
from msgspec import Struct, field

from livefeed.subjects import Lane

FAULTS: Final = ("lost", "doubled", "foreign", "inexact")
"""`inexact`: the order or the position of a client is not the log's."""


class Content(Struct, gc=False):
    """What the scenario put into an item."""

    number: int = -1
    user: str = ""
    due: int = 0
    recorded: bool = False
    lane: Lane = "high"


class Update(Struct, gc=False):
    """One update as a client sees it."""

    channel: str
    seq: int
    content: Content


class Frame(Struct):
    """What counts here of any frame of the server."""

    type: str
    updates: list[Update] = []
    cursor: dict[str, int] = {}
    replay: bool = False
    epoch: str = ""
    after_milliseconds: int | None = field(default=None, name="afterMs")


decode_frame = msgspec.json.Decoder(Frame).decode


class Inbox:
    """What one client was sent, over all its connections.

    Attributes:
        user: Whose client it is.
        owner: Whose updates it is sent, as their content says: the user's own, those of the group
            that it is in, or nobody's where they are a topic's.
        positions: How far it is in each channel, as its frames' cursors say.
        received: The numbers of the updates that it was shown.
        faults: By kind.
    """

    __slots__ = ("_channel", "faults", "owner", "positions", "received", "user")

    def __init__(self, user: str, feed: str, owner: str | None = None) -> None:
        self.user = user
        self.owner = user if owner is None else owner
        self.positions: dict[str, int] = {}
        self.received: set[int] = set()
        self.faults = dict.fromkeys(FAULTS, 0)
        self._channel = f"me/{feed}" if self.owner else f"all/{feed}"

    def take(self, frame: Frame) -> list[Content]:
        """Take a frame, and return what was not there before."""
        new: list[Content] = []
        reached = self.positions.get(self._channel, 0)
        for update in frame.updates:
            content = update.content
            if update.channel != self._channel or content.user != self.owner:
                self.faults["foreign"] += 1
            elif content.number in self.received:
                self.faults["doubled"] += 1
            else:
                self.received.add(content.number)
                new.append(content)
                if update.seq <= reached:
                    self.faults["inexact"] += 1
                reached = update.seq
        for channel, position in frame.cursor.items():
            if position < self.positions.get(channel, 0):
                self.faults["inexact"] += 1
            self.positions[channel] = position
        # A cursor behind what it came with would have it sent again after a reconnect.
        if reached > self.positions.get(self._channel, 0):
            self.faults["inexact"] += 1
        if frame.type == "reset":
            self.faults["inexact"] += 1
        return new

    def judge(
        self, expected: Set[int], *, unknown: Set[int], heads: Mapping[str, int]
    ) -> dict[str, int]:
        """The faults, now that everything should be here.

        Args:
            expected: The numbers of all updates for this user that were accepted.
            unknown: Of those whose publish had no answer; they may be here or not.
            heads: The log's head of each channel, by the client's name of it.
        """
        never_published = self.received - expected - unknown
        behind = sum(self.positions.get(name, 0) != head for name, head in heads.items())
        return {
            "lost": self.faults["lost"] + len(expected - self.received - unknown),
            "doubled": self.faults["doubled"],
            "foreign": self.faults["foreign"] + len(never_published),
            "inexact": self.faults["inexact"] + behind,
        }
