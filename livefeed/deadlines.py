"""What is due when: one heap, however many wait, instead of a look at all of them.

Pure: times are seconds of any one clock.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Deadlines(Generic[Key]):
    """One time for each key; setting another replaces it."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Key]] = []
        self._numbers: dict[Key, int] = {}
        """The entry of the heap that counts; the others of its key were replaced."""
        self._next = itertools.count()

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def entries(self) -> int:
        """How many places the heap has, with those that were replaced."""
        return len(self._heap)

    def set(self, key: Key, at: float) -> None:
        """Have `key` due at a time."""
        number = next(self._next)
        self._numbers[key] = number
        heapq.heappush(self._heap, (at, number, key))
        self._compact()

    def discard(self, key: Key) -> None:
        """Have it due no more."""
        if self._numbers.pop(key, None) is not None:
            self._compact()

    def due(self, now: float) -> list[Key]:
        """What is due by now, in the order of its times; it is forgotten."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            _, number, key = heapq.heappop(self._heap)
            if self._numbers.get(key) == number:
                del self._numbers[key]
                found.append(key)
        return found

    def _compact(self) -> None:
        """Forget what was replaced or discarded, when that is most of it: it holds its key."""
        if len(self._heap) <= 2 * len(self._numbers) + 64:
            return
        self._heap = [one for one in self._heap if self._numbers.get(one[2]) == one[1]]
        heapq.heapify(self._heap)
