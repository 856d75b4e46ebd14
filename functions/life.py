"""A worker's life as data: when it leaves, and what it says of itself then."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPolicy:
    """When a worker leaves, in seconds."""

    idle_seconds: float
    life_seconds: float
    once: bool = False
    """Leave as soon as nothing is in hand and nothing comes."""


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
