"""What this process uses, and what it may use: its CPU time, its memory, and the limits on both."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")


def memory_bytes() -> int:
    """The memory that this process has; where there is no /proc, the most that it ever had."""
    # Not the most where it can be helped: on Linux that begins with the parent's, before exec.
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory_limit_bytes(cgroups: Path = CGROUPS) -> int:
    """The least that a group of this process limits its memory to, else what the computer has."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for group in _groups(cgroups, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # `max` is no limit
                limits.append(int((group / name).read_text()))
    return min(limits)


def cores(cgroups: Path = CGROUPS) -> float:
    """The cores that this process may use, by affinity and by quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    counts = [float(len(affinity(0)) if affinity else os.cpu_count() or 1)]
    for group in _groups(cgroups, "cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (group / "cpu.max").read_text().split()
            counts.append(int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            quota_microseconds = int((group / "cpu.cfs_quota_us").read_text())
            if quota_microseconds > 0:
                period_microseconds = int((group / "cpu.cfs_period_us").read_text())
                counts.append(quota_microseconds / period_microseconds)
    return min(counts)


def _groups(cgroups: Path, controller: str) -> list[Path]:
    """The control groups of this process, its own and those above, of either version."""
    groups = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            top = cgroups / controller if controllers else cgroups
            own = Path(path.lstrip("/"))
            # In a container the path may be the host's; then only the top is there.
            groups += [top / part for part in (own, *own.parents)]
    return groups
