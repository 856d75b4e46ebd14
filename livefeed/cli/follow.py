"""`livefeed follow`: who follows whom."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final, TypeVar

import click

from livefeed.adapters.postgres.follows import FollowRow, add_follows, end_follows, follow_pages
from livefeed.adapters.postgres.pool import Pool
from livefeed.cli.environment import command_settings
from livefeed.cli.lines import (
    LINE_BYTES_MAX,
    STANDARD_INPUT,
    BlockReader,
    Line,
    open_input,
    read_lines,
)
from livefeed.cli.parameters import ID
from livefeed.cli.progress import progress, say
from livefeed.cli.running import reached_primary, run
from livefeed.cli.sending import Tally
from livefeed.cli.terminal import printable
from livefeed.errors import Refused
from livefeed.follow import Follow, parse_follow
from livefeed.limits import AUDIENCE_ROWS_MAX

HEADER: Final = b"actor,follower"
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

Row = TypeVar("Row")


@click.group("follow")
def command() -> None:
    """Keep who follows whom: the audience of updates for an actor's followers."""


@command.command("add")
@click.option("--actor", type=ID, required=True, help="Who is followed.")
@click.argument("user", type=ID, nargs=-1, required=True)
def add(actor: str, user: tuple[str, ...]) -> None:
    """Let every USER follow an actor from now on."""
    follows = [Follow(actor, one) for one in dict.fromkeys(user)]
    changed = run(_write(follows, add_follows))
    click.echo(f"added {changed}, unchanged {len(follows) - changed}")


@command.command("end")
@click.option("--actor", type=ID, required=True, help="Who is followed.")
@click.argument("user", type=ID, nargs=-1, required=True)
def end(actor: str, user: tuple[str, ...]) -> None:
    """Let every USER follow an actor no more; they still get removals, for 30 days."""
    users = list(dict.fromkeys(user))

    async def end_some(pool: Pool, some: Sequence[str]) -> int:
        return await end_follows(pool, actor, some)

    changed = run(_write(users, end_some))
    click.echo(f"ended {changed}, unchanged {len(users) - changed}")


@command.command("list")
@click.option("--actor", type=ID, required=True, help="Who is followed.")
@click.option("--ended", is_flag=True, help="Also those who follow no more.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def list_(actor: str, *, ended: bool, as_json: bool) -> None:
    """Print the followers of an actor in the order of their ids, one a line."""
    run(_list(actor, ended=ended, as_json=as_json))


@command.command("import")
@click.argument("file", default=STANDARD_INPUT)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
def import_(file: str, *, as_json: bool) -> None:
    """Add the follows in FILE; without FILE from standard input.

    A line is `actor,follower` or {"actor": …, "follower": …}. Wrong lines are named and left out,
    and the exit code is 1 then. To import the same lines again changes nothing.
    """
    tally = Tally(say)
    run(_import(file, tally))
    counts = {"added": tally.accepted, "unchanged": tally.duplicate, "refused": tally.refused}
    text = ", ".join(f"{name} {number}" for name, number in counts.items())
    click.echo(json.dumps(counts) if as_json else text)
    if tally.refused:
        raise click.exceptions.Exit(1)


async def _write(
    rows: Sequence[Row], write: Callable[[Pool, Sequence[Row]], Awaitable[int]]
) -> int:
    async with _primary() as pool:
        return sum([await write(pool, some) for some in batches(rows)])


async def _list(actor: str, *, ended: bool, as_json: bool) -> None:
    line = json_line if as_json else text_line
    async with _primary() as pool:
        async for page in follow_pages(pool, actor, ended=ended):
            for row in page:
                click.echo(line(row))


async def _import(path: str, tally: Tally) -> None:
    descriptor = open_input(path)
    async with _primary() as pool:
        reader = BlockReader(descriptor)
        with progress(descriptor, "importing") as bar:
            async for lines, size in read_lines(reader, path):
                for follows in batches(_parsed(lines, tally)):
                    added = await add_follows(pool, follows)
                    tally.accepted += added
                    tally.duplicate += len(follows) - added
                bar.update(size)
    if tally.hidden:
        say(f"… and {tally.hidden} more")


def _parsed(lines: Iterable[Line], tally: Tally) -> Iterator[Follow]:
    for line in lines:
        text = line.text.removeprefix(BYTE_ORDER_MARK) if line.number == 1 else line.text
        if line.number == 1 and text == HEADER:
            continue
        try:
            if line.too_long:
                raise Refused("too_large", f"the line has more than {LINE_BYTES_MAX} bytes")
            yield parse_follow(text)
        except Refused as refused:
            tally.refuse(line.number, refused.code, refused.detail)


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Cut into as many as one statement takes."""
    left = iter(rows)
    while some := list(itertools.islice(left, AUDIENCE_ROWS_MAX)):
        yield some


def json_line(row: FollowRow) -> str:
    """One follower as a JSON object."""
    ended = None if row.ended is None else _time(row.ended)
    return json.dumps({"follower": row.follower, "since": _time(row.since), "ended": ended})


def text_line(row: FollowRow) -> str:
    """One follower for a person."""
    ended = "" if row.ended is None else f"  ended {_time(row.ended)}"
    return f"{_time(row.since)}  {printable(row.follower)}{ended}"


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@asynccontextmanager
async def _primary() -> AsyncIterator[Pool]:
    async with reached_primary(command_settings(), "livefeed-follow") as pool:
        yield pool
