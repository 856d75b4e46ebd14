"""Tools that tests run in environments of their own, brought once for each lock.

They go into a folder of the user's cache, named by what is locked; nothing of them is in `.venv`.
Where one cannot be had, its tests are skipped, or fail where every tier is required.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.servers import ROOT, require

INSTALL_SECONDS_MAX: Final = 110.0
NPM_FILES: Final = ("package.json", "package-lock.json")


@functools.cache
def python_environment(name: str) -> Path:
    """An environment that has what `requirements/NAME.txt` pins: its folder."""
    locked = ROOT / "requirements" / f"{name}.txt"

    def fill(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder)
        # Ours installs into it: a pip of its own would take longer than what is installed.
        pip = [sys.executable, "-I", "-m", "pip", "--python", str(folder / "bin" / "python")]
        install = ["install", "-qq", "--no-input", "--disable-pip-version-check"]
        hashed = ["--require-hashes", "--only-binary", ":all:", "--requirement", str(locked)]
        _run([*pip, *install, *hashed], folder)

    return _made(name, [locked], fill)


@functools.cache
def npm_packages(folder: Path) -> Path:
    """The `node_modules` that a folder with a package lock asks for."""
    npm = require(shutil.which("npm"), "npm is not installed (Debian's `nodejs npm`)")
    files = [folder / file for file in NPM_FILES]

    def fill(target: Path) -> None:
        for file in files:
            shutil.copy(file, target)
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], target)

    return _made(folder.name, files, fill) / "node_modules"


def site_packages(environment: Path) -> Path:
    """Where an environment has its packages."""
    return next((environment / "lib").glob("python3*/site-packages"))


def _made(name: str, locked: Sequence[Path], fill: Callable[[Path], None]) -> Path:
    """The folder for what is locked, filled if it was not there."""
    digest = hashlib.sha256(f"{sys.version} {sys.base_prefix}".encode())
    for file in locked:
        digest.update(file.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "livefeed-tools"
    done = cache / f"{name}-{digest.hexdigest()[:16]}"
    if done.is_dir():
        return done
    cache.mkdir(parents=True, exist_ok=True)
    # Filled beside it and renamed: what is there is whole, also when two runs make it at once.
    making = Path(tempfile.mkdtemp(dir=cache, prefix=f"{name}-"))
    try:
        fill(making)
        try:
            making.rename(done)
        except OSError:
            if not done.is_dir():  # Else another run was faster.
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return done


def _run(argv: Sequence[str], folder: Path) -> None:
    """Run an installer to its end; a test that needs what it brings is skipped when it fails."""
    try:
        done = subprocess.run(
            argv,
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS_MAX,
        )
    except subprocess.TimeoutExpired:
        require(None, f"{Path(argv[0]).name} took longer than {INSTALL_SECONDS_MAX:g} s")
        raise
    lines = (done.stderr + done.stdout).strip().splitlines()
    why = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
    require(done.returncode == 0, f"a tool could not be installed: {why}")
