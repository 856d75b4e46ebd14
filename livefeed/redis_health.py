"""What the facts about a Redis mean, which gateways share pages in. Pure; the adapter has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from livefeed.health import Check, Figure, Problem, conclude
from livefeed.limits import MIB

REDIS_VERSION_MIN: Final = 6
POLICY: Final = "allkeys-lru"
POLICY_MEND: Final = f"set `maxmemory` and `maxmemory-policy {POLICY}` in its configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """One server, as it describes itself."""

    version: str
    is_replica: bool
    policy: str
    """What it does with a write when it is full."""
    bytes_max: int
    """0: as much as there is."""
    bytes_used: int
    evicted: int
    """Values that had to go for others since it was started."""


def redis(facts: RedisFacts) -> Check:
    """Whether it takes pages, and lets the oldest go when it is full; feeds are served anyway."""
    problems = []
    if _major(facts.version) < REDIS_VERSION_MIN:
        reason = f"Redis {facts.version} is older than what was tested"
        mend = f"install Redis {REDIS_VERSION_MIN} or newer"
        problems.append(Problem("degraded", reason, mend))
    if facts.is_replica:
        reason = "it is a replica: nothing can be written"
        problems.append(Problem("degraded", reason, "set LIVEFEED_REDIS_URL to its primary"))
    if facts.policy == "noeviction":
        reason = "its policy is noeviction: when it is full, no page that is made is shared"
        problems.append(Problem("degraded", reason, POLICY_MEND))
    elif facts.bytes_max == 0:
        reason = "its memory has no limit: it grows until the system ends it"
        problems.append(Problem("degraded", reason, POLICY_MEND))
    figures: dict[str, Figure] = {
        "version": facts.version,
        "policy": facts.policy,
        "used_bytes": facts.bytes_used,
        "max_bytes": facts.bytes_max,
        "evicted": facts.evicted,
    }
    memory = f"{facts.bytes_used // MIB} of {facts.bytes_max // MIB} MiB"
    healthy = f"Redis {facts.version} takes pages; {memory}, {facts.policy}"
    return conclude("redis", problems, healthy=healthy, figures=figures)


def _major(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isdigit() else 0
