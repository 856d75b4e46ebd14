"""`livefeed up`: everything on this computer, supervised, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from livefeed.adapters.embedded import NatsServer, PostgresServer, free_port
from livefeed.adapters.nats.connection import connect
from livefeed.adapters.nats.provision import provision
from livefeed.adapters.postgres.schema import migrate
from livefeed.cli.environment import (
    DATA_VARIABLE,
    default_data_directory,
    environment_of,
    read_stack,
    write_stack,
)
from livefeed.cli.running import leave_on_signals, run
from livefeed.cli.supervisor import (
    Process,
    Supervisor,
    http_answers_ok,
    launch_of,
    our_command,
)
from livefeed.errors import Misconfigured
from livefeed.limits import WORKER_SETTLE_SECONDS
from livefeed.settings import Settings, load_settings

PORT_DEFAULT = 8080
PORTS_REMEMBERED = ("nats_port", "monitor_port", "database_port")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run of `up` is asked for."""

    data: Path
    port: int
    gateways: int


@click.command("up")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything is kept; `.livefeed` in the checkout by default.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=PORT_DEFAULT, show_default=True)
@click.option("--gateways", type=click.IntRange(1, 16), default=1, show_default=True)
def command(data: Path | None, port: int, gateways: int) -> None:
    """Run a whole livefeed on this computer: NATS, PostgreSQL, workers and gateways.

    Servers that LIVEFEED_NATS_URL or LIVEFEED_DATABASE_URL name are used instead of embedded ones.
    Gateways after the first listen on the ports that follow. Ctrl-C drains and stops everything.
    """
    plan = Plan((data or default_data_directory()).absolute(), port, gateways)
    plan.data.mkdir(parents=True, exist_ok=True)
    with _alone(plan.data):
        run(_up(plan))


async def _up(plan: Plan) -> None:
    began_at = time.monotonic()
    leave = leave_on_signals()
    _check_ports(plan)
    settings = load_settings(gateway_port=plan.port)
    supervisor = Supervisor(_say)
    try:
        values = await _start_servers(plan, settings, supervisor)
        await asyncio.gather(_migrate(values), _provision(values))
        write_stack(plan.data, values)
        await _start_parts(plan, values, supervisor)
        click.echo(_ready_line(plan, values, time.monotonic() - began_at))
        await supervisor.watch(leave)
        _say("stopping")
    finally:
        await supervisor.stop()
        _say("stopped")


async def _start_servers(plan: Plan, settings: Settings, supervisor: Supervisor) -> dict[str, Any]:
    """Start what the environment does not name; returns what the parts and other commands need."""
    ports = _ports(plan.data)
    values: dict[str, Any] = {
        "gateway_port": plan.port,
        "ops_ports": [free_port() for _ in range(plan.gateways)],
        "jwt_secret": settings.jwt_secret or _kept_secret(plan.data / "jwt_secret"),
        **ports,
    }
    parts: list[tuple[str, Any]] = []
    given = settings.model_fields_set
    if "nats_url" in given:
        values["nats_url"] = settings.nats_url
    else:
        nats = NatsServer(
            plan.data / "nats", port=ports["nats_port"], monitor_port=ports["monitor_port"]
        )
        values |= {"nats_url": nats.url, "nats_monitor_url": nats.monitor_url}
        parts.append(("nats", nats))
    if "database_url" in given:
        values["database_url"] = settings.database_url
        await supervisor.start(*parts)
        return values
    postgres = PostgresServer(plan.data / "postgres", port=ports["database_port"])
    parts.append(("postgres", postgres))
    if not postgres.data.exists():
        _say("making a new database")
    await supervisor.start(*parts)
    return values | {"database_url": postgres.url}


async def _start_parts(plan: Plan, values: dict[str, Any], supervisor: Supervisor) -> None:
    logs = plan.data / "log"
    logs.mkdir(exist_ok=True)
    shared = {name: value for name, value in values.items() if name in Settings.model_fields}
    parts = [("pool", _pool(plan, shared, logs))]
    for number, ops_port in enumerate(values["ops_ports"]):
        name = "gateway" if number == 0 else f"gateway-{number + 1}"
        ports = {"gateway_port": plan.port + number, "ops_port": ops_port}
        own = shared | ports | {"gateway_workers": 1}
        parts.append((name, _gateway(plan, own, logs / f"{name}.log")))
    await supervisor.start(*parts)


def _pool(plan: Plan, shared: dict[str, Any], logs: Path) -> Process:
    async def ready() -> bool:
        return True

    environment = environment_of(shared) | {DATA_VARIABLE: str(plan.data)}
    return Process(
        "pool",
        our_command("pool"),
        launch_of(logs / "pool.log", environment),
        is_ready=ready,
        stop_seconds=WORKER_SETTLE_SECONDS + 2,
    )


def _gateway(plan: Plan, own: dict[str, Any], log: Path) -> Process:
    async def ready() -> bool:
        return await http_answers_ok("127.0.0.1", own["ops_port"], "/readyz")

    settings = load_settings()
    # There is no balancer that would have to notice.
    wait = settings.drain_wait_seconds if "drain_wait_seconds" in settings.model_fields_set else 0.0
    own = own | {"drain_wait_seconds": wait}
    environment = environment_of(own) | {DATA_VARIABLE: str(plan.data)}
    return Process(
        f"gateway on port {own['gateway_port']}",
        our_command("gateway"),
        launch_of(log, environment),
        is_ready=ready,
        stop_seconds=wait + settings.drain_seconds + 5,
    )


async def _migrate(values: dict[str, Any]) -> None:
    await migrate(values["database_url"])


async def _provision(values: dict[str, Any]) -> None:
    settings = load_settings()
    connection = await connect(values["nats_url"].split(","), name="livefeed-up")
    try:
        await provision(
            connection, replicas=settings.nats_replicas, bytes_max=settings.stream_bytes_max
        )
    finally:
        await connection.close()


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Hold the data directory; one `up` at a time."""
    with (data / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            detail = f"another `livefeed up` is running on {data}; stop it, or give --data DIR"
            raise Misconfigured(detail) from error
        yield


def _check_ports(plan: Plan) -> None:
    for port in range(plan.port, plan.port + plan.gateways):
        if not _is_free(port):
            raise Misconfigured(f"port {port} is in use; stop what listens there, or give --port N")


def _ports(data: Path) -> dict[str, int]:
    """The ports of the servers: those of the last run where they are still free."""
    remembered = read_stack(data)
    ports: dict[str, int] = {}
    for name in PORTS_REMEMBERED:
        port = remembered.get(name)
        ports[name] = port if isinstance(port, int) and _is_free(port) else free_port()
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _kept_secret(path: Path) -> str:
    """A random key that stays the same for this data."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32))
    return path.read_text()


def _ready_line(plan: Plan, values: dict[str, Any], seconds: float) -> str:
    hosts = [f"127.0.0.1:{plan.port + number}" for number in range(plan.gateways)]
    urls = " ".join(f"http://{host} ws://{host}/v1/ws" for host in hosts)
    return f"livefeed: ready in {seconds:.1f} s: {urls} {values['nats_url']}"


def _say(text: str) -> None:
    click.echo(f"livefeed: {text}", err=True)
