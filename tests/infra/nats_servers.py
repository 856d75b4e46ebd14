"""Three NATS servers with the configuration that instances get: TLS, roles, a cluster.

Only what names places of an instance is changed, such as ports, and keys that were made up.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from livefeed.adapters.embedded.nats_server import find_nats_server
from livefeed.adapters.nats.connection import Connection, close, connect
from livefeed.nats_access import NatsAccess
from livefeed.nats_roles import roles
from tests.infra.rendered import Instance
from tests.infra.terraform import TERRAFORM
from tests.scripts import script
from tests.servers import http_status, server_port, until

NODES: Final = ("nats-1", "nats-2", "nats-3")


@dataclass(frozen=True, slots=True)
class Access:
    """What make_access.py made."""

    directory: Path
    public_keys: Mapping[str, str]
    ca_file: Path

    def secret(self, name: str) -> str:
        """One secret's value."""
        return (self.directory / "secret" / name).read_text()

    def of(self, role: str) -> NatsAccess:
        """How a process of a role connects."""
        return NatsAccess(
            nkey_seed=self.secret(f"nats-{role}"),
            inbox_prefix=next(one.inbox_prefix for one in roles() if one.name == role),
            ca_file=str(self.ca_file),
        )


@dataclass(frozen=True, slots=True)
class Servers:
    """Running servers."""

    access: Access
    ports: Mapping[str, int]
    monitors: Mapping[str, int]

    @property
    def url(self) -> str:
        """Of all of them."""
        return ",".join(f"tls://127.0.0.1:{port}" for port in self.ports.values())

    @asynccontextmanager
    async def connected(self, role: str) -> AsyncIterator[Connection]:
        """A connection of a role."""
        connection = await connect(self.url.split(","), name="tests", access=self.access.of(role))
        try:
            yield connection
        finally:
            await close(connection)


def make_access(directory: Path) -> Access:
    """Run the script that a person runs."""
    program = script(TERRAFORM / "make_access.py")
    assert program.main([str(directory), "--name", "livefeed-test"]) == 0
    public = json.loads((directory / "nats.tfvars.json").read_text())
    ca_file = directory / "ca.pem"
    ca_file.write_text(public["nats_ca_certificate"])
    pair = json.loads((directory / "secret" / "nats-tls").read_text())
    for name, text in pair.items():
        (directory / f"{name}.pem").write_text(text)
    return Access(directory, public["nats_public_keys"], ca_file)


def configurations(
    instances: Mapping[str, Instance], access: Access, directory: Path
) -> dict[str, tuple[Path, int, int]]:
    """The configuration of each server as a file, with its port and its monitor's."""
    routes = {name: server_port() for name in NODES}
    made = {}
    for name in NODES:
        port, monitor = server_port(), server_port()
        text = instances[name].files["/etc/livefeed/nats.conf"]
        for there, here in {
            '"0.0.0.0:4222"': f'"127.0.0.1:{port}"',
            '"127.0.0.1:8222"': f'"127.0.0.1:{monitor}"',
            '"0.0.0.0:6222"': f'"127.0.0.1:{routes[name]}"',
            '"/var/lib/livefeed-nats"': f'"{directory / name}"',
            '"/run/livefeed/tls/certificate.pem"': f'"{access.directory}/certificate.pem"',
            '"/run/livefeed/tls/key.pem"': f'"{access.directory}/key.pem"',
            '"/etc/livefeed/nats-ca.pem"': f'"{access.ca_file}"',
            **{
                f'"tls://{other}.livefeed.internal:6222"': f'"tls://127.0.0.1:{route}"'
                for other, route in routes.items()
            },
        }.items():
            assert there in text, there
            text = text.replace(there, here)
        for role, key in access.public_keys.items():
            text, changed = re.subn(rf'(# {role}\n\s*{{\n\s*nkey: )"U\w+"', rf'\1"{key}"', text)
            assert changed == 1, role
        path = directory / f"{name}.conf"
        path.write_text(text)
        made[name] = path, port, monitor
    return made


@asynccontextmanager
async def running(
    made: Mapping[str, tuple[Path, int, int]], access: Access
) -> AsyncIterator[Servers]:
    """The servers, when all of them are a healthy cluster."""
    binary = find_nats_server()
    children: list[subprocess.Popen[bytes]] = []
    try:
        for name, (path, _, _) in made.items():
            with path.with_name(f"{name}.log").open("w") as log:
                children.append(
                    subprocess.Popen([binary, "-c", path], stdout=log, stderr=log)  # noqa: ASYNC220
                )
        for name, (path, _, monitor) in made.items():
            await until(
                lambda url=f"http://127.0.0.1:{monitor}/healthz": _is_healthy(url),
                seconds=30,
                what=f"{name} is healthy: {path.with_name(f'{name}.log')}",
            )
        ports = {name: port for name, (_, port, _) in made.items()}
        monitors = {name: monitor for name, (_, _, monitor) in made.items()}
        yield Servers(access, ports, monitors)
    finally:
        for child in children:
            child.kill()
            child.wait()


async def _is_healthy(url: str) -> Any:
    return await http_status(url) == 200
