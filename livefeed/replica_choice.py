"""Which replicas a read asks, and how far behind the primary each of them is.

Pure: clocks and chances are arguments. Positions are bytes of write-ahead log. How far a replica is
behind is told by where the primary was at which time, on this process's clock: what a replica says
of itself is no measure, because one that is cut off from its primary believes that it has it all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlsplit

POSITIONS_KEPT: Final = 120
"""Positions of the primary that are remembered: two minutes of looks."""
SILENT_SECONDS_MAX: Final = 3.0
"""A primary that was not seen for longer may have written what a replica has received of it."""
NEAR_SECONDS: Final = 0.1
"""Less of a difference between two replicas is none: a look is no more exact than this."""
STALE_READS_MAX: Final = 3
"""Reads in a row in which a replica lacked all that was asked; then it is left out until the next
look at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a replica said when it was looked at; None for what it does not know."""

    received: int | None
    replayed: int | None
    age_seconds: float | None
    """How long ago the newest transaction that it has was committed."""


class Lag(NamedTuple):
    """How far a replica is behind."""

    seconds: float
    bytes: int


class Candidate(NamedTuple):
    """What is known of one replica when a read begins."""

    answers: bool
    """Whether its breakers let a call through."""
    lag: Lag | None
    """As last measured; None before the first time."""
    stale_reads: int = 0
    """Reads in a row, since it was looked at, in which it lacked all that was asked."""


class Order(NamedTuple):
    """Numbers of the replicas to ask, the first one first."""

    near: list[int]
    """Those that are close behind."""
    far: list[int]
    """Those that are too far behind, or nobody knows how far, the closest one first."""


class PrimaryTrack:
    """Where the primary was at which time."""

    def __init__(self) -> None:
        self._positions: deque[tuple[float, int]] = deque(maxlen=POSITIONS_KEPT)
        self._seen_at = 0.0

    def note(self, at: float, position: int) -> None:
        """The primary has written so far."""
        if self._positions and position < self._positions[-1][1]:
            # It was restored, or it is another server: what was known is of another history.
            self._positions.clear()
        if not self._positions or position > self._positions[-1][1]:
            self._positions.append((at, position))
        self._seen_at = at

    def lag(self, look: Look, now: float) -> Lag | None:
        """How far a replica is behind; None while the primary or the replica was never seen."""
        if not self._positions or look.replayed is None:
            return None
        behind = max(0, self._positions[-1][1] - look.replayed)
        if not behind:
            return Lag(self._seconds_unseen(look, now), 0)
        number, lacks_since = next(
            (number, at)
            for number, (at, position) in enumerate(self._positions)
            if position > look.replayed
        )
        # As of when the primary was last seen: while it is away nobody falls further behind it.
        seconds = self._seen_at - lacks_since
        if number == 0:
            # It lacks more than is remembered, so only its newest transaction can tell for how
            # long. Else that is no measure: an idle primary makes it old.
            seconds = max(seconds, look.age_seconds or 0.0)
        return Lag(seconds, behind)

    def _seconds_unseen(self, look: Look, now: float) -> float:
        """How far one is behind that has all that the primary is known to have written."""
        waits = (look.received or 0) > (look.replayed or 0)
        if waits and now - self._seen_at > SILENT_SECONDS_MAX:
            return look.age_seconds or 0.0
        return 0.0


def order(
    candidates: Sequence[Candidate], *, lag_seconds_max: float, chances: Sequence[float]
) -> Order:
    """Which replicas to ask.

    Args:
        candidates: All of them.
        lag_seconds_max: One that is further behind is far.
        chances: 0..1 for each of them.
    """
    usable = [
        number
        for number, one in enumerate(candidates)
        if one.answers and one.stale_reads < STALE_READS_MAX
    ]
    near = [number for number in usable if _seconds(candidates[number]) <= lag_seconds_max]
    far = [number for number in usable if number not in near]
    # By chance, weighted by lag. Always the least lag would send every read of every gateway to one
    # server until the next look, and make that one the slowest. Chance alone would send as many to
    # one that is two seconds behind, where what is new has to be read again elsewhere.
    near.sort(key=lambda number: -_drawn(candidates[number], chances[number]))
    far.sort(key=lambda number: (_seconds(candidates[number]), chances[number]))
    return Order(near, far)


def server_name(url: str) -> str:
    """The host and port of a server's URL, without credentials."""
    return urlsplit(url).netloc.rpartition("@")[2] or "local socket"


def _drawn(candidate: Candidate, chance: float) -> float:
    """Sorted by this, each is first as often as its weight says (Efraimidis and Spirakis)."""
    weight = NEAR_SECONDS / (NEAR_SECONDS + _seconds(candidate))
    return float(chance ** (1.0 / weight))


def _seconds(candidate: Candidate) -> float:
    return float("inf") if candidate.lag is None else candidate.lag.seconds
