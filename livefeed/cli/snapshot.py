"""`livefeed snapshot`: a feed as it is now."""

from __future__ import annotations

import json
from typing import Any

import click
import httpx
from livefeed_client import Snapshot, SnapshotRefused, fetch_snapshot
from livefeed_client.state import Item

from livefeed.cli.client import feed_names, gateway_url, short_content, token_source
from livefeed.cli.environment import command_settings
from livefeed.cli.running import run
from livefeed.cli.terminal import printable
from livefeed.errors import AccessRefused, Refused, Unavailable


@click.command("snapshot")
@click.option("--user", required=True, help="Whose view of the feed.")
@click.option("--feed", required=True, help="The feed's name.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.option("--url", help="The gateway's address; by default that of the settings.")
@click.option("--token", help="The user's token; by default one signed with the configured key.")
def command(user: str, feed: str, *, as_json: bool, url: str | None, token: str | None) -> None:
    """Print the items of a feed, in its order, and the cursor at which they are true."""
    settings = command_settings()
    (name,) = feed_names(feed.replace(",", " "))  # One feed: a comma is no separator here.
    address = gateway_url(settings, url)
    held = token if token is not None else token_source(settings, user)()
    snapshot: Snapshot = run(_fetch(address, held, name))
    if as_json:
        items = [flat(item) for item in snapshot.items]
        answer = {"items": items, "cursor": str(snapshot.cursor), "unread": snapshot.unread}
        click.echo(json.dumps(answer))
        return
    _print_table(snapshot)


def flat(item: Item) -> dict[str, Any]:
    """An item as its content's fields, and its engagement when there is any."""
    fields = dict(item.content)
    if item.engagement is not None:
        counters = {name: value for name, value in item.engagement.items() if name != "id"}
        fields["engagement"] = counters
    return fields


async def _fetch(url: str, token: str, feed: str) -> Snapshot:
    try:
        return await fetch_snapshot(url, token=token, feed=feed, age_seconds_max=0)
    except SnapshotRefused as refused:
        if refused.retryable:
            raise Unavailable("gateway", f"{refused.status} {refused.message}") from refused
        kind = AccessRefused if refused.status in {401, 403} else Refused
        raise kind(refused.code, refused.message) from refused
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        detail = f"{url}: {str(error) or type(error).__name__}; start it with `livefeed up`"
        raise Unavailable("gateway", detail) from error


def _print_table(snapshot: Snapshot) -> None:
    names = [printable(item.id) for item in snapshot.items]
    width = min(48, max(map(len, names), default=0))
    for name, item in zip(names, snapshot.items, strict=True):
        fields = flat(item)
        click.echo(f"{item.timestamp:<27}  {name:<{width}}  {short_content(fields)}")
    items = "1 item" if len(names) == 1 else f"{len(names)} items"
    click.echo(f"{items}, {snapshot.unread} unread, cursor {snapshot.cursor}")
