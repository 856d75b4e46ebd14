"""Keeps the cyclic garbage collector from stopping a process with many connections.

A full collection looks at every object: with 10,000 connections that took seconds, and nothing is
sent meanwhile. What has lived for a while is therefore set aside and looked at no more; connections
come apart without the collector when they end.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Final

LOOK_SECONDS: Final = 0.1
YOUNG_OBJECTS: Final = 10_000
"""As many new objects are worth a collection: some 2 ms."""
YOUNG_OBJECTS_MAX: Final = 100_000
"""The collector comes by itself when there are more before the next look."""
NEVER: Final = 1_000_000
LEFT_SHARE: Final = 8
MANY: Final = 1_000
"""When of so many connections only one in `LEFT_SHARE` is left, everything is looked at again."""


async def keep_garbage_small(connections: Callable[[], int]) -> None:
    """Collect what is new, and set aside what is left of it, again and again."""
    # Each object is looked at once: the collector's own generations would do it three times.
    gc.set_threshold(YOUNG_OBJECTS_MAX, NEVER, NEVER)
    most = 0
    _set_aside()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        count = connections()
        most = max(most, count)
        if most >= MANY and count < most // LEFT_SHARE:
            gc.unfreeze()
            most = count
            _set_aside()
        elif gc.get_count()[0] > YOUNG_OBJECTS or gc.get_count()[1]:
            _set_aside()


def _set_aside() -> None:
    # Before, or garbage would be kept for good; quick, because there is little that is not aside.
    gc.collect()
    gc.freeze()
