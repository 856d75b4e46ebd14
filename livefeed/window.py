"""Windows: when a lane flushes.

Pure: times are seconds of one monotonic clock. High flushes at once, and gathers while the flush
before it runs; only where it comes fast does it gather for a moment, for a flush costs much and one
more row in it little. Medium and low gather for their window, which begins when JetStream accepts
an update, so that the two functions share it. But a quiet lane has nothing to gain from waiting:
until a lane has seen `QUIET_ARRIVALS_MAX` updates within its window, it flushes after a moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

from livefeed.subjects import Lane

QUIET_ARRIVALS_MAX: Final = 32
"""A lane with fewer arrivals in its window is quiet: flushing it at once costs next to nothing."""
QUIET_GATHER_SECONDS: Final = 0.005
"""How long a quiet lane gathers, so that updates published together travel together."""
URGENT_GATHER_SECONDS: Final = 0.01
"""How long what is urgent gathers where it comes fast."""
URGENT_FAST_SECONDS: Final = 0.1
"""It comes fast where `QUIET_ARRIVALS_MAX` came within such a time."""
WINDOW_SECONDS: Final[dict[Lane, float]] = {"high": 0.0, "medium": 5.0, "low": 15.0}
PRIORITIZE_SHARE: Final = 0.2
"""Of its window an update waits so much in front of prioritize, for others to share lane messages
with; the rest is left for deliver, where more of it makes fewer rows and frames."""


class LaneWindow:
    """The window of one lane in one worker."""

    __slots__ = ("_arrivals", "_seconds", "factor")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.factor = 1.0
        """By how much it is widened."""
        self._arrivals: deque[float] = deque(maxlen=QUIET_ARRIVALS_MAX)

    def arrived(self, now: float, updates: int = 1) -> None:
        """Count what a message brings."""
        self._arrivals.extend([now] * min(updates, QUIET_ARRIVALS_MAX))

    def due_at(self, received_at: float, accepted_at: float) -> float:
        """When what waits must be flushed; whoever holds it sees to the age of each.

        Args:
            received_at: When the oldest waiting message came to this worker.
            accepted_at: When JetStream accepted its update; not later.
        """
        if self._seconds == 0.0:
            return received_at + self.urgent_seconds(received_at)
        seconds = self._seconds * self.factor
        if self._is_quiet(received_at - seconds):
            return received_at + QUIET_GATHER_SECONDS
        return max(received_at, accepted_at + seconds)

    def urgent_seconds(self, received_at: float) -> float:
        """How long what is urgent may wait for more, that came then."""
        return 0.0 if self._is_quiet(received_at - URGENT_FAST_SECONDS) else URGENT_GATHER_SECONDS

    def _is_quiet(self, since: float) -> bool:
        arrivals = self._arrivals
        return len(arrivals) < QUIET_ARRIVALS_MAX or arrivals[0] < since


def most_overdue(due_at: Mapping[Lane, float], now: float) -> Lane | None:
    """Of the lanes that are due, the one to handle: high, else who waits longest in its windows.

    Args:
        due_at: When each lane was or will be due; lanes with nothing in hand are left out.
        now: The clock.
    """
    overdue = {lane: now - at for lane, at in due_at.items() if at <= now}
    if not overdue or "high" in overdue:
        return "high" if overdue else None
    # The usual windows, also where a setting makes them shorter; the first of equals wins.
    return max(overdue, key=lambda lane: (overdue[lane] / WINDOW_SECONDS[lane], lane == "medium"))
