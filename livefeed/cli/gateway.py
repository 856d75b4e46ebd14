"""`livefeed gateway`: serve clients."""

from __future__ import annotations

import logging
import time

import click

from gateway.server import Access, build_gateway, run_gateway
from gateway.snapshots import LogPages
from livefeed.adapters import node_lock
from livefeed.adapters.key_set import KeySet
from livefeed.cli.environment import command_settings
from livefeed.cli.feed_sources import pages_of_source
from livefeed.cli.gateway_workers import inherited_doors, is_worker, run_workers
from livefeed.cli.open_files import raise_open_files, too_few_open_files
from livefeed.cli.plugins import authorize_function
from livefeed.cli.replicas import replica_pools
from livefeed.cli.room import with_room_checked
from livefeed.cli.running import (
    leave_now,
    leave_on_signals,
    log_to_stderr,
    nats_connection,
    primary_pool,
    run,
)
from livefeed.node_settings import load_node_settings
from livefeed.settings import Settings

logger = logging.getLogger(__name__)


@click.command("gateway")
@click.option("--port", type=click.IntRange(0, 65535), help="Port for clients.")
@click.option("--ops-port", type=click.IntRange(0, 65535), help="Port for /healthz and /readyz.")
@click.option(
    "--workers", type=click.IntRange(1, 64), help="Processes that share the port for clients."
)
def command(port: int | None, ops_port: int | None, workers: int | None) -> None:
    """Serve WebSockets and snapshots until told to leave, then drain; told again, leave at once."""
    log_to_stderr()
    settings = command_settings(gateway_port=port, ops_port=ops_port, gateway_workers=workers)
    if is_worker():
        run(_serve(settings))
        return
    # One of several processes speaks for all, and is told to leave for all.
    with node_lock.held(load_node_settings().lock_file):
        work = run_workers(settings) if settings.gateway_workers > 1 else _serve(settings)
        run(with_room_checked(settings, work))


async def _serve(settings: Settings) -> None:
    # Of several processes the parent hears both; a manager may well signal all of them, too.
    leave = leave_on_signals(None if is_worker() else leave_now)
    warning = too_few_open_files(raise_open_files(), settings.connections_max)
    if warning is not None:
        logger.warning("%s", warning)
    keys, authorize = _key_set(settings), authorize_function(settings)
    doors = inherited_doors(leave)
    async with (
        pages_of_source(settings) as pages,
        nats_connection(settings, "livefeed-gateway") as nats,
        primary_pool(settings, "livefeed-gateway") as primary,
        replica_pools(settings, "livefeed-gateway") as replicas,
    ):
        access = Access(keys, authorize, pages or LogPages)
        gateway = build_gateway(settings, nats, primary, replicas, access)
        await run_gateway(settings, gateway, leave, doors)


def _key_set(settings: Settings) -> KeySet | None:
    if settings.jwks_url is None:
        return None
    # Only here: the HTTP client takes a while to import, and most gateways need none.
    from livefeed.adapters.key_server import key_reader

    read = key_reader(settings.jwks_url, settings.jwt_algorithm)
    return KeySet(read, clock=time.monotonic)
