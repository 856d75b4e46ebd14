"""`livefeed gateway`: serve clients."""

from __future__ import annotations

import click

from gateway.server import build_gateway, run_gateway
from livefeed.cli.environment import command_settings
from livefeed.cli.gateway_workers import inherited_doors, is_worker, run_workers
from livefeed.cli.running import (
    leave_on_signals,
    log_to_stderr,
    nats_connection,
    primary_pool,
    replica_pool,
    run,
)
from livefeed.settings import Settings


@click.command("gateway")
@click.option("--port", type=click.IntRange(0, 65535), help="Port for clients.")
@click.option("--ops-port", type=click.IntRange(0, 65535), help="Port for /healthz and /readyz.")
@click.option(
    "--workers", type=click.IntRange(1, 64), help="Processes that share the port for clients."
)
def command(port: int | None, ops_port: int | None, workers: int | None) -> None:
    """Serve WebSockets and snapshots until told to leave, then drain."""
    log_to_stderr()
    settings = command_settings(gateway_port=port, ops_port=ops_port, gateway_workers=workers)
    several = settings.gateway_workers > 1 and not is_worker()
    run(run_workers(settings) if several else _serve(settings))


async def _serve(settings: Settings) -> None:
    leave = leave_on_signals()
    doors = inherited_doors(leave)
    async with (
        nats_connection(settings, "livefeed-gateway") as nats,
        primary_pool(settings, "livefeed-gateway") as primary,
        replica_pool(settings, "livefeed-gateway") as replica,
    ):
        await run_gateway(settings, build_gateway(settings, nats, primary, replica), leave, doors)
