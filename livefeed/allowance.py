"""How much may be spent: a bucket that fills at a steady rate, up to a bound. Pure."""

from __future__ import annotations


class Allowance:
    """Spent by costs, filled again by time.

    Args:
        per_second: How much comes back each second.
        burst: What there is at first, and the most that gathers.
        now: The time at which it is full, in seconds of a steady clock.
    """

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._at = now

    def spend(self, cost: float, now: float) -> bool:
        """Take a cost out; False when there is not so much, and then nothing is taken."""
        left = self._left + (now - self._at) * self._per_second
        left = min(left, self._burst)
        self._at = now
        self._left = left if cost > left else left - cost
        return cost <= left
