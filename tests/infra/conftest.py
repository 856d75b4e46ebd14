"""Fixtures of the infrastructure's tests; what takes long is made by one of the test processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.infra import rendered
from tests.infra.rendered import Instance
from tests.infra.terraform import Terraform, find_terraform


@pytest.fixture(scope="session")
def shared_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all test processes of this session share."""
    own = tmp_path_factory.getbasetemp()
    # Of several processes each has a folder in the session's.
    shared = own.parent if own.name.startswith("popen-") else own
    directory = shared / "infra"
    directory.mkdir(exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """Terraform with its provider."""
    return find_terraform(tmp_path_factory.mktemp("terraform"))


@pytest.fixture(scope="session")
def root_state(terraform: Terraform, shared_directory: Path) -> Any:
    """What the root's test has made on a made-up AWS."""
    return rendered.root_state(terraform, shared_directory)


@pytest.fixture(scope="session")
def instances(root_state: Any) -> dict[str, Instance]:
    """What instances are told when they start, by name."""
    return rendered.instances_of(root_state)
