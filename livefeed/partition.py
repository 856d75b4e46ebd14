"""Which partition a channel is in, and which worker serves a partition.

Pure. The partition of a user or topic is fixed for ever; the server of a partition is the worker
with the highest rendezvous weight among those alive, so one worker more or less moves only its
share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from livefeed.limits import ANNOUNCED_SECONDS_MAX, PARTITIONS

REMEMBERED_OWNERS: Final = 16_384
"""Owners whose partition is not computed again; it was a tenth of prioritize's work."""


@lru_cache(maxsize=REMEMBERED_OWNERS)
def partition_of(owner: str) -> int:
    """The partition of a channel's owner, `user:<id>` or `topic:<feed>`: 0..15."""
    digest = hashlib.blake2b(owner.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % PARTITIONS


def served_by(worker: str, alive: Iterable[str]) -> frozenset[int]:
    """The partitions that `worker` serves beside the workers that are alive."""
    workers = {worker, *alive}
    return frozenset(
        partition
        for partition in range(PARTITIONS)
        if max(workers, key=lambda name: _weight(name, partition)) == worker
    )


def alive(heard_at: Mapping[str, float], now: float) -> frozenset[str]:
    """The workers that announced themselves lately; times in seconds of one monotonic clock."""
    return frozenset(
        worker for worker, heard in heard_at.items() if now - heard <= ANNOUNCED_SECONDS_MAX
    )


def _weight(worker: str, partition: int) -> tuple[bytes, str]:
    digest = hashlib.blake2b(f"{worker}/{partition}".encode(), digest_size=8).digest()
    return digest, worker
