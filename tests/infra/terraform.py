"""Terraform with its provider, as tests of the infrastructure run it.

Both are found, not downloaded: the provider in `TF_PLUGIN_MIRROR`, else in the folders that
Terraform itself looks into. What is missing is a skip with its reason, or a failure where every
tier is required.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.servers import ROOT, require

TERRAFORM: Final = ROOT / "infra" / "terraform"
LOCK: Final = ".terraform.lock.hcl"
PROVIDER: Final = Path("registry.terraform.io", "hashicorp", "aws")
RUN_SECONDS_MAX: Final = 600.0


class Terraform:
    """Runs Terraform on a copy of the tree, for it leaves files beside those that it reads.

    Args:
        program: Terraform.
        mirror: Where its providers are.
        directory: For the copy.
    """

    def __init__(self, program: str, mirror: Path, directory: Path) -> None:
        self._program = program
        self.root = directory / "terraform"
        shutil.copytree(TERRAFORM, self.root, ignore=shutil.ignore_patterns(".terraform"))
        for versions in (self.root / "modules").glob("*/versions.tf"):
            if "required_providers" in versions.read_text():
                shutil.copy(self.root / LOCK, versions.parent)
        configuration = directory / "terraform.rc"
        configuration.write_text(
            "disable_checkpoint = true\n"
            "provider_installation {\n"
            f"  filesystem_mirror {{\n    path = {json.dumps(str(mirror))}\n  }}\n"
            "}\n"
        )
        kept = {name: text for name, text in os.environ.items() if not name.startswith("TF_")}
        self._environment = kept | {
            "TF_CLI_CONFIG_FILE": str(configuration),
            "TF_IN_AUTOMATION": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def __call__(
        self,
        module: str | Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a module of the copy; fails with its words unless `check` is False."""
        done = subprocess.run(
            [self._program, f"-chdir={self.root / module}", *arguments],
            env={**self._environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS_MAX,
            check=False,
        )
        if check and done.returncode:
            command = " ".join(arguments)
            pytest.fail(f"terraform {command} in {module}:\n{done.stdout}\n{done.stderr}")
        return done

    def init(self, module: str | Path) -> None:
        """Make a module ready; the lock file has to be whole already."""
        self(module, "init", "-backend=false", "-input=false", "-no-color", "-lockfile=readonly")


def find_terraform(directory: Path) -> Terraform:
    """Terraform with the provider, else a skip or a failure."""
    program = require(shutil.which("terraform"), "terraform is not installed")
    mirror = require(find_mirror(), f"no folder has {PROVIDER}; name one with TF_PLUGIN_MIRROR")
    directory.mkdir(parents=True, exist_ok=True)
    return Terraform(program, mirror, directory)


def find_mirror() -> Path | None:
    """A folder with the provider: the one that is named, those implied, or one beside software."""
    named = os.environ.get("TF_PLUGIN_MIRROR")
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    folders = [
        Path.home() / ".terraform.d" / "plugins",
        data / "terraform" / "plugins",
        *(Path(part) / "terraform" / "plugins" for part in ("/usr/local/share", "/usr/share")),
        # Beside other optional software, as computers of CI have it.
        *sorted(Path("/opt").glob("*plugins*")),
    ]
    found = [Path(named)] if named else folders
    return next((folder for folder in found if (folder / PROVIDER).is_dir()), None)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that tests side by side share."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def once(directory: Path, name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, as JSON; of several test processes only the first one makes it."""
    kept = directory / f"{name}.json"
    with locked(directory / f"{name}.lock"):
        if not kept.exists():
            made = make()
            draft = kept.with_suffix(".new")
            draft.write_text(json.dumps(made))
            draft.rename(kept)
        return json.loads(kept.read_text())
