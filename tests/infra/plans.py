"""Plans of the examples as JSON, with an AWS on this computer behind them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.infra.moto import running_moto
from tests.infra.terraform import Terraform, once

KEYS: Final = {
    "publisher": "UCEDLZW4DOSVWUZDWJWYHQJA5ZZDD3GBWRADIO6WD34EVDY3IFQY6HOP",
    "observer": "UBQRUYDRBTP4RFZJRFGRRZQDJL6SDSPJQ5ZAZFRE7XV5VZ4RMDQJLOQA",
    "gateway": "UAIZW2HZTRX5ILCRRNX4NSMTRTP24U5GRSKLI3MD7OXD75NSGYKU7WUQ",
    "worker": "UA632U7BZUWT4P6BTIVWWO2ZMVVFIEHBKIUMVZ7SH3XDYBCGRZL7VTV4",
    "admin": "UA2BC7TE5MP62LXPVQ6Z4YLSL6EECXKZZHGVJW2BOP27KMSSUPCQGGAW",
}
CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
CERTIFICATE_ARN: Final = (
    "arn:aws:acm:eu-west-1:123456789012:certificate/00000000-0000-0000-0000-000000000000"
)


def variables(example: str) -> dict[str, Any]:
    """What a person gives to an example."""
    given: dict[str, Any] = {
        "image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/livefeed@sha256:0",
        "repository_arns": ["arn:aws:ecr:eu-west-1:123456789012:repository/livefeed"],
        "jwks_url": "https://login.example.com/keys",
        "nats_public_keys": KEYS,
        "nats_ca_certificate": CERTIFICATE,
    }
    return given | ({"certificate_arn": CERTIFICATE_ARN} if example == "complete" else {})


def prepared(terraform: Terraform, example: str) -> Path:
    """An example, ready to be planned: what a person gives is in a file beside it."""
    folder = terraform.root / "examples" / example
    (folder / "given.auto.tfvars.json").write_text(json.dumps(variables(example)))
    terraform.init(folder)
    return folder


def plan_of(terraform: Terraform, directory: Path, example: str) -> Resources:
    """What the plan of an example would make."""
    return Resources(_kept(terraform, directory, example)["planned_values"]["root_module"])


def module_of(terraform: Terraform, directory: Path, name: str) -> Any:
    """A module's configuration, as the plan of the smaller example has it."""
    root = _kept(terraform, directory, "minimal")["configuration"]["root_module"]
    return root["module_calls"]["livefeed"]["module"]["module_calls"][name]["module"]


def _kept(terraform: Terraform, directory: Path, example: str) -> Any:
    return once(directory, f"plan-{example}", lambda: _plan(terraform, directory, example))


def _plan(terraform: Terraform, directory: Path, example: str) -> Any:
    folder = prepared(terraform, example)
    with running_moto(directory / f"moto-{example}.log") as aws:
        terraform(folder, "plan", "-out=plan", "-input=false", "-no-color", environment=aws)
    shown = terraform(folder, "show", "-json", "plan").stdout
    shutil.copy(folder / "plan", directory / f"{example}.plan")
    return json.loads(shown)


class Resources:
    """Looks into what a plan would make, or what a state has.

    Args:
        root_module: Of either, in Terraform's JSON.
    """

    def __init__(self, root_module: Any) -> None:
        self._resources = list(_resources(root_module))

    def all(self, kind: str) -> list[dict[str, Any]]:
        """The values of every resource of a type."""
        return [one["values"] for one in self._resources if one["type"] == kind]

    def one(self, kind: str, module: str, name: str | None = None) -> dict[str, Any]:
        """The values of the one resource of a type in a module, by its name if there are more."""
        found = [
            one["values"]
            for one in self._resources
            if one["type"] == kind
            and f"module.{module}." in one["address"]
            and name in {None, one["name"]}
        ]
        assert len(found) == 1, f"{kind} in {module}: {len(found)}"
        return found[0]

    @property
    def types(self) -> dict[str, int]:
        """How many there are of each type."""
        counts: dict[str, int] = {}
        for one in self._resources:
            counts[one["type"]] = counts.get(one["type"], 0) + 1
        return counts


def _resources(module: Any) -> Iterator[Any]:
    yield from module.get("resources", [])
    for below in module.get("child_modules", []):
        yield from _resources(below)
