"""Environments of tools are whole by themselves, whatever their process can import."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.peers import install


async def test_an_installer_sees_no_path_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """pip would leave out what it finds there."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    seen = "import os, sys; sys.exit('PYTHONPATH' in os.environ)"
    await install._run([sys.executable, "-c", seen], tmp_path)
