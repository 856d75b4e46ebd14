"""What Terraform has to know of the code stands in one file, which is written from the code."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest

from livefeed import database_health, limits, nats_roles, topology
from livefeed.settings import Settings
from tests.infra.terraform import TERRAFORM
from tests.scripts import script
from tests.servers import ROOT

INFRASTRUCTURE = script(ROOT / "docs" / "infrastructure.py")


def test_the_contract_is_the_codes() -> None:
    """A default that is changed in the code has to be written here, and then is planned."""
    assert (TERRAFORM / "contract.json").read_text() == INFRASTRUCTURE.contract_text()


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (limits, "NATS_PAYLOAD_BYTES_MAX", 2 * limits.MIB),
        (limits, "CACHE_SHARED_BYTES_MAX", 1),
        (limits, "WORKER_SETTLE_SECONDS", 9.0),
        (limits, "REPLICAS_MAX", 9),
        (nats_roles, "CACHE_SUBJECTS", "$KV.other.>"),
        (nats_roles, "WORKING_STREAMS", ("OTHER",)),
        (topology, "consumers", lambda: ()),
    ],
)
def test_a_changed_value_is_noticed(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, value: Any
) -> None:
    """Whatever of these is changed, the file is out of date."""
    monkeypatch.setattr(module, name, value)
    assert (TERRAFORM / "contract.json").read_text() != INFRASTRUCTURE.contract_text()


@pytest.mark.parametrize("name", ["gateway_port", "ops_port", "connections_max", "nats_url"])
def test_a_changed_default_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The same for defaults of settings."""
    other = "nats://127.0.0.1:4333" if name == "nats_url" else 7
    monkeypatch.setattr(Settings.model_fields[name], "default", other)
    assert (TERRAFORM / "contract.json").read_text() != INFRASTRUCTURE.contract_text()


@pytest.mark.parametrize("has_replicas", [False, True])
@pytest.mark.parametrize("has_source", [False, True])
def test_connections_to_the_primary_are_counted_as_by_doctor(
    has_replicas: bool, has_source: bool
) -> None:
    """What Terraform adds up from the contract is what the code says of the same processes."""
    counted = json.loads((TERRAFORM / "contract.json").read_text())["database_connections"]
    pools = 3 * (counted["gateway_process"] + has_source * counted["gateway_source"])
    pools += 5 * counted["worker_process"] + counted["workers_beside"]
    looks = 3 * has_replicas * counted["gateway_look"]
    assert pools * 7 + looks == database_health.primary_connections(
        gateways=3,
        worker_processes=5,
        pool_connections=7,
        has_replicas=has_replicas,
        has_source=has_source,
    )


def test_streams_fit_into_the_volumes() -> None:
    """The smallest environment's volume takes all streams, of which each server has a copy."""
    contract = json.loads((TERRAFORM / "contract.json").read_text())
    smallest = 20 * 1024 * limits.MIB
    assert contract["nats"]["streams_bytes"] < 0.9 * smallest


def test_tables_of_inputs_are_read_from_terraform() -> None:
    """Types over several lines become one; blocks in a block are left out."""
    text = """variable "size" {
  description = "How many."
  type = object({
    min = optional(number, 2)
    max = optional(number, 20) # At most.
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.size.min > 0
    error_message = "More."
  }
}
"""
    (block,) = INFRASTRUCTURE.blocks(text, "variable")
    assert block.name == "size"
    assert set(block.arguments) == {"description", "type", "default", "nullable"}
    line = INFRASTRUCTURE._one_line(block.arguments["type"])
    assert line == "object({ min = optional(number, 2), max = optional(number, 20) })"
