"""Gives memory back before there is none: what is kept for others' convenience goes first."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from livefeed.limits import CACHES_EMPTY_SHARE, CACHES_SHRINK_SHARE, MEMORY_LOOK_SECONDS

logger = logging.getLogger(__name__)

SHRUNK_TO: Final = 0.5
"""The share of what a cache may keep that it keeps when memory is short."""
COLLECT_SECONDS: Final = 60.0
"""How seldom everything is looked at for garbage: nothing else happens meanwhile."""


class Shrinks(Protocol):
    """A cache in memory."""

    def shrink(self, share: float) -> None:
        """Keep this share of what may be kept."""
        ...


class MemoryWatch:
    """Looks at the share of its memory that this process uses.

    Args:
        share: Measures it.
        cache: What is made smaller, and emptied.
    """

    def __init__(self, share: Callable[[], float], cache: Shrinks) -> None:
        self._share: Final = share
        self._cache: Final = cache
        self.shrunk = self.emptied = 0
        """How often."""
        self._collected_at = -COLLECT_SECONDS

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(MEMORY_LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Look once."""
        share = self._share()
        if share >= CACHES_EMPTY_SHARE:
            self.emptied += 1
            self._cache.shrink(0.0)
            self._collect(share)
        elif share >= CACHES_SHRINK_SHARE:
            self.shrunk += 1
            self._cache.shrink(SHRUNK_TO)

    def _collect(self, share: float) -> None:
        now = time.monotonic()
        if now - self._collected_at >= COLLECT_SECONDS:
            self._collected_at = now
            logger.warning("the memory is %.0f %% full: caches are emptied", share * 100)
            gc.unfreeze()
            gc.collect()
