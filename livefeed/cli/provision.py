"""`livefeed provision`: make NATS match the topology."""

from __future__ import annotations

import click

from livefeed.adapters.nats.provision import Provisioned, provision
from livefeed.cli.environment import command_settings
from livefeed.cli.running import nats_connection, run
from livefeed.settings import Settings


@click.command("provision")
def command() -> None:
    """Create or mend the streams and consumers; never destroys data."""
    done = run(_provision(command_settings()))
    click.echo(f"created {len(done.created)}, updated {len(done.updated)}")
    for name in done.updated:
        click.echo(f"  updated {name}")


async def _provision(settings: Settings) -> Provisioned:
    async with nats_connection(settings, "livefeed-provision") as connection:
        return await provision(
            connection, replicas=settings.nats_replicas, bytes_max=settings.stream_bytes_max
        )
