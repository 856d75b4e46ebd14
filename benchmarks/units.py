"""What a figure's unit says of it: what kind it is, which way is better, and how it scatters.

A unit with a remark in brackets, such as `s (naive)`, is of something beside livefeed: a reference,
or the load itself. Such a figure helps to understand the others, and is never judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Direction = Literal["lower", "higher"]
"""Which values are better."""
Kind = Literal["latency", "CPU", "memory", "rate", "ratio"]

CORE: Final = "% of a core"
LOAD_CORE: Final = "% of a core (load)"
PER_SECOND: Final = "/s"
A_READ: Final = "a read"
RATIO: Final = "×"
SHARE: Final = "share"


@dataclass(frozen=True, slots=True)
class Unit:
    """What is known of a unit.

    Attributes:
        kind: What is measured in it.
        better: Which values are better; None where a goal has to say it.
        scatter: By what share two runs of the same program may differ, one against one.
        least: A difference up to this says nothing, however large a share of the value it is.
    """

    kind: Kind
    better: Direction | None
    scatter: float
    least: float


UNITS: Final[dict[str, Unit]] = {
    "s": Unit("latency", "lower", 0.6, 0.1),
    "ms": Unit("latency", "lower", 0.6, 2.0),
    "µs": Unit("CPU", "lower", 0.35, 1.0),
    CORE: Unit("CPU", "lower", 0.35, 2.0),
    "KiB": Unit("memory", "lower", 0.2, 2.0),
    "MiB": Unit("memory", "lower", 0.2, 4.0),
    "MiB/h": Unit("memory", "lower", 0.5, 16.0),
    PER_SECOND: Unit("rate", "higher", 0.35, 0.0),
    RATIO: Unit("ratio", None, 0.25, 0.1),
    A_READ: Unit("ratio", "lower", 0.25, 0.01),
    SHARE: Unit("ratio", None, 0.1, 0.005),
}

TAIL_FACTOR: Final = 2.0
"""By how much more the slowest few of many scatter than their middle does."""
_TAILS: Final = ("p99", "p999", "max")


def unit_of(text: str) -> Unit | None:
    """What is known of a figure's unit; None for a bare number and for a reference."""
    return UNITS.get(text)


def scatter_of(name: str, unit: Unit) -> float:
    """By what share two runs of a figure may differ, one against one."""
    tail = unit.kind == "latency" and any(part in _TAILS for part in name.split("_"))
    return unit.scatter * (TAIL_FACTOR if tail else 1.0)
