"""The gap rule: what to do with a live batch or a page, given where a connection is in a channel.

Pure. The live push is a hint that saves a read: whatever does not continue exactly at the position
is answered by a catch-up from the log, so a lost, doubled or reordered push can do no harm.
"""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    """What to do with a live batch."""

    SKIP = "skip"
    """Everything in it was sent already."""
    SEND = "send"
    """It continues at the position."""
    CATCH_UP = "catch up"
    """There is a gap, or only a head: read the log."""
    REMEMBER = "remember"
    """A catch-up is under way; it will go on until it has reached this batch."""


class Position:
    """Where one connection is in one channel, and how far it has to go."""

    __slots__ = ("catching_up", "floor", "position", "target")

    def __init__(self, position: int = 0) -> None:
        self.position = position
        self.target = position
        self.catching_up = False
        self.floor = 0
        """The channel's, as the client was told it."""

    def continues(self, start: int, end: int) -> bool:
        """Whether a live batch that covers (start, end] would be sent, were it complete."""
        return start <= self.position < end and not self.catching_up

    def lacks(self, head: int, floor: int) -> bool:
        """Whether the channel's head or floor calls for anything that is not under way yet."""
        if head > self.position and head > self.target:
            return True
        return not self.catching_up and floor > self.floor

    def copy(self) -> Position:
        """The same place, to go on by itself."""
        other = Position(self.position)
        other.target, other.floor, other.catching_up = self.target, self.floor, self.catching_up
        return other

    def live(self, start: int, end: int, *, complete: bool) -> Verdict:
        """Take note of a live batch that covers (start, end].

        Args:
            start: The channel's head before the flush.
            end: The channel's head after it.
            complete: Whether the batch carries its updates, not the head only.
        """
        if self.catching_up:
            self.target = max(self.target, end)
            return Verdict.REMEMBER
        if end <= self.position:
            return Verdict.SKIP
        if complete and start <= self.position:
            self.position = self.target = end
            return Verdict.SEND
        self.behind(end)
        return Verdict.CATCH_UP

    def behind(self, head: int) -> bool:
        """Take note of the channel's head; true when a catch-up has to start now."""
        self.target = max(self.target, head)
        if self.catching_up or self.target <= self.position:
            return False
        self.catching_up = True
        return True

    def begin(self) -> None:
        """Start a catch-up although nothing is known of the head: the first connect."""
        self.catching_up = True

    def page(self, end: int, *, more: bool) -> bool:
        """Take note of a page that was sent and reaches to `end`; true when the catch-up is over.

        Args:
            end: The last seq of the page, or the head it was read at when there is no more.
            more: Whether the log holds entries after `end`.
        """
        self.position = max(self.position, end)
        self.catching_up = more or self.position < self.target
        return not self.catching_up
