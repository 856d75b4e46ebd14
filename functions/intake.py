"""What a worker has in its hands: read messages by lane, within bounds, and which lane is due.

Pure but for the clock that its caller reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Final, NamedTuple

from functions.function import Work
from livefeed.limits import AGED_SECONDS, ISOLATE_DELIVERIES, MIB
from livefeed.subjects import LANES, Lane
from livefeed.window import LaneWindow, most_overdue

HELD_BYTES_MAX: Final = 16 * MIB
"""Payload bytes of one lane in hand, above which nothing more is asked for: the next call's."""
HELD_MESSAGES_MAX: Final = 5_000
TAKE_MESSAGES_MAX: Final = 4_000
"""Messages that one call of a function gets."""


class Held(NamedTuple):
    """A message in hand."""

    work: Work
    received_at: float
    accepted_at: float
    """When JetStream accepted its update; where that clock is ahead, when it was received."""
    aged_at: float
    """When it has waited enough, whatever its lane's window."""


class Queue:
    """Messages that are handled together, oldest first."""

    def __init__(self) -> None:
        self.held: deque[Held] = deque()
        self._aged_at: deque[float] = deque()
        """When each has waited enough that does so before all that stand behind it, ascending."""

    @property
    def aged_at(self) -> float:
        """When the first of them has waited enough."""
        return self._aged_at[0]

    def append(self, held: Held) -> None:
        """Put one behind all others."""
        self.held.append(held)
        while self._aged_at and self._aged_at[-1] > held.aged_at:
            self._aged_at.pop()
        self._aged_at.append(held.aged_at)

    def appendleft(self, held: Held) -> None:
        """Put one before all others."""
        self.held.appendleft(held)
        if not self._aged_at or held.aged_at <= self._aged_at[0]:
            self._aged_at.appendleft(held.aged_at)

    def popleft(self) -> Held:
        """Take the first."""
        held = self.held.popleft()
        if held.aged_at == self._aged_at[0]:
            self._aged_at.popleft()
        return held


class LaneIntake:
    """The messages of one lane, by their queues."""

    def __init__(self, window_seconds: float) -> None:
        self._window = LaneWindow(window_seconds)
        self._queues: dict[str, Queue] = {}
        """Those that hold something."""
        self._messages = self._bytes = 0
        self._take_max = TAKE_MESSAGES_MAX

    def __len__(self) -> int:
        return self._messages

    def __iter__(self) -> Iterator[Held]:
        return chain.from_iterable(queue.held for queue in self._queues.values())

    @property
    def has_room(self) -> bool:
        """Whether more may be asked for."""
        return self._bytes < HELD_BYTES_MAX and self._messages < HELD_MESSAGES_MAX

    def oldest(self) -> list[Held]:
        """The first of each queue."""
        return [queue.held[0] for queue in self._queues.values()]

    def widen(self, factor: float) -> None:
        """Have it gather so many times as long; age makes it due all the same."""
        self._window.factor = factor

    def add(self, work: Work, *, now: float, age_seconds: float) -> None:
        """Take a message in hand."""
        self._window.arrived(now, work.updates)
        age_seconds = max(0.0, age_seconds)
        waits = self._window.urgent_seconds(now)
        if work.gathers:
            waits = max(0.0, AGED_SECONDS - age_seconds)
        self._queue(work).append(Held(work, now, now - age_seconds, now + waits))
        self._count(work, 1)

    def due_at(self) -> float | None:
        """When this lane must be handled; None when it is empty."""
        if not self._queues:
            return None
        if not self.has_room:
            # Nothing comes to gather with.
            return min(held.received_at for held in self.oldest())
        return min(map(self._due_at, self._queues.values()))

    def take(self, *, rows_max: int, bytes_max: int) -> list[Held]:
        """What one call gets: the queues that are due first, the oldest of each first.

        One that failed often comes alone, and what may not wait takes nothing along that gathers.
        """
        taken: list[Held] = []
        rows = size = 0
        for name, queue in sorted(self._queues.items(), key=lambda item: self._due_at(item[1])):
            while queue.held:
                work = queue.held[0].work
                alone = work.message.deliveries >= ISOLATE_DELIVERIES
                rows, size = rows + work.rows, size + len(work.message.payload)
                full = rows > rows_max or size > bytes_max or len(taken) == self._take_max
                if taken and (alone or full or work.gathers != taken[0].work.gathers):
                    return taken
                taken.append(queue.popleft())
                self._count(work, -1)
                if not queue.held:
                    del self._queues[name]
                if alone:
                    return taken
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
            self._queue(held.work).appendleft(held)
            self._count(held.work, 1)

    def _queue(self, work: Work) -> Queue:
        return self._queues.setdefault(work.queue, Queue())

    def _count(self, work: Work, sign: int) -> None:
        self._messages += sign
        self._bytes += sign * len(work.message.payload)

    def _due_at(self, queue: Queue) -> float:
        first = queue.held[0]
        return min(queue.aged_at, self._window.due_at(first.received_at, first.accepted_at))


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
