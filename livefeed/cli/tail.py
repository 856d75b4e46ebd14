"""`livefeed tail`: follow a user's feeds."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

import click
from livefeed_client import LiveFeed, LiveFeedClosed

from livefeed.cli.client import feed_names, gateway_url, short_content, token_source
from livefeed.cli.environment import command_settings
from livefeed.cli.running import leave_on_signals, run
from livefeed.cli.terminal import printable
from livefeed.errors import AccessRefused, Refused

FEED_FAULTS = {"feed_forbidden", "feed_invalid", "too_many_feeds"}
"""Errors after which a feed that was asked for is never caught up."""


@dataclass(slots=True)
class View:
    """What is printed, and when it is enough."""

    as_json: bool
    count: int | None
    """Updates after which it is enough."""
    behind: set[str] = field(default_factory=set)
    """Feeds that have to be caught up before it is enough."""
    until_caught_up: bool = False
    printed: int = 0

    def take(self, frame: dict[str, Any]) -> bool:
        """Print a frame; true when it was the last.

        Raises:
            Refused: When what is waited for will never come.
        """
        if self.as_json:
            click.echo(json.dumps(frame, separators=(",", ":")))
        kind = frame.get("type")
        if kind == "feed_updates":
            return self._take_updates(frame["updates"])
        if kind == "caught_up":
            self.behind.difference_update(frame["feeds"])
            _say(f"caught up: {', '.join(frame['feeds'])}")
            return self.until_caught_up and not self.behind
        self._take_word(frame)
        return False

    def _take_updates(self, updates: list[dict[str, Any]]) -> bool:
        for update in updates:
            if not self.as_json:
                click.echo(line_of(update))
            self.printed += 1
            if self.printed == self.count:
                return True
        return False

    def _take_word(self, frame: dict[str, Any]) -> None:
        match frame.get("type"):
            case "error":
                code, message = str(frame["code"]), str(frame["message"])
                if self.until_caught_up and code in FEED_FAULTS:
                    raise Refused(code, message)
                _say(f"error: {code}: {message}")
            case "reset":
                _say(f"reset: {', '.join(frame['feeds'])}: {frame['reason']}")
            case "degraded":
                _say("updates may be late" if not frame["realtime"] else "updates are live again")


@click.command("tail")
@click.option("--user", required=True, help="Whose feeds.")
@click.option("--feeds", default="home", show_default=True, help="Names, separated by commas.")
@click.option("--json", "as_json", is_flag=True, help="Print the frames, one a line.")
@click.option("--url", help="The gateway's address; by default that of the settings.")
@click.option("--token", help="The user's token; by default one signed with the configured key.")
@click.option("--count", type=click.IntRange(1), help="Leave after this many updates.")
@click.option("--until-caught-up", is_flag=True, help="Leave when every feed is caught up.")
def command(
    user: str,
    feeds: str,
    *,
    as_json: bool,
    url: str | None,
    token: str | None,
    count: int | None,
    until_caught_up: bool,
) -> None:
    """Print the updates of a user's feeds as they come; reconnects and goes on where it was.

    Updates go to standard output, what happens to the connection to standard error.
    """
    settings = command_settings()
    names = feed_names(feeds)
    view = View(as_json, count, behind=set(names), until_caught_up=until_caught_up)
    feed = LiveFeed(
        gateway_url(settings, url),
        token=token if token is not None else token_source(settings, user),
        feeds=names,
        on_status=lambda status, detail: _say(f"{status}: {detail}"),
    )
    run(_tail(feed, view))


def line_of(update: dict[str, Any]) -> str:
    """One update for a person."""
    content = update["content"]
    return " ".join(
        (
            update["timestamp"],
            update["channel"],
            update["updateType"],
            printable(content["id"]),
            short_content(content),
        )
    )


async def _tail(feed: LiveFeed, view: View) -> None:
    """Follow until it is enough or a signal comes, whatever the connection does just then."""
    leave = leave_on_signals()
    following = asyncio.create_task(_follow(feed, view), name="follow")
    leaving = asyncio.create_task(leave.wait(), name="leave")
    await asyncio.wait({following, leaving}, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if not following.done():
        following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following


async def _follow(feed: LiveFeed, view: View) -> None:
    try:
        async with feed:
            async for frame in feed:
                if view.take(frame):
                    return
    except LiveFeedClosed as closed:
        detail = f"{closed} (a token is signed with LIVEFEED_JWT_SECRET or given with --token)"
        raise AccessRefused(
            "gateway_refuses", detail if closed.code == 401 else str(closed)
        ) from closed


def _say(sentence: str) -> None:
    click.echo(f"livefeed: {printable(sentence, 500)}", err=True)
