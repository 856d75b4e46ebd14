"""The caches of feeds' pages: this process's memory, then what all gateways share.

Pages of a costly feed source are in the database too. Pages of the log are not: they come from it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import NamedTuple

from livefeed.adapters.cache.bytes_cache import BytesCache
from livefeed.adapters.cache.levels import Level, Levels
from livefeed.adapters.cache.memory import BoundedMemoryCache
from livefeed.adapters.cache.nats_kv import NatsKvCache
from livefeed.adapters.cache.redis_cache import RedisCache
from livefeed.adapters.cache.table import TableCache
from livefeed.adapters.nats.connection import Connection as Nats
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.redis_client import RedisClient
from livefeed.breaker import Breaker
from livefeed.cache import SHARED_FACTOR
from livefeed.limits import CACHE_STALE_SECONDS, SNAPSHOTS_AT_ONCE
from livefeed.settings import Settings


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
        nats: Has what the gateways share, unless Redis has.
        primary: Has what they keep for longer.
        factor: By how much pages are fresh for longer now.
    """
    memory = BoundedMemoryCache(bytes_max=settings.cache_memory_bytes_max)
    shared = _shared(settings, nats)
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


def _shared(settings: Settings, nats: Nats) -> BytesCache:
    """What the gateways share: one of the two, so that the other has nothing to do with it."""
    if settings.redis_url is not None:
        return RedisCache(RedisClient(settings.redis_url))
    return NatsKvCache(nats, replicas=settings.nats_replicas)
