"""`livefeed migrate`: bring the database's schema to this version."""

from __future__ import annotations

import click

from livefeed.adapters.postgres.schema import latest_revision, migrate
from livefeed.cli.environment import command_settings
from livefeed.cli.running import run


@click.command("migrate")
def command() -> None:
    """Apply the migrations that are missing; safe to run again and from several hosts."""
    applied = run(migrate(command_settings().database_url))
    for name in applied:
        click.echo(f"applied {name}")
    click.echo(f"the schema is at {latest_revision()}")
