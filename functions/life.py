"""A worker's life as data: when it leaves, and what it says of itself then."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from livefeed.limits import WORKER_MEMORY_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPolicy:
    """When a worker leaves, in seconds and bytes."""

    idle_seconds: float
    life_seconds: float
    memory_bytes_max: int = WORKER_MEMORY_BYTES_MAX
    once: bool = False
    """Gather nothing, take what is there, and leave."""


@dataclass(slots=True)
class Summary:
    """What a worker did; printed as its one line."""

    function: str
    worker: str
    reason: str = ""
    handled: int = 0
    rows: int = 0
    calls: int = 0
    retried: int = 0
    dead_lettered: int = 0
    seconds: float = 0.0
    memory_mib: float = 0.0
    lanes: dict[str, int] = field(default_factory=dict)

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))
