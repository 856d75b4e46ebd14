"""What one client of a corpus holds, and whether it is what the log has.

Pure: frames go in, counts come out. Where updates contradict each other a client need not see all
of them: what counts is that none takes an older one's place, and what it holds at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.corpus import Corpus
from benchmarks.reference import Order, Place, stated
from benchmarks.verify import FAULTS, Frame


class Held(NamedTuple):
    """The newest update of a place that a client was sent."""

    order: Order
    seq: int


class View:
    """One client's state.

    Attributes:
        user: Whose client it is.
        updates: How many updates it was sent.
        position: How far it is in its user's channel.
        faults: By kind.
    """

    __slots__ = ("_channel", "_corpus", "_held", "_number", "faults", "position", "updates", "user")

    def __init__(self, corpus: Corpus, number: int) -> None:
        self.user = corpus.user(number)
        self.updates = self.position = 0
        self.faults = dict.fromkeys(FAULTS, 0)
        self._corpus = corpus
        self._number = number
        self._channel = f"me/{corpus.feed}"
        self._held: dict[Place, Held] = {}

    def take(self, frame: Frame) -> None:
        """Take a frame."""
        self.updates += len(frame.updates)
        for update in frame.updates:
            number = update.content.number
            for_whom = self._corpus.users_of(self._corpus.facts(number))
            if update.channel != self._channel or self._number not in for_whom:
                self.faults["foreign"] += 1
            else:
                self._hold(number, update.seq)
        position = frame.cursor.get(self._channel, self.position)
        if position < self.position or frame.type == "reset":
            self.faults["inexact"] += 1
        self.position = position

    def judge(self, wanted: Mapping[Place, Order], *, head: int) -> dict[str, int]:
        """The faults, now that everything should be here.

        Args:
            wanted: The order key that has to stand in each place.
            head: The log's head of the user's channel.
        """
        held = {place: one.order for place, one in self._held.items()}
        others = sum(order != wanted.get(place, order) for place, order in held.items())
        return {
            "lost": self.faults["lost"] + len(wanted.keys() - held.keys()),
            "doubled": self.faults["doubled"],
            "foreign": self.faults["foreign"] + len(held.keys() - wanted.keys()),
            "inexact": self.faults["inexact"] + others + (self.position != head),
        }

    def _hold(self, number: int, seq: int) -> None:
        place, standing = stated(self._corpus, number)
        held = self._held.get(place)
        # An item whose birth became known moves to a new seq, and is the same update still.
        if held and seq <= held.seq:
            self.faults["doubled"] += 1
        elif held and standing.order < held.order:
            self.faults["inexact"] += 1
        else:
            self._held[place] = Held(standing.order, seq)
