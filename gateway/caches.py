"""The caches of feeds' pages: this process's memory, then what all gateways share.

Pages of a costly feed source are in the database too. Pages of the log are not: they come from it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from livefeed.adapters.cache.levels import Level, Levels
from livefeed.adapters.cache.memory import BoundedMemoryCache
from livefeed.adapters.cache.nats_kv import NatsKvCache
from livefeed.adapters.cache.table import TableCache
from livefeed.adapters.nats.connection import Connection as Nats
from livefeed.adapters.postgres.pool import Pool
from livefeed.breaker import Breaker
from livefeed.limits import (
    CACHE_MEMORY_FRESH_SECONDS,
    CACHE_SHARED_FRESH_SECONDS,
    CACHE_STALE_SECONDS,
    SNAPSHOTS_AT_ONCE,
)
from livefeed.settings import Settings

SHARED_FACTOR: Final = CACHE_SHARED_FRESH_SECONDS / CACHE_MEMORY_FRESH_SECONDS
"""How much longer a page is fresh in the shared cache than in a gateway's memory."""


class Caches(NamedTuple):
    """What pages are kept in."""

    levels: Levels
    memory: BoundedMemoryCache


def page_caches(
    settings: Settings, nats: Nats, primary: Pool, factor: Callable[[], float]
) -> Caches:
    """The caches of one gateway process.

    Args:
        settings: How long pages are fresh, and how much is kept.
        nats: Has what the gateways share.
        primary: Has what they keep for longer.
        factor: By how much pages are fresh for longer now.
    """
    memory = BoundedMemoryCache(bytes_max=settings.cache_memory_bytes_max)
    shared = NatsKvCache(nats, replicas=settings.nats_replicas)
    fresh = settings.snapshot_fresh_seconds
    each = [
        Level("memory", memory, fresh, CACHE_STALE_SECONDS, Breaker()),
        Level("shared", shared, fresh * SHARED_FACTOR, CACHE_STALE_SECONDS, Breaker()),
    ]
    kept = settings.feed_source_pages_seconds
    if settings.feed_source is not None and kept > 0:
        each.append(Level("table", TableCache(primary), kept, CACHE_STALE_SECONDS, Breaker()))
    levels = Levels(
        each,
        wall=time.time,
        clock=time.monotonic,
        chance=random.random,
        loads_max=SNAPSHOTS_AT_ONCE,
        factor=factor,
    )
    return Caches(levels, memory)
