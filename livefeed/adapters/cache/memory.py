"""A cache in this process's memory, bounded in entries and in bytes.

aiocache's own has no bound, and a timer for each key, which outlives what it was set for.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from sys import getsizeof
from typing import Any, Final, NamedTuple

from livefeed.adapters.cache.bytes_cache import BytesCache, is_there
from livefeed.alarms import Alarms
from livefeed.limits import CACHE_MEMORY_BYTES_MAX, CACHE_MEMORY_ENTRIES_MAX

ENTRY_BYTES: Final = 600
"""What an entry costs beside its key and its value: a place in the order and one among the ends,
with those that were moved and not yet taken away. Measured, and rounded up."""
VALUE_SHARE_MAX: Final = 0.25
"""A value that takes more of the cache than this is not kept: all others would have to go."""
SWEPT_AT_ONCE: Final = 8
"""How many that are past their time each write takes out at the most."""


class _Kept(NamedTuple):
    value: bytes
    ends_at: float


class BoundedMemoryCache(BytesCache):
    """Keeps bytes; what was not asked for longest goes first when there are too many.

    A value whose time has come is not given out, and is taken out by later writes.

    Args:
        entries_max: Most entries.
        bytes_max: Most bytes, with what an entry costs beside its value.
        clock: Monotonic seconds.
    """

    NAME = "memory"

    def __init__(
        self,
        *,
        entries_max: int = CACHE_MEMORY_ENTRIES_MAX,
        bytes_max: int = CACHE_MEMORY_BYTES_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        """What was not asked for longest is first."""
        self._ends: Alarms[str] = Alarms()
        self.bytes_kept = 0
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        """Entries that had to go before their time, for others or for the memory."""

    @property
    def entries(self) -> int:
        """How many it keeps now, with those past their time that were not taken out yet."""
        return len(self._kept)

    def shrink(self, share: float) -> int:
        """Keep this share of the bytes, of what was asked for last; returns what was let go.

        For whoever watches the memory: 0 empties it.
        """
        before = self.bytes_kept
        self._evict(bytes_max=int(before * share))
        return before - self.bytes_kept

    def sweep(self, most: int = SWEPT_AT_ONCE) -> int:
        """Take out some whose time has come; returns how many."""
        due = self._ends.due(self._clock(), most)
        for key in due:
            self._drop(key)
        return len(due)

    async def _get(self, key: str, encoding: Any = None, _conn: Any = None) -> bytes | None:
        kept = self._kept.get(key)
        if kept is not None and kept.ends_at <= self._clock():
            self._drop(key)
            kept = None
        if kept is None:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return kept.value

    async def _set(
        self,
        key: str,
        value: bytes,
        ttl: float | None = None,
        _cas_token: Any = None,
        _conn: Any = None,
    ) -> bool:
        if not isinstance(value, bytes):
            raise TypeError(f"the cache keeps bytes, not {type(value).__name__}")
        self._drop(key)
        size = _size(key, value)
        if size > self._bytes_max * VALUE_SHARE_MAX:
            return False
        self.sweep()
        self._evict(bytes_max=self._bytes_max - size, entries_max=self._entries_max - 1)
        self._kept[key] = _Kept(value, self._ends_at(key, ttl))
        self.bytes_kept += size
        return True

    async def _add(
        self, key: str, value: bytes, ttl: float | None = None, _conn: Any = None
    ) -> bool:
        if await self._exists(key):
            raise is_there(key)
        return await self._set(key, value, ttl)

    async def _exists(self, key: str, _conn: Any = None) -> bool:
        kept = self._kept.get(key)
        return kept is not None and kept.ends_at > self._clock()

    async def _expire(self, key: str, ttl: float | None, _conn: Any = None) -> bool:
        if not await self._exists(key):
            return False
        # aiocache: 0 takes the end away.
        self._kept[key] = self._kept[key]._replace(ends_at=self._ends_at(key, ttl or None))
        return True

    async def _delete(self, key: str, _conn: Any = None) -> int:
        return int(self._drop(key))

    async def _clear(self, namespace: str | None = None, _conn: Any = None) -> bool:
        if namespace is not None:
            # A prefix in aiocache: "user1" would take what is of "user10" too.
            raise NotImplementedError("this cache has no namespaces")
        self._kept.clear()
        self._ends = Alarms()
        self.bytes_kept = 0
        return True

    def _ends_at(self, key: str, ttl: float | None) -> float:
        if ttl is None:
            self._ends.discard(key)
            return float("inf")
        ends_at = self._clock() + ttl
        self._ends.set(key, ends_at)
        return ends_at

    def _evict(self, *, bytes_max: int, entries_max: int | None = None) -> None:
        while self._kept and (
            self.bytes_kept > bytes_max
            or (entries_max is not None and len(self._kept) > entries_max)
        ):
            self._drop(next(iter(self._kept)))
            self.evictions += 1

    def _drop(self, key: str) -> bool:
        kept = self._kept.pop(key, None)
        if kept is None:
            return False
        self._ends.discard(key)
        self.bytes_kept -= _size(key, kept.value)
        return True


def _size(key: str, value: bytes) -> int:
    return ENTRY_BYTES + getsizeof(key) + getsizeof(value)
