"""What instances are told when they start, as the root module renders it: taken from its own test.

The test runs on a made-up AWS, so ids and names of hosts are made up; all else is as it would be.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.infra.terraform import Terraform, once

RUN = "the_defaults_hold_together"


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance's user data."""

    files: dict[str, str]
    """What it writes: path to content."""
    modes: dict[str, int]
    commands: list[list[str]]
    """What it runs then."""
    text: str
    """All of it."""
    bytes: int
    """As it is sent."""

    @property
    def environment(self) -> dict[str, str]:
        """The settings of livefeed, as the container gets them."""
        return environment_of(self.files["/etc/livefeed/livefeed.env"])


def environment_of(text: str) -> dict[str, str]:
    """A file of settings: one a line, as it is."""
    return dict(line.split("=", 1) for line in text.splitlines())


def root_state(terraform: Terraform, directory: Path) -> Any:
    """What the root's test has made, with everything that is below it."""
    return once(directory, "root-test", lambda: _root_state(terraform))


def instances_of(root_state: Any) -> dict[str, Instance]:
    """The instances gateway, workers, nats-1, nats-2 and nats-3."""
    return {name: _instance(text) for name, text in _user_data(root_state)}


def _root_state(terraform: Terraform) -> Any:
    terraform.init(".")
    done = terraform(".", "test", "-json", "-verbose", "-no-color", check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    failed = [line for line in lines if line.get("@level") == "error"]
    assert done.returncode == 0, json.dumps(failed, indent=1)[:8000]
    return next(
        line["test_state"]["root_module"]
        for line in lines
        if line["type"] == "test_state" and line.get("@testrun") == RUN
    )


def _user_data(state: Any) -> Iterator[tuple[str, str]]:
    for module in state["child_modules"]:
        for one in module.get("resources", []):
            values = one["values"]
            if one["type"] == "aws_launch_template":
                (tags,) = (each["tags"] for each in values["tag_specifications"])
                yield tags["Role"], values["user_data"]
            if one["type"] == "aws_instance":
                yield one["index"], values["user_data_base64"]


def _instance(sent: str) -> Instance:
    packed = base64.b64decode(sent)
    text = gzip.decompress(packed).decode()
    kind, _, body = text.partition("\n")
    assert kind == "#cloud-config"
    said = json.loads(body)
    assert set(said) == {"write_files", "runcmd"}
    return Instance(
        files={one["path"]: one["content"] for one in said["write_files"]},
        modes={one["path"]: int(one["permissions"], 8) for one in said["write_files"]},
        commands=said["runcmd"],
        text=text,
        bytes=len(packed),
    )
