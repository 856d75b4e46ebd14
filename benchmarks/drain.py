"""Waits until everything that was accepted is handled, and measures the workers meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from benchmarks.measure import growth, usage_of
from benchmarks.stack import Stack
from livefeed.adapters.nats.connection import Connection, close
from livefeed.adapters.nats.lag import consumer_lag
from livefeed.limits import MIB
from livefeed.topology import LANE_STREAM, UPDATES

LOOK_SECONDS: Final = 0.1
SAMPLE_SECONDS: Final = 1.0


@dataclass(slots=True)
class Drained:
    """What a drain was like."""

    seconds: float = 0.0
    rss: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """By worker: its resident bytes, once a second."""

    @property
    def rss_max_mib(self) -> float:
        """The most that a worker had."""
        return round(max((max(samples) for samples in self.rss.values()), default=0) / MIB, 1)

    @property
    def rss_growth_mib(self) -> float | None:
        """By how much the worker grew that grew most; None when none ran for long enough."""
        grown = [growth(samples) for samples in self.rss.values()]
        known = [one for one in grown if one is not None]
        return round(max(known) / MIB, 1) if known else None


async def lag(connection: Connection, stream: str) -> int:
    """Messages of a stream that wait or are in workers' hands."""
    return sum((await consumer_lag(connection, stream)).values())


async def drain(stack: Stack, *, seconds_max: float) -> Drained:
    """Wait until no consumer has anything to do.

    Raises:
        TimeoutError: When that takes too long.
    """
    connection = await stack.connect("livefeed-bench")
    drained = Drained()
    began = sampled = time.perf_counter()
    try:
        async with asyncio.timeout(seconds_max):
            # In this order: what left the first stream is in the other one.
            while await lag(connection, UPDATES) or await lag(connection, LANE_STREAM):
                stack.check()
                if time.perf_counter() - sampled >= SAMPLE_SECONDS:
                    sampled += SAMPLE_SECONDS
                    for pid in stack.workers():
                        drained.rss[pid].append(usage_of([pid]).rss_bytes)
                await asyncio.sleep(LOOK_SECONDS)
    finally:
        await close(connection)
    drained.seconds = time.perf_counter() - began
    return drained
