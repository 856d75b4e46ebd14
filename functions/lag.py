"""How late a worker is with high, which it says with its name. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from functions.intake import Held


class Lag:
    """The longest that a message of high waited in its stream, until it is said.

    Not since its update was accepted: one that is published again after a restore is old, and
    nobody is late with it. Times are microseconds since 1970, of the stream's clock and ours.
    """

    def __init__(self) -> None:
        self._longest = 0

    def handled(self, taken: Iterable[Held], now: int) -> None:
        """These were in hand until now."""
        waited = (now - held.work.message.stored_at for held in taken)
        self._longest = max(self._longest, max(waited, default=0))

    def say(self, waiting: Iterable[Held], now: int) -> float:
        """Seconds: of what was handled since the last time, and of what waits."""
        self.handled(waiting, now)
        longest, self._longest = self._longest, 0
        return longest / 1e6
