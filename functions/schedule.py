"""Which lane a worker handles next: high beside at most one of the others. Pure.

Nothing makes high wait but high: medium and low share one place, and of the two the one goes first
that waits longer, measured in windows of its own. So neither starves, and low waits three times as
long as medium when there is more than the worker can do.
"""

from __future__ import annotations

from functions.intake import Intake
from livefeed.breaker import Breaker
from livefeed.subjects import PLACES, Lane


class Schedule:
    """Decides over the lanes of an intake; times are seconds of one monotonic clock.

    Args:
        intake: What is in hand.
        breaker: Whether the function's dependency may be called.
    """

    def __init__(self, intake: Intake, breaker: Breaker) -> None:
        self._intake = intake
        self._breaker = breaker
        self._taken: set[tuple[Lane, ...]] = set()

    def next(self, now: float) -> Lane | None:
        """A lane to handle now; its place is taken until `ended`."""
        for place in PLACES:
            if place in self._taken:
                continue
            lane = self._intake.due(now, place)
            if lane is not None and self._breaker.allows(now):
                self._taken.add(place)
                return lane
        return None

    def ended(self, lane: Lane) -> None:
        """The call for this lane came to an end."""
        self._taken.difference_update([place for place in PLACES if lane in place])

    def look_at(self) -> float | None:
        """When something will be due if nothing arrives or ends before; None if nothing will."""
        if self._breaker.state == "half_open":
            return None  # The probe's end says how it goes on.
        free = [lane for place in PLACES if place not in self._taken for lane in place]
        due_at = self._intake.next_due_at(free)
        if due_at is None or self._breaker.state == "closed":
            return due_at
        return max(due_at, self._breaker.retry_at())
