"""A program that is broken on purpose fails a benchmark's run, whichever verifier has to notice.

The faults are those of tests/broken/sitecustomize.py, in the real processes of a real run.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers import ROOT

BROKEN = ROOT / "tests" / "broken"
KINDS = ("lost", "doubled", "foreign")


async def smoke(directory: Path, broken: str = "") -> tuple[int, dict[str, int], str]:
    """Run the smallest scenario: its exit code, what it counted, what it wrote beside that."""
    path = os.pathsep.join(map(str, [BROKEN, ROOT, ROOT / "clients" / "python"]))
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "livefeed.cli", "bench", "smoke", "--json"],
        capture_output=True,
        check=False,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(directory), "BROKEN": broken},
        text=True,
        timeout=110,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["ok"] == (done.returncode == 0), done.stdout + done.stderr
    figures = report["figures"]
    faults = {name: figures[name]["value"] for name in (*KINDS, "inexact")}
    return done.returncode, faults, done.stderr


async def test_a_smoke_of_everything_is_exact(tmp_path: Path) -> None:
    code, faults, said = await smoke(tmp_path)
    assert (code, set(faults.values())) == (0, {0}), said
    assert not os.listdir(tmp_path), "the run leaves nothing behind"  # noqa: PTH208


async def test_each_verifier_notices_its_fault(tmp_path: Path) -> None:
    """One run with a fault for each: kinds that no other verifier would count then."""
    code, faults, said = await smoke(tmp_path, "frames:foreign,log:lost,answers:doubled")
    assert code == 1
    assert all(faults[kind] > 0 for kind in KINDS), faults
    assert "lacks" in said
    assert "one item twice" in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["frames", "log", "answers"])
async def test_every_fault_alone_fails_a_run(part: str, kind: str, tmp_path: Path) -> None:
    code, faults, said = await smoke(tmp_path, f"{part}:{kind}")
    assert code == 1, said
    assert faults[kind] > 0, faults
