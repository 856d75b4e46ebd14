"""Windows: when a lane flushes.

Pure: times are seconds of one monotonic clock. High flushes at once and gathers only while the
flush before it runs. Medium and low gather for their window, but a quiet lane has nothing to gain
from waiting: until a lane has seen `QUIET_ARRIVALS_MAX` arrivals within its window, it flushes
after a moment.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from livefeed.subjects import Lane

QUIET_ARRIVALS_MAX: Final = 32
"""A lane with fewer arrivals in its window is quiet: flushing it at once costs next to nothing."""
QUIET_GATHER_SECONDS: Final = 0.005
"""How long a quiet lane gathers, so that updates published together travel together."""
WINDOW_SECONDS: Final[dict[Lane, float]] = {"high": 0.0, "medium": 5.0, "low": 15.0}


class LaneWindow:
    """The window of one lane in one worker."""

    __slots__ = ("_arrivals", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._arrivals: deque[float] = deque(maxlen=QUIET_ARRIVALS_MAX)

    def arrived(self, now: float) -> None:
        """Count one arrival."""
        self._arrivals.append(now)

    def due_at(self, oldest_received: float) -> float:
        """When what waits must be flushed; whoever holds it sees to the age of each.

        Args:
            oldest_received: When the oldest waiting message came to this worker.
        """
        if self._seconds == 0.0:
            return oldest_received
        gather = QUIET_GATHER_SECONDS if self._is_quiet(oldest_received) else self._seconds
        return oldest_received + gather

    def _is_quiet(self, now: float) -> bool:
        arrivals = self._arrivals
        full = len(arrivals) == QUIET_ARRIVALS_MAX
        return not full or arrivals[0] < now - self._seconds
