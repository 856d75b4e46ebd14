"""`livefeed publish`: updates from a file or a pipe, checked, acknowledged and counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Final

import click

from livefeed import subjects
from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.publish import Publisher
from livefeed.cli.environment import command_settings
from livefeed.cli.lines import (
    STANDARD_INPUT,
    BlockReader,
    Line,
    check_line,
    open_input,
    read_lines,
)
from livefeed.cli.progress import progress, say
from livefeed.cli.running import leave_on_signals, nats_connection, run
from livefeed.cli.sending import (
    GROUP_BYTES_MAX,
    GROUP_UPDATES_MAX,
    Outgoing,
    Sender,
    Tally,
    check_stream,
)
from livefeed.errors import Unavailable, UpdateRefused
from livefeed.settings import Settings
from livefeed.trace import HEADER, valid
from livefeed.update import FeedUpdate

SOURCE_DEFAULT: Final = "cli"
SOURCE_CHARACTERS_MAX: Final = 64
INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells have it."""


class Publishing:
    """One run of the command: reads, checks, sends and counts."""

    def __init__(self, path: str, traceparent: str | None) -> None:
        self._path = path
        self._traceparent = traceparent
        self.tally = Tally(say)
        self.interrupted = False
        self.failure: Unavailable | None = None
        """Why not everything was tried."""

    async def run(self, settings: Settings) -> None:
        """Publish everything, or stop early and say why in `interrupted` or `failure`."""
        descriptor = open_input(self._path)
        async with _connected(settings) as connection:
            publisher = Publisher(connection)
            publisher.start()
            await check_stream(publisher)
            sender, reader = Sender(publisher, self.tally), BlockReader(descriptor)
            leaving = asyncio.create_task(self._leave(sender, reader), name="leave")
            try:
                with progress(descriptor, "publishing") as bar:
                    await self._send_all(sender, reader, bar)
            finally:
                leaving.cancel()
        if self.tally.hidden:
            say(f"… and {self.tally.hidden} more")
        if sender.failure is not None:
            detail = f"{sender.failure}; the rest was not sent. Publish the same input again:"
            self.failure = Unavailable("nats", f"{detail} what was accepted counts once")

    async def _send_all(self, sender: Sender, reader: BlockReader, bar: Any) -> None:
        async for lines, size in read_lines(reader, self._path):
            for group in groups(self._checked(lines)):
                await sender.send(group)
            bar.update(size)
            if sender.failure is not None:
                break
        await sender.finish()

    def _checked(self, lines: Iterable[Line]) -> Iterator[Outgoing]:
        now_microseconds = time.time_ns() // 1000
        for line in lines:
            try:
                update = check_line(line, now_microseconds=now_microseconds)
            except UpdateRefused as refused:
                self.tally.refuse(line.number, refused.reason, refused.detail)
            else:
                yield Outgoing(line.number, (subject_of(update), line.text, self._headers(update)))

    def _headers(self, update: FeedUpdate) -> dict[str, str]:
        headers = {"Nats-Msg-Id": update.update_id}
        return headers if self._traceparent is None else headers | {HEADER: self._traceparent}

    async def _leave(self, sender: Sender, reader: BlockReader) -> None:
        await leave_on_signals().wait()
        self.interrupted = True
        reader.stop()
        sender.patience_seconds = 0.0


@click.command("publish")
@click.argument("file", default=STANDARD_INPUT)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
@click.option("--traceparent", help="W3C trace context that every update carries.")
def command(file: str, *, as_json: bool, traceparent: str | None) -> None:
    """Publish the updates in FILE, one JSON object a line; without FILE from standard input.

    Wrong lines are named and not sent. An update that comes again with the same updateId is a
    duplicate: it counts once. The exit code is 1 when any line was refused.
    """
    if traceparent is not None and valid(traceparent) is None:
        raise click.BadParameter(
            "expected 00-<32 hex>-<16 hex>-<2 hex>", param_hint="--traceparent"
        )
    publishing = Publishing(file, traceparent)
    run(publishing.run(command_settings()))
    click.echo(summary(publishing.tally, as_json=as_json))
    if publishing.failure is not None:
        raise publishing.failure
    if publishing.interrupted:
        raise click.exceptions.Exit(INTERRUPTED)
    if publishing.tally.refused:
        raise click.exceptions.Exit(1)


@contextlib.asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[Connection]:
    async with contextlib.AsyncExitStack() as stack:
        try:
            connecting = nats_connection(settings, "livefeed-publish")
            connection = await stack.enter_async_context(connecting)
        except Unavailable as error:
            mend = "start it with `livefeed up`, or set LIVEFEED_NATS_URL"
            raise Unavailable("nats", f"{error.detail}; {mend}") from error
        yield connection


def subject_of(update: FeedUpdate) -> str:
    """Where an update is published; its source becomes one token of the subject."""
    source = (update.metadata and update.metadata.source) or ""
    token = re.sub("[^A-Za-z0-9_-]+", "-", source)[:SOURCE_CHARACTERS_MAX].strip("-")
    return subjects.updates(update.priority or "medium", token or SOURCE_DEFAULT)


def groups(outgoing: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    """Cut into groups of bounded number and size."""
    group: list[Outgoing] = []
    size = 0
    for one in outgoing:
        size += len(one.message[1])
        if group and (len(group) == GROUP_UPDATES_MAX or size > GROUP_BYTES_MAX):
            yield group
            group, size = [], len(one.message[1])
        group.append(one)
    if group:
        yield group


def summary(tally: Tally, *, as_json: bool) -> str:
    """The last line."""
    counts = {
        "accepted": tally.accepted,
        "duplicate": tally.duplicate,
        "refused": tally.refused,
    }
    if as_json:
        return json.dumps(counts)
    return ", ".join(f"{name} {number}" for name, number in counts.items())
