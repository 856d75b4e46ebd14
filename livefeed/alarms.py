"""Alarms: who is to be looked at when, in order of time, without a timer for each.

Pure: times are seconds of one clock. Setting an alarm again moves it.
"""

from __future__ import annotations

import heapq
from typing import Final, Generic, TypeVar

Key = TypeVar("Key")

_STALE_MIN: Final = 64


class Alarms(Generic[Key]):
    """A time for each key, and which of them has come."""

    def __init__(self) -> None:
        self._at: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        """Moved and taken away ones stay until they are on top, or too many."""
        self._number = 0

    def set(self, key: Key, at: float) -> None:
        """Wake the key at a time, and not at the time that it had."""
        if self._at.get(key) == at:
            return
        self._at[key] = at
        self._number += 1
        heapq.heappush(self._heap, (at, self._number, key))
        self._compact()

    def discard(self, key: Key) -> None:
        """Do not wake it."""
        if self._at.pop(key, None) is not None:
            self._compact()

    def next_at(self) -> float | None:
        """When the next one is due."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def due(self, now: float, most: int) -> list[Key]:
        """Take out the keys whose time has come, the earliest first."""
        found: list[Key] = []
        while len(found) < most and (at := self.next_at()) is not None and at <= now:
            key = heapq.heappop(self._heap)[2]
            del self._at[key]
            found.append(key)
        return found

    def _compact(self) -> None:
        """Forget what was moved or taken away, when that is most of it: it holds its key."""
        if len(self._heap) > 2 * len(self._at) + _STALE_MIN:
            self._heap = [entry for entry in self._heap if self._at.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def _drop_stale(self) -> None:
        while self._heap and self._at.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
