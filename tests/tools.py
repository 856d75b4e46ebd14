"""Tools that tests run in environments of their own, brought once for each lock.

Where one cannot be had, its tests are skipped, or fail where every tier is required.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.peers import install
from benchmarks.peers.peer import Missing
from tests.servers import ROOT, require, run_now


@functools.cache
def python_environment(name: str) -> Path:
    """An environment that has what `requirements/NAME.txt` pins: its folder."""
    locked = ROOT / "requirements" / f"{name}.txt"
    # In a thread, for the caller may be in a loop.
    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(run_now, install.python_environment(name, locked)).result()
        except Missing as missing:
            require(None, f"requirements/{name}.txt: {missing}")
            raise


def site_packages(environment: Path) -> Path:
    """Where an environment has its packages."""
    return next((environment / "lib").glob("python3*/site-packages"))
