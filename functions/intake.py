"""What a worker has in its hands: read messages by lane, within bounds, and which lane is due.

Pure but for the clock that its caller reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from functions.function import Work
from livefeed.limits import AGED_SECONDS, ISOLATE_DELIVERIES, MIB
from livefeed.subjects import LANES, Lane
from livefeed.window import LaneWindow, most_overdue

HELD_BYTES_MAX: Final = 16 * MIB
"""Payload bytes of one lane in hand, above which nothing more is asked for: the next call's."""
HELD_MESSAGES_MAX: Final = 5_000
TAKE_MESSAGES_MAX: Final = 500
"""Messages that one call of a function gets."""


class Held(NamedTuple):
    """A message in hand."""

    work: Work
    received_at: float
    aged_at: float
    """When it has waited enough, whatever its lane's window."""


class LaneIntake:
    """The messages of one lane, oldest first."""

    def __init__(self, window_seconds: float) -> None:
        self._window = LaneWindow(window_seconds)
        self._held: deque[Held] = deque()
        self._bytes = 0
        self._take_max = TAKE_MESSAGES_MAX
        self._aged_at: deque[float] = deque()
        """When each has waited enough that does so before all that stand behind it, ascending."""

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held)

    @property
    def has_room(self) -> bool:
        """Whether more may be asked for."""
        return self._bytes < HELD_BYTES_MAX and len(self._held) < HELD_MESSAGES_MAX

    def widen(self, factor: float) -> None:
        """Have it gather so many times as long; age makes it due all the same."""
        self._window.factor = factor

    def add(self, work: Work, *, now: float, age_seconds: float) -> None:
        """Take a message in hand."""
        self._window.arrived(now)
        aged_at = now + max(0.0, AGED_SECONDS - age_seconds)
        self._held.append(Held(work, now, aged_at))
        while self._aged_at and self._aged_at[-1] > aged_at:
            self._aged_at.pop()
        self._aged_at.append(aged_at)
        self._bytes += len(work.message.payload)

    def due_at(self) -> float | None:
        """When this lane must be handled; None when it is empty."""
        if not self._held:
            return None
        return min(self._aged_at[0], self._window.due_at(self._held[0].received_at))

    def take(self, *, rows_max: int, bytes_max: int) -> list[Held]:
        """The oldest messages, as many as one call may get; one that failed often comes alone."""
        taken: list[Held] = []
        rows = size = 0
        while self._held and len(taken) < self._take_max:
            held = self._held[0]
            alone = held.work.message.deliveries >= ISOLATE_DELIVERIES
            weight = len(held.work.message.payload)
            full = rows + held.work.rows > rows_max or size + weight > bytes_max
            if taken and (alone or full):
                break
            taken.append(self._held.popleft())
            if held.aged_at == self._aged_at[0]:
                self._aged_at.popleft()
            self._bytes -= weight
            size += weight
            rows += held.work.rows
            if alone:
                break
        return taken

    def succeeded(self) -> None:
        """A call came back: the next may be larger again."""
        self._take_max = min(TAKE_MESSAGES_MAX, 2 * self._take_max)

    def put_back(self, taken: list[Held]) -> None:
        """Have them in hand again, oldest first; fewer at once are tried next.

        What failed together may be too much for a stream that is nearly full, or for the time that
        a statement may take.
        """
        self._take_max = max(1, len(taken) // 2)
        self.put_first(taken)

    def put_first(self, taken: list[Held]) -> None:
        """Have them in hand again, oldest first."""
        for held in reversed(taken):
            self._held.appendleft(held)
            if not self._aged_at or held.aged_at <= self._aged_at[0]:
                self._aged_at.appendleft(held.aged_at)
        self._bytes += sum(len(held.work.message.payload) for held in taken)


class Intake:
    """All lanes of a worker."""

    def __init__(self, windows: Mapping[Lane, float]) -> None:
        self.lanes = {lane: LaneIntake(windows[lane]) for lane in LANES}

    def __len__(self) -> int:
        return sum(map(len, self.lanes.values()))

    def due(self, now: float, lanes: Iterable[Lane] = LANES) -> Lane | None:
        """Of these lanes the one to handle now."""
        due_at = {lane: self.lanes[lane].due_at() for lane in lanes}
        return most_overdue({lane: at for lane, at in due_at.items() if at is not None}, now)

    def next_due_at(self, lanes: Iterable[Lane] = LANES) -> float | None:
        """When the next of these lanes will be due."""
        times = [self.lanes[lane].due_at() for lane in lanes]
        return min((time for time in times if time is not None), default=None)
