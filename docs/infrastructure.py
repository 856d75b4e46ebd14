"""What Terraform has to know of the code, and what the pages of its modules say of their inputs.

Both are data that has a source: `docs/generate.py` writes them, and a test compares them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from gateway.app import ops_app
from livefeed import database_health, limits, nats_roles, node, protocol, topology
from livefeed.cli.node_agent import LEAVING_SECONDS
from livefeed.node_settings import NodeSettings
from livefeed.settings import Settings

TERRAFORM: Final = "infra/terraform"
NATS_ROUTES_PORT: Final = 6222
"""Where NATS servers meet: a port of theirs, of which livefeed knows nothing."""
POSTGRES_PORT: Final = 5432
REDIS_PORT: Final = 6379
STREAMS_SPARE: Final = 4
CONSUMERS_SPARE: Final = 50
"""What a person may add to an account of NATS, to look at something."""


def contract_text() -> str:
    """The file that the root module reads: ports, paths, times, sizes, and the roles in NATS."""
    return json.dumps(contract(), indent=2) + "\n"


def contract() -> dict[str, Any]:
    """Everything in which Terraform must equal the code."""

    def default(name: str) -> Any:
        return Settings.model_fields[name].get_default(call_default_factory=True)

    def agent(name: str) -> Any:
        return NodeSettings.model_fields[name].default

    gateway: Any = None  # The apps are only asked for their paths.
    paths = [route.path for route in ops_app(gateway).routes]
    streams = topology.streams(bytes_max=default("stream_bytes_max"))
    return {
        "ports": {
            "gateway": default("gateway_port"),
            "ops": default("ops_port"),
            "nats": int(default("nats_url").rpartition(":")[2]),
            "nats_routes": NATS_ROUTES_PORT,
            "postgres": POSTGRES_PORT,
            "redis": REDIS_PORT,
        },
        "paths": {
            "ready": next(path for path in paths if "ready" in path),
            "health": next(path for path in paths if "health" in path),
        },
        "heartbeat_seconds": protocol.HEARTBEAT_SECONDS,
        "connections_max": default("connections_max"),
        "database_pool_connections": default("database_pool_connections"),
        "database_connections": _database_connections(),
        "worker_settle_seconds": limits.WORKER_SETTLE_SECONDS,
        "replicas_max": limits.REPLICAS_MAX,
        "nats": {
            "payload_bytes": limits.NATS_PAYLOAD_BYTES_MAX,
            "streams_bytes": sum(stream.bytes_max for stream in streams),
            "cache_bytes": limits.CACHE_SHARED_BYTES_MAX,
            "streams_max": len(streams) + 1 + STREAMS_SPARE,
            "consumers_max": len(topology.consumers()) + CONSUMERS_SPARE,
            "roles": [
                {
                    "name": role.name,
                    "publish": list(role.publish),
                    "subscribe": list(role.heard),
                }
                for role in nats_roles.roles()
            ],
        },
        "node_agent": {
            "lag": node.LAG,
            "connections": node.CONNECTIONS,
            "group": node.GROUP,
            "heartbeat_seconds": agent("heartbeat_seconds"),
            "leaving_seconds": LEAVING_SECONDS,
        },
        "settings": sorted(f"LIVEFEED_{name.upper()}" for name in Settings.model_fields),
    }


def _database_connections() -> dict[str, int]:
    """What one more of each adds to what is opened to the primary, where pools have one each."""

    def opened(gateways: int, worker_processes: int, **has: bool) -> int:
        return database_health.primary_connections(
            gateways=gateways,
            worker_processes=worker_processes,
            pool_connections=1,
            **({"has_replicas": False, "has_source": False} | has),
        )

    return {
        "gateway_process": opened(1, 0) - opened(0, 0),
        "gateway_source": opened(1, 0, has_source=True) - opened(1, 0),
        "gateway_look": opened(1, 0, has_replicas=True) - opened(1, 0),
        "worker_process": opened(0, 1) - opened(0, 0),
        "workers_beside": opened(0, 0),
    }


class Block(NamedTuple):
    """One variable or output of a module."""

    name: str
    arguments: dict[str, str]
    """As they are written, over one line or several."""
    body: str
    """All that stands in it."""


def blocks(text: str, kind: str) -> Iterator[Block]:
    """Every block of a kind in a file, in order; the file is as `terraform fmt` leaves it."""
    for found in re.finditer(rf'^{kind} "(\w+)" {{\n(.*?)^}}', text, re.MULTILINE | re.DOTALL):
        yield Block(found[1], _arguments(found[2]), found[2])


def _arguments(body: str) -> dict[str, str]:
    """The arguments of a block; each begins two spaces in, and what goes on is deeper or closes."""
    arguments: dict[str, list[str]] = {}
    current: list[str] = []
    for line in body.splitlines():
        begins = re.match(r"  (\w+) += (.*)", line)
        if begins:
            current = arguments.setdefault(begins[1], [begins[2]])
        elif re.match(r"  \w", line):
            current = []  # A block in the block.
        else:
            current.append(line)
    return {name: "\n".join(lines).strip() for name, lines in arguments.items()}


def inputs_rows(folder: Path) -> list[list[str]]:
    """A row for each input of a module: the required ones first."""
    found = [
        [
            f"`{one.name}`",
            one.arguments["description"].strip('"'),
            _kind(one.arguments["type"]),
            _default(one.arguments.get("default")),
        ]
        for one in blocks(_read(folder / "variables.tf"), "variable")
    ]
    return sorted(found, key=lambda row: row[-1] != "required")


def outputs_rows(folder: Path) -> list[list[str]]:
    """A row for each output of a module."""
    found = blocks(_read(folder / "outputs.tf"), "output")
    return [[f"`{one.name}`", one.arguments["description"].strip('"')] for one in found]


def module_folders(root: Path) -> list[Path]:
    """Every module that has a page of its own: the root, what a person applies first, the parts."""
    terraform = root / TERRAFORM
    return [terraform, terraform / "bootstrap", *sorted((terraform / "modules").iterdir())]


def _default(written: str | None) -> str:
    return "required" if written is None else f"`{_one_line(written)}`"


def _kind(written: str) -> str:
    """A type in short: the fields of an object with their types, as one line."""
    return f"`{_one_line(written)}`"


def _one_line(written: str) -> str:
    line = re.sub(r"\s*#.*", "", written)
    line = re.sub(r"(?<=[^,{(\[\s])\n\s*(?=\w)", ", ", line)  # Fields stand in lines of their own.
    return re.sub(r"\s+", " ", line).replace("( ", "(").replace(" )", ")")


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""
