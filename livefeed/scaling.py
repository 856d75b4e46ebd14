"""How many workers of a function a pool should run, and how soon it may start another.

Pure.
"""

from __future__ import annotations

from typing import Final

LAG_PER_WORKER: Final = 2_000
"""Messages of lag that call for one more worker."""
CRASH_DELAYS_SECONDS: Final = (0.0, 0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""How long to wait before another start, by crashes in a row."""
KILLED_DELAY_SECONDS_MAX: Final = 0.5


def workers_wanted(*, lag: int, running: int, processes_max: int) -> int:
    """Workers that should run now; idle ones leave by themselves.

    Args:
        lag: Messages pending and in workers' hands.
        running: Workers that run.
        processes_max: The pool's bound.
    """
    if lag == 0:
        return running
    return min(processes_max, max(running, 1 + lag // LAG_PER_WORKER))


def start_delay_seconds(crashes: int, *, killed: bool = False) -> float:
    """How long to wait before the next start, after so many crashes in a row.

    Args:
        crashes: Of workers that ended badly soon after their start.
        killed: Whether somebody killed it: that says nothing of the worker.
    """
    delay = CRASH_DELAYS_SECONDS[min(crashes, len(CRASH_DELAYS_SECONDS) - 1)]
    return min(delay, KILLED_DELAY_SECONDS_MAX) if killed else delay
