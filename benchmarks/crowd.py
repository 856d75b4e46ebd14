"""What a crowd of clients is, what it is told, and what it says: see `clients`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.measure import LatencyRecorder
from benchmarks.traffic import Traffic
from livefeed.subjects import Lane


@dataclass(frozen=True, slots=True)
class Crowd:
    """Clients number `first` up to `stop`; client n is user n modulo the number of users."""

    traffic: Traffic
    ports: list[int]
    jwt_secret: str
    first: int
    stop: int
    manners: tuple[Manner, ...] = ()
    """How each client behaves once all are caught up, by its number: who reads, who never does, who
    reads a byte a second, and who looks away. The last one holds for all that follow."""
    slot_seconds: float = 1.0
    """How long the periods are by which latencies are told apart."""


Manner = Literal["reads", "stalls", "trickles", "hides"]


@dataclass(frozen=True, slots=True)
class Behave:
    """Everybody reads and looks again."""


@dataclass(frozen=True, slots=True)
class Await:
    """Wait until what was published so far is here: numbers 0 up to `published`."""

    published: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Judge:
    """Compare everything with what was published and with the log."""

    published: int
    unknown: frozenset[int]
    refused: frozenset[int]
    heads: Mapping[str, Mapping[str, int]]
    """By user and by the client's name of a channel."""


@dataclass(frozen=True, slots=True)
class Cut:
    """End every connection at once, as a broken network would, and stay away."""


@dataclass(frozen=True, slots=True)
class Churn:
    """From now on cut so many random connections a second, each of which comes back by itself."""

    per_second: float
    """0: no more."""


@dataclass(frozen=True, slots=True)
class ComeBack:
    """Connect all again, each with its cursor; the answer is the seconds until it is caught up."""

    spread_seconds: float
    """Each client waits for a random time up to this first, as the protocol asks."""
    seconds_max: float


@dataclass(frozen=True, slots=True)
class Away:
    """When a client's connection ended, and when it was caught up again, in ns of `clock`."""

    since: int
    until: int

    @property
    def seconds(self) -> float:
        """How long it had no feed that is current."""
        return (self.until - self.since) / 1e9


@dataclass(slots=True)
class Taken:
    """What came since the last time that was asked."""

    latencies: dict[tuple[Lane, int], LatencyRecorder] = field(default_factory=dict)
    """From the scheduled time, of those that are recorded, by what they said of their priority and
    by the period in which they were due, which is numbered by this computer's clock."""
    deliveries: int = 0
    replayed: int = 0
    """Deliveries that came from the log, because there was no live push or it was lost."""
    reconnects: int = 0
    resets: int = 0
    frames_a_second: int = 0
    """Most frames with updates that one client was sent within a second."""
    away: list[Away] = field(default_factory=list)
    """Of all clients."""
