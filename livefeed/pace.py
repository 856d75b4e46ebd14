"""The frame budget: when a connection may be sent its next frame of updates.

Pure: time is an argument. Two windows that every frame is counted in, and a far slower token bucket
beside them while nobody looks. What does not fit is not queued: the connection is behind,
and one page of the log makes up for all of it.
"""

from __future__ import annotations

import math
from typing import Final

from livefeed.limits import (
    FRAMES_A_SECOND_MAX,
    FRAMES_BURST,
    HIDDEN_FRAME_SECONDS,
    HIDDEN_FRAMES_BURST,
)

_ROUNDING: Final = 1e-6
LONG_SECONDS: Final = 1.05
"""The window of `FRAMES_A_SECOND_MAX` frames: what was sent before does not count any more. Longer
than a second, because what was sent evenly does not arrive so."""
_SHORT_SECONDS: Final = FRAMES_BURST / FRAMES_A_SECOND_MAX
"""A second window, of `FRAMES_BURST` frames: it spreads what the longer one allows, so that a busy
channel is not quick for a moment and then silent."""


class Recent:
    """The frames of the last second, and whether another one fits."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: list[float] = []
        """Of the last frames, no more of them than the bound."""

    def ready_at(self, now: float, keep: int = 0) -> float:
        """When a frame may be sent, now or later.

        Args:
            now: The clock, in seconds.
            keep: Frames that have to stay possible for somebody else.
        """
        # Asked for each frame of each connection, so it is written out for both windows.
        times, at = self._times, now
        beyond = len(times) + keep - FRAMES_BURST
        if beyond >= 0:
            short = times[beyond] + _SHORT_SECONDS
            at = max(at, short)
            beyond = len(times) + keep - FRAMES_A_SECOND_MAX
            if beyond >= 0:
                long = times[beyond] + LONG_SECONDS
                at = max(at, long)
        return at

    def take(self, now: float) -> None:
        """A frame is sent."""
        if len(self._times) == FRAMES_A_SECOND_MAX:
            del self._times[0]
        self._times.append(now)

    def moved(self, now: float) -> None:
        """The last one was sent later than was said."""
        self._times[-1] = now

    def copy(self) -> Recent:
        """The same history, to go on by itself."""
        other = Recent()
        other._times = self._times.copy()
        return other


class Hidden:
    """A token bucket: a frame takes a token, and tokens come back with time."""

    __slots__ = ("_at", "_tokens")

    def __init__(self, now: float) -> None:
        self._tokens: float = HIDDEN_FRAMES_BURST
        self._at = now

    def ready_at(self, now: float, keep: int = 0) -> float:
        """When a frame may be sent, now or later.

        Args:
            now: The clock, in seconds.
            keep: Tokens that have to be left for somebody else.
        """
        lacking = 1 + keep - self._filled(now)
        if lacking <= _ROUNDING:
            return now
        # On a whole second: those who are hidden at the same place are read for together.
        return float(math.ceil(now + lacking * HIDDEN_FRAME_SECONDS))

    def take(self, now: float) -> None:
        """A frame is sent."""
        self._tokens = self._filled(now) - 1
        self._at = now

    def _filled(self, now: float) -> float:
        return min(self._tokens + (now - self._at) / HIDDEN_FRAME_SECONDS, HIDDEN_FRAMES_BURST)


class Pace:
    """The frame budget of one connection."""

    __slots__ = ("_hidden", "recent")

    def __init__(self) -> None:
        self.recent = Recent()
        """The frames that were sent, looked at or not."""
        self._hidden: Hidden | None = None

    @property
    def visible(self) -> bool:
        """Whether anybody looks."""
        return self._hidden is None

    def show(self) -> None:
        """Somebody looks: from here only the windows count."""
        self._hidden = None

    def hide(self, now: float) -> None:
        """Nobody looks any more."""
        self._hidden = self._hidden or Hidden(now)

    def ready_at(self, now: float) -> float:
        """When a frame of updates may be sent: now or later."""
        at = self.recent.ready_at(now)
        return at if self._hidden is None else max(at, self._hidden.ready_at(now))

    def try_take(self, now: float, keep: int) -> bool:
        """Whether a frame of updates may be sent now, `keep` more staying possible; then it is."""
        if self.recent.ready_at(now, keep) > now:
            return False
        if self._hidden is not None:
            if self._hidden.ready_at(now, keep) > now:
                return False
            self._hidden.take(now)
        self.recent.take(now)
        return True

    def take(self, now: float) -> None:
        """A frame of updates is sent."""
        self.recent.take(now)
        if self._hidden is not None:
            self._hidden.take(now)
