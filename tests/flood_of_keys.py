"""A flood of keys through a gateway's caches, in a process of its own, whose memory it tells.

    python -m tests.flood_of_keys '{"keys": 1000000, "warm": 200000, "nats_url": null, …}'

Each key is asked for once, as somebody does who invents parameters or users; some of them fail.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import psutil
import uvloop

from livefeed.adapters.cache.levels import Level, Levels
from livefeed.adapters.cache.memory import BoundedMemoryCache
from livefeed.adapters.cache.nats_kv import NatsKvCache
from livefeed.breaker import Breaker
from livefeed.errors import Unavailable
from livefeed.limits import SNAPSHOTS_AT_ONCE
from tests.servers import connected

AT_ONCE: Final = 50
LOOKS: Final = 40
FAILING_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Flood:
    """How many keys, and how large the caches are."""

    keys: int
    warm: int
    """After so many every bound is reached: from then on the memory is looked at."""
    memory_bytes_max: int
    shared_bytes_max: int
    nats_url: str | None
    """Without one there is no shared cache."""


@dataclass(slots=True)
class Outcome:
    """What became of it."""

    memory: list[int] = field(default_factory=list)
    """Bytes, again and again. They go up and down: what was taken away stays where it was ordered
    until it is most of it."""
    seconds: float = 0.0
    failed: int = 0
    entries: int = 0
    left: dict[str, int] | None = None
    """What is kept for keys beside the entries, at the end."""


async def flood(wanted: Flood) -> Outcome:
    """Ask for all of them."""
    outcome, began_at = Outcome(), time.monotonic()
    async with AsyncExitStack() as exits:
        memory = BoundedMemoryCache(bytes_max=wanted.memory_bytes_max)
        caches: list[Any] = [memory]
        if wanted.nats_url is not None:
            connection = await exits.enter_async_context(connected(wanted.nats_url))
            caches.append(NatsKvCache(connection, bytes_max=wanted.shared_bytes_max))
        levels = Levels(
            [Level(one.NAME, one, 60.0, 3600.0, Breaker()) for one in caches],
            wall=time.time,
            clock=time.monotonic,
            chance=random.random,
            loads_max=SNAPSHOTS_AT_ONCE,
        )
        for first in range(0, wanted.keys, AT_ONCE):
            if first >= wanted.warm and first % (wanted.keys // LOOKS) == 0:
                outcome.memory.append(_memory())
            asks = (_ask(levels, number) for number in range(first, first + AT_ONCE))
            outcome.failed += AT_ONCE - sum(await asyncio.gather(*asks))
        while levels._tasks:
            await asyncio.wait(levels._tasks)
        outcome.left = {
            "flights": len(levels._flights),
            "failures": len(levels._failures._errors),
            "counts": len(levels.counts),
            "writes": sum(levels._writes.values()),
        }
        if wanted.nats_url is not None:
            outcome.left["questions"] = len(caches[1]._questions._waiting)
        outcome.entries = memory.entries
        await levels.close()
    outcome.seconds = round(time.monotonic() - began_at, 1)
    return outcome


async def _ask(levels: Levels, number: int) -> bool:
    async def load() -> bytes:
        if random.random() < FAILING_SHARE:
            try:
                raise OSError(f"the server of {number} is away")
            except OSError as error:
                raise Unavailable("log", f"no page for {number}") from error
        return random.randbytes(random.randrange(100, 300))

    try:
        await levels.get(f"epoch\nuser{number}\nhome\n50.013.", load, deadline_seconds=30.0)
    except Unavailable:
        return False
    return True


def _memory() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(flood(Flood(**json.loads(sys.argv[1])))))))
