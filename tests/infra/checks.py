"""Tools of `requirements/workflows.txt`, and what they say of a file."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.servers import ROOT
from tests.tools import command


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool, whatever its exit code."""
    return subprocess.run(
        [*command("workflows", name), *map(str, arguments)],
        capture_output=True,
        check=False,
        cwd=ROOT,
        text=True,
        timeout=60,
    )


def passes(done: subprocess.CompletedProcess[str]) -> None:
    """Fail with a tool's words unless it found nothing."""
    assert done.returncode == 0, done.stdout + done.stderr


def read_by(code: str, path: Path) -> Any:
    """What a line of Python prints of a file as JSON, with the tools' own libraries."""
    python = command("workflows", "python")
    done = subprocess.run(
        [*python, "-c", code, str(path)], capture_output=True, check=True, text=True, timeout=60
    )
    return json.loads(done.stdout)


def yaml(path: Path) -> Any:
    """What a YAML file says."""
    code = "import json, sys; from ruamel.yaml import YAML; "
    code += "print(json.dumps(YAML(typ='safe').load(open(sys.argv[1])), default=str))"
    return read_by(code, path)
