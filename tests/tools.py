"""Tools that tests run in environments of their own, brought once for each lock.

Where one cannot be had, its tests are skipped, or fail where every tier is required.
"""

from __future__ import annotations

import functools
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.peers import install
from benchmarks.peers.peer import Missing
from tests.servers import ROOT, require, run_now


@functools.cache
def python_environment(name: str) -> Path:
    """An environment that has what `requirements/NAME.txt` pins: its folder."""
    locked = ROOT / "requirements" / f"{name}.txt"
    return _brought(install.python_environment(name, locked), f"requirements/{name}.txt")


@functools.cache
def node_modules(locks: Path) -> Path:
    """The `node_modules` of what a folder locks."""
    return _brought(install.npm_packages(locks), f"{locks.relative_to(ROOT)}/package-lock.json")


def command(name: str, program: str) -> list[str]:
    """How a program of `requirements/NAME.txt` is called."""
    path = python_environment(name) / "bin" / program
    assert path.exists(), f"{program} is not in requirements/{name}.txt"
    # Scripts of a renamed environment name its old interpreter; binaries are as they are.
    is_script = path.read_bytes()[:2] == b"#!"
    return [*([str(path.with_name("python"))] if is_script else []), str(path)]


def site_packages(environment: Path) -> Path:
    """Where an environment has its packages."""
    return next((environment / "lib").glob("python3*/site-packages"))


def _brought(bringing: Coroutine[Any, Any, Path], what: str) -> Path:
    # In a thread, for the caller may be in a loop.
    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(run_now, bringing).result()
        except Missing as missing:
            require(None, f"{what}: {missing}")
            raise
