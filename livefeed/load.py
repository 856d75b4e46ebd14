"""The load level: thresholds and hysteresis as data, and the steps between the levels.

Pure. One sample a second goes in. A level is left for the next one, in either direction, when
enough samples in a row call for it; never two steps at once.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Final, Literal, NamedTuple, get_args

from livefeed.limits import LAG_SECONDS_MAX, LOW_PAUSE_SECONDS_MAX

Level = Literal["normal", "elevated", "critical"]
LEVELS: Final[tuple[Level, ...]] = get_args(Level)

LOW_WINDOW_FACTOR: Final = 2.0
"""By how much the window of low grows above normal; no update waits longer than AGED_SECONDS."""
CACHE_LIFETIME_FACTOR: Final = 2.0
"""By how much what is cached lives longer above normal."""


class Threshold(NamedTuple):
    """From which value on an input calls for a level; None: it never does."""

    elevated: float | None
    critical: float | None
    meaning: str


class Steps(NamedTuple):
    """How many samples in a row it takes to come to a level from below, and to leave it."""

    enter: int
    leave: int


Input = Literal["cpu", "memory", "loop_lag", "lane_lag"]
THRESHOLDS: Final[Mapping[Input, Threshold]] = {
    "cpu": Threshold(0.8, None, "CPU of the process, of one core or its share of fewer"),
    "memory": Threshold(0.85, 0.95, "memory of the process, of its share of the limit"),
    "loop_lag": Threshold(0.25, 1.0, "seconds that a timer of the event loop came late, at most"),
    "lane_lag": Threshold(5.0, 15.0, "seconds that a message of high waited in its stream"),
}
LANES_INPUTS: Final[frozenset[Input]] = frozenset({"lane_lag"})
OWN_INPUTS: Final = frozenset(THRESHOLDS) - LANES_INPUTS
LEAVE_SHARE: Final = 0.9
"""A sample calls for less only below this share of the threshold."""
STEPS: Final[Mapping[Level, Steps]] = {"elevated": Steps(5, 10), "critical": Steps(10, 10)}
FLEET_SHARE: Final = 0.5
"""The fleet has a level when this share of its gateways has it: one gateway's trouble is its own
business."""


class LoadLevel:
    """The level that one sample after the other leads to.

    Args:
        thresholds: By input.
        inputs: Those that count here.
    """

    def __init__(self, thresholds: Mapping[Input, Threshold], inputs: Collection[Input]) -> None:
        self._thresholds = {name: thresholds[name] for name in thresholds if name in inputs}
        self.level: Level = "normal"
        self._up = self._down = 0

    def sample(self, values: Mapping[Input, float | None]) -> Level:
        """Take one sample of the inputs, an unknown one left out or None; returns the level."""
        place = LEVELS.index(self.level)
        self._up = self._up + 1 if self._calls_for_more(place, values) else 0
        self._down = self._down + 1 if self._calls_for_less(place, values) else 0
        if self._up and self._up >= STEPS[LEVELS[place + 1]].enter:
            self._go_to(LEVELS[place + 1])
        elif self._down and self._down >= STEPS[self.level].leave:
            self._go_to(LEVELS[place - 1])
        return self.level

    def _go_to(self, level: Level) -> None:
        self.level = level
        self._up = self._down = 0

    def _calls_for_more(self, place: int, values: Mapping[Input, float | None]) -> bool:
        return place + 1 < len(LEVELS) and self._reaches(LEVELS[place + 1], values, share=1.0)

    def _calls_for_less(self, place: int, values: Mapping[Input, float | None]) -> bool:
        return place > 0 and not self._reaches(self.level, values, share=LEAVE_SHARE)

    def _reaches(self, level: Level, values: Mapping[Input, float | None], *, share: float) -> bool:
        for name, threshold in self._thresholds.items():
            bound, value = limit_of(threshold, level), values.get(name)
            if bound is not None and value is not None and value >= share * bound:
                return True
        return False


def limit_of(threshold: Threshold, level: Level) -> float | None:
    """From which value on an input calls for a level; critical calls for elevated too."""
    if level == "critical":
        return threshold.critical
    bounds = [bound for bound in threshold[:2] if bound is not None]
    return min(bounds, default=None)


def highest(levels: Iterable[Level]) -> Level:
    """The highest of some levels; normal when there is none."""
    return max(levels, key=LEVELS.index, default="normal")


def at_most(level: Level, most: Level) -> Level:
    """A level, or the other one if that is lower."""
    return min(level, most, key=LEVELS.index)


def pauses_low(critical_seconds: float | None) -> bool:
    """Whether nothing of low is to be pulled.

    By turns, for a level may stay critical whatever is paused: memory that was used once is not
    given back.

    Args:
        critical_seconds: For how long the fleet has been critical; None when it is not.
    """
    return critical_seconds is not None and critical_seconds // LOW_PAUSE_SECONDS_MAX % 2 == 0


class Said(NamedTuple):
    """What a gateway says of its load."""

    gateway: str
    level: Level
    critical_seconds: float | None
    """For how long it has been critical; None when it does not say."""


def level_said(payload: bytes) -> Said | None:
    """What a gateway says; None for what is of another release, or junk."""
    try:
        said = json.loads(payload)
        gateway, level = str(said["gateway"]), said["level"]
        seconds = float(said.get("critical_seconds", -1))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    if level not in LEVELS:
        return None
    return Said(gateway, level, seconds if 0 <= seconds <= LAG_SECONDS_MAX else None)


def lag_said(payload: bytes) -> tuple[str, float] | None:
    """A worker's name and its lag in seconds; None for what is neither."""
    try:
        said = json.loads(payload)
        worker, lag = str(said["worker"]), float(said["lag_seconds"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return (worker, lag) if 0 <= lag <= LAG_SECONDS_MAX else None  # So no NaN either.


def fleet_level(levels: Collection[Level]) -> Level:
    """The highest level that enough of the gateways have; normal when none is known."""
    ranked = sorted(map(LEVELS.index, levels), reverse=True)
    for reached, place in enumerate(ranked, start=1):
        if reached >= FLEET_SHARE * len(ranked):
            return LEVELS[place]
    return "normal"


def with_bounds(
    given: Mapping[str, tuple[float | None, float | None]],
) -> dict[Input, Threshold]:
    """The thresholds with some of them replaced.

    Args:
        given: By input: from where on it calls for elevated, and for critical.

    Raises:
        ValueError: For an input that there is not, or bounds that are not in order.
    """
    unknown = given.keys() - THRESHOLDS.keys()
    if unknown:
        raise ValueError(f"there is no input {', '.join(sorted(unknown))}")
    replaced = dict(THRESHOLDS)
    for name, threshold in THRESHOLDS.items():
        elevated, critical = given.get(name, threshold[:2])
        if any(bound is not None and not bound > 0 for bound in (elevated, critical)):
            raise ValueError(f"the thresholds of {name} must be above 0, or null for never")
        if elevated is not None and critical is not None and elevated > critical:
            raise ValueError(f"{name} must not be critical below where it is elevated")
        replaced[name] = Threshold(elevated, critical, threshold.meaning)
    return replaced
