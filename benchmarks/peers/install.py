"""Brings the packages of the peers that come from npm and from a Python index, once for each lock.

They go into a folder of the user's cache, named by what is locked; nothing of them is in the tree.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.peers.peer import Missing, find_program
from livefeed.adapters.process import Launch, run
from livefeed.errors import Unavailable

HERE: Final = Path(__file__).parent
INSTALL_SECONDS_MAX: Final = 300.0
NPM_FILES: Final = ("package.json", "package-lock.json")

Fill = Callable[[Path], Awaitable[None]]


async def npm_packages(locks: Path) -> Path:
    """The `node_modules` that a folder locks; raises Missing."""
    npm, files = find_program("npm", "nodejs npm"), [locks / file for file in NPM_FILES]

    async def fill(folder: Path) -> None:
        for file in files:
            shutil.copy(file, folder)
        await _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)

    return await _made(locks.name, files, fill) / "node_modules"


async def python_packages(name: str) -> Path:
    """An interpreter that has what a folder of peers locks; raises Missing."""
    locked = HERE / name / "requirements.txt"
    return await python_environment(name, locked) / "bin" / "python"


async def python_environment(name: str, locked: Path) -> Path:
    """An environment that has what a file of requirements pins, its folder; raises Missing."""

    async def fill(folder: Path) -> None:
        await _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder)
        # Ours installs into it: a pip of its own would take longer than what is installed.
        pip = [sys.executable, "-I", "-m", "pip", "--python", str(folder / "bin" / "python")]
        install = ["install", "-qq", "--no-input", "--disable-pip-version-check"]
        hashed = ["--require-hashes", "--only-binary", ":all:", "--requirement", str(locked)]
        await _run([*pip, *install, *hashed], folder)

    return await _made(name, [locked], fill)


async def _made(name: str, locked: Sequence[Path], fill: Fill) -> Path:
    """The folder for what is locked, filled if it was not there."""
    digest = hashlib.sha256(f"{sys.version} {sys.base_prefix}".encode())
    for file in locked:
        digest.update(file.read_bytes())
    cache = _cache()
    done = cache / f"{name}-{digest.hexdigest()[:16]}"
    if done.is_dir():
        return done
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{done.name}.lock").open("w") as lock:
        # Whoever comes meanwhile waits for it: some take a minute of all cores.
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        if not done.is_dir():
            await _make(done, fill)
    return done


async def _make(done: Path, fill: Fill) -> None:
    # Filled beside it and renamed: what is there is whole.
    making = Path(tempfile.mkdtemp(dir=done.parent, prefix=f"{done.name}-"))
    try:
        await fill(making)
        await asyncio.to_thread(making.rename, done)
    finally:
        await asyncio.to_thread(shutil.rmtree, making, ignore_errors=True)


async def _run(argv: Sequence[str], folder: Path) -> None:
    # pip takes for installed what it finds in PYTHONPATH, which will not be there later.
    own = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    launch = Launch(log=None, directory=folder, environment=own)
    try:
        await run("packages", argv, launch, seconds=INSTALL_SECONDS_MAX)
    except Unavailable as error:
        lines = error.detail.strip().splitlines()
        # An installer says first what is wrong, and then much else.
        why = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise Missing(f"its packages could not be installed: {why}") from error


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "livefeed-bench"
