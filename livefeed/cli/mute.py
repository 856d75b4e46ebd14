"""`livefeed mute`: which feeds a user has muted."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence

import click

from livefeed.adapters.postgres.mutes import add_mutes, mute_pages, remove_mutes
from livefeed.adapters.postgres.pool import Pool
from livefeed.cli.environment import command_settings
from livefeed.cli.parameters import FEED, ID
from livefeed.cli.running import reached_primary, run
from livefeed.cli.terminal import printable

APPLICATION = "livefeed-mute"


@click.group("mute")
def command() -> None:
    """Keep which feeds a user has muted: their updates come last, and are not pushed."""


@command.command("add")
@click.option("--user", type=ID, required=True, help="Who mutes.")
@click.argument("feed", type=FEED, nargs=-1, required=True)
def add(user: str, feed: tuple[str, ...]) -> None:
    """Mute every FEED for a user."""
    feeds = list(dict.fromkeys(feed))
    changed = run(_write(user, feeds, add_mutes))
    click.echo(f"added {changed}, unchanged {len(feeds) - changed}")


@command.command("remove")
@click.option("--user", type=ID, required=True, help="Who muted.")
@click.argument("feed", type=FEED, nargs=-1, required=True)
def remove(user: str, feed: tuple[str, ...]) -> None:
    """Mute every FEED no more for a user."""
    feeds = list(dict.fromkeys(feed))
    changed = run(_write(user, feeds, remove_mutes))
    click.echo(f"removed {changed}, unchanged {len(feeds) - changed}")


@command.command("list")
@click.option("--user", type=ID, required=True, help="Who muted.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def list_(user: str, *, as_json: bool) -> None:
    """Print the feeds that a user has muted, one a line."""
    run(_list(user, as_json=as_json))


async def _write(
    user: str, feeds: Sequence[str], write: Callable[[Pool, str, Sequence[str]], Awaitable[int]]
) -> int:
    async with reached_primary(command_settings(), APPLICATION) as pool:
        return await write(pool, user, feeds)


async def _list(user: str, *, as_json: bool) -> None:
    async with reached_primary(command_settings(), APPLICATION) as pool:
        async for page in mute_pages(pool, user):
            for feed in page:
                click.echo(json.dumps({"feed": feed}) if as_json else printable(feed))
