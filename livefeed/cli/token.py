"""`livefeed token`: a token to try things with."""

from __future__ import annotations

import click

from livefeed.cli.client import TOKEN_SECONDS, user_token
from livefeed.cli.environment import command_settings


@click.command("token")
@click.option("--user", required=True, help="Whose token.")
@click.option("--feeds", help="The only feeds that it allows: names or prefixes such as news-*.")
@click.option(
    "--expires",
    type=click.IntRange(1, 10 * 365 * 86_400),
    default=TOKEN_SECONDS,
    show_default=True,
    help="Seconds until it runs out.",
)
def command(user: str, feeds: str | None, expires: int) -> None:
    """Print a token signed with the configured key."""
    names = None if feeds is None else [name.strip() for name in feeds.split(",")]
    click.echo(user_token(command_settings(), user, feeds=names, seconds=expires))
