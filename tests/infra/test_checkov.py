"""What checkov finds, and that whatever it is told to pass over has a reason."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from tests.infra.terraform import TERRAFORM
from tests.tools import command


@pytest.mark.timeout(600)
def test_checkov_finds_nothing() -> None:
    """In the modules, the root, and what a person applies first."""
    done = subprocess.run(
        [
            *(*command("infra", "checkov"), "--directory", TERRAFORM, "--framework", "terraform"),
            *("--quiet", "--compact", "--output", "json", "--skip-download"),
            # Reasons stand beside each resource; a list here would have none.
            *("--skip-path", "/tests/"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    found = json.loads(done.stdout)
    assert found["summary"]["parsing_errors"] == 0
    assert found["summary"]["passed"] > 300
    failed = [_line(one) for one in found["results"]["failed_checks"]]
    assert not failed, "\n".join(failed)


def test_every_skip_has_a_reason() -> None:
    """A check that is passed over says why, in words."""
    skips = 0
    for path in TERRAFORM.rglob("*.tf"):
        for line in path.read_text().splitlines():
            if "checkov:skip" in line:
                skips += 1
                assert re.fullmatch(r"\s*#checkov:skip=CKV2?_AWS_\d+:.{20,}", line), (
                    f"{path}: {line}"
                )
    assert skips > 0


def _line(one: Any) -> str:
    return f"{one['check_id']} {one['check_name']}: {one['resource']} in {one['file_path']}"
