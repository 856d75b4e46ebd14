"""Latencies of many deliveries, and what processes use."""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import psutil

GAMMA: Final = 1.04
BINS: Final = 420
FIRST_SECONDS: Final = 10e-6
GROWTH_SAMPLES_MIN: Final = 3
"""Of each of the two groups that are compared."""
_SCALE: Final = 1 / math.log(GAMMA)


@dataclass(slots=True)
class LatencyRecorder:
    """Latencies in logarithmic buckets: at most 2 % wrong, mergeable, 0.25 µs a record."""

    bins: list[int] = field(default_factory=lambda: [0] * BINS)
    """Bucket i holds from 10 µs × 1.04^i on; the last one holds everything above 140 s."""
    count: int = 0
    total: float = 0.0
    """Seconds, of all of them."""
    maximum: float = 0.0

    def record(self, seconds: float) -> None:
        """Count one latency."""
        # A clock read on another core may be a little behind: that is 0, not an error.
        place = int(math.log(seconds / FIRST_SECONDS) * _SCALE) if seconds > FIRST_SECONDS else 0
        self.bins[place if place < BINS else BINS - 1] += 1
        self.count += 1
        self.total += seconds
        if seconds > self.maximum:  # noqa: PLR1730  # max() is a call, and this runs for each frame
            self.maximum = seconds

    def merge(self, other: LatencyRecorder) -> None:
        """Add what another one counted."""
        self.bins = [mine + theirs for mine, theirs in zip(self.bins, other.bins, strict=True)]
        self.count += other.count
        self.total += other.total
        self.maximum = max(self.maximum, other.maximum)

    def percentile(self, percent: float) -> float:
        """Seconds below which `percent` of the latencies lie; 0 when there are none."""
        wanted = math.ceil(self.count * percent / 100)
        passed = 0
        for place, number in enumerate(self.bins):
            passed += number
            if number and passed >= wanted:
                # The bucket's middle, but never more than was seen; the last one has no middle.
                middle: float = FIRST_SECONDS * GAMMA ** (place + 0.5)
                return min(middle, self.maximum) if place < BINS - 1 else self.maximum
        return 0.0

    def share_within(self, seconds: float) -> float:
        """The share of the latencies that are at most so long; a bucket in doubt is longer."""
        if self.maximum <= seconds:
            return 1.0
        within = sum(
            number
            for place, number in enumerate(self.bins)
            if FIRST_SECONDS * GAMMA ** (place + 1) <= seconds
        )
        return within / self.count


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes have used, all of them together."""

    cpu_seconds: float
    """User and system, since each began; in steps of 10 ms a process."""
    rss_bytes: int
    """Resident memory now; pages that they share count in each of them."""


def usage_of(pids: Iterable[int]) -> Usage:
    """Measure whole processes, without their children; one that is gone counts as nothing."""
    cpu_seconds, rss_bytes = 0.0, 0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                cpu_seconds += times.user + times.system
                rss_bytes += process.memory_info().rss
    return Usage(cpu_seconds, rss_bytes)


def usage_below(pid: int) -> Usage:
    """Measure all that a process ever started and that it started in turn, without itself.

    What ended counts with the CPU that it used, because its parent waited for it.
    """
    cpu_seconds, rss_bytes = 0.0, 0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():
                times = process.cpu_times()
                cpu_seconds += times.children_user + times.children_system
                if process.pid != pid:
                    cpu_seconds += times.user + times.system
                    rss_bytes += process.memory_info().rss
    return Usage(cpu_seconds, rss_bytes)


def usage_of_postgres(pid: int) -> Usage:
    """What a PostgreSQL has used: its postmaster, and all backends that there were."""
    backends, postmaster = usage_below(pid), usage_of([pid])
    return Usage(
        backends.cpu_seconds + postmaster.cpu_seconds, backends.rss_bytes + postmaster.rss_bytes
    )


def busy_seconds() -> float:
    """CPU that everything on this computer has used since it was started."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "steal", 0.0)
    # A guest's time is counted in the user's already.
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return sum(times) - idle - guests


def growth(samples: Sequence[float]) -> float | None:
    """By how much equally spaced samples grow, whatever single ones say; None for too few.

    The first quarter is warm-up. Of the rest, the median of the last third is compared with that of
    the first: one peak moves neither, and what only goes up and down is 0.
    """
    settled = samples[len(samples) // 4 :]
    third = len(settled) // 3
    if third < GROWTH_SAMPLES_MIN:
        return None
    return statistics.median(settled[-third:]) - statistics.median(settled[:third])


def slope(points: Sequence[tuple[float, float]]) -> float:
    """By how much values grow in one unit of time, whatever single ones say: Theil and Sen's.

    The median of the slopes between any two of the points, which have growing times. 0 for fewer
    than two.
    """
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for earlier, later in itertools.combinations(points, 2)
    ]
    return statistics.median(slopes) if slopes else 0.0
