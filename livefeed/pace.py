"""The frame budget: when a connection may be sent its next frame of updates.

Pure: time is an argument. Two token buckets: one that every frame is taken from, and a far slower
one beside it while nobody looks. What does not fit is not queued: the connection is behind, and
one page of the log makes up for all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from livefeed.limits import (
    FRAMES_A_SECOND_MAX,
    FRAMES_BURST,
    HIDDEN_FRAME_SECONDS,
    HIDDEN_FRAMES_BURST,
)

_ROUNDING: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Rate:
    """How many frames at once, and how many a second after that."""

    burst: int
    a_second: float


# What has gathered and what comes within the same second are together no more than the bound.
VISIBLE: Final = Rate(FRAMES_BURST, FRAMES_A_SECOND_MAX - FRAMES_BURST)
HIDDEN: Final = Rate(HIDDEN_FRAMES_BURST, 1 / HIDDEN_FRAME_SECONDS)


class Bucket:
    """A token bucket: a frame takes a token, and tokens come back with time."""

    __slots__ = ("_a_second", "_at", "_burst", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._burst: float = rate.burst
        self._a_second = rate.a_second
        self._tokens: float = rate.burst
        self._at = now

    def ready_at(self, now: float, keep: int = 0) -> float:
        """When a frame may be sent, now or later.

        Args:
            now: The clock, in seconds.
            keep: Tokens that have to be left for somebody else.
        """
        lacking = 1 + keep - self._filled(now)
        return now if lacking <= _ROUNDING else now + lacking / self._a_second

    def take(self, now: float) -> None:
        """A frame is sent."""
        self._tokens = self._filled(now) - 1
        self._at = now

    def try_take(self, now: float, keep: int) -> bool:
        """Take a token if there is one to spare; written out, for every live frame asks it."""
        tokens = self._tokens + (now - self._at) * self._a_second
        tokens = min(tokens, self._burst)
        if tokens < 1 + keep - _ROUNDING:
            return False
        self._tokens = tokens - 1
        self._at = now
        return True

    def _filled(self, now: float) -> float:
        return min(self._tokens + (now - self._at) * self._a_second, self._burst)


class Pace:
    """The frame budget of one connection."""

    __slots__ = ("_all", "_hidden")

    def __init__(self, now: float) -> None:
        self._all = Bucket(VISIBLE, now)
        self._hidden: Bucket | None = None

    @property
    def visible(self) -> bool:
        """Whether anybody looks."""
        return self._hidden is None

    def show(self) -> None:
        """Somebody looks: from here only the quick bucket counts."""
        self._hidden = None

    def hide(self, now: float) -> None:
        """Nobody looks any more."""
        self._hidden = self._hidden or Bucket(HIDDEN, now)

    def ready_at(self, now: float, keep: int = 0) -> float:
        """When a frame of updates may be sent, `keep` more staying possible: now or later."""
        at = self._all.ready_at(now, keep)
        return at if self._hidden is None else max(at, self._hidden.ready_at(now, keep))

    def try_take(self, now: float, keep: int) -> bool:
        """Whether a frame of updates may be sent now, `keep` more staying possible; then it is."""
        if self._hidden is not None and self._hidden.ready_at(now, keep) > now:
            return False
        taken = self._all.try_take(now, keep)
        if taken and self._hidden is not None:
            self._hidden.take(now)
        return taken

    def take(self, now: float) -> None:
        """A frame of updates is sent."""
        self._all.take(now)
        if self._hidden is not None:
            self._hidden.take(now)
