"""The publishing side of a backlog, in a process of its own: a corpus, as fast as it goes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from benchmarks.corpus import Corpus
from benchmarks.drain import lag
from benchmarks.load_process import Link
from livefeed.adapters.nats.connection import Connection, close, connect
from livefeed.adapters.nats.publish import BATCH_MESSAGES_MAX, Outbound, Publisher, StreamRefused
from livefeed.errors import OutcomeUnknown
from livefeed.topology import UPDATES

FULL_SECONDS: Final = 0.02
"""How long nothing is published when enough waits."""
AGAIN: Final = "again-"
"""Before the message id of what is published once more: JetStream has to take it for new."""


@dataclass(frozen=True, slots=True)
class Flood:
    """Publish updates number `first` up to `stop`."""

    first: int
    stop: int
    again: bool = False
    """They were published before: the same bytes, under other message ids."""


@dataclass(frozen=True, slots=True)
class Flooded:
    """All of a flood is stored."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Pour:
    """Publish updates number 0 and up until told anything else, then say how many."""

    waiting_max: int
    """Updates that may wait to be taken; above it the rest comes when there is room."""


@dataclass(frozen=True, slots=True)
class Trickle:
    """Publish updates number `first` and up at a rate until told anything else, then say where."""

    first: int
    per_second: float


async def flood(link: Link, nats_url: str, corpus: Corpus) -> None:
    """The load: answers each Flood with a Flooded."""
    connection = await connect([nats_url], name="livefeed-bench-publisher")
    publisher = Publisher(connection)
    publisher.start()
    try:
        while True:
            command: Flood | Pour | Trickle = await link.receive()
            if isinstance(command, Trickle):
                link.send(await _trickle(link, publisher, corpus, command))
            elif isinstance(command, Pour):
                link.send(await _pour(link, connection, publisher, corpus, command))
            else:
                link.send(await _flood(publisher, corpus, command))
    finally:
        await close(connection)


async def _flood(publisher: Publisher, corpus: Corpus, command: Flood) -> Flooded:
    began = time.perf_counter()
    for first in range(command.first, command.stop, BATCH_MESSAGES_MAX):
        stop = min(first + BATCH_MESSAGES_MAX, command.stop)
        await _publish(
            publisher,
            [_message(corpus, number, again=command.again) for number in range(first, stop)],
        )
    return Flooded(time.perf_counter() - began)


async def _pour(
    link: Link, connection: Connection, publisher: Publisher, corpus: Corpus, command: Pour
) -> int:
    enough = asyncio.create_task(link.receive())
    published = 0
    while not enough.done():
        if await lag(connection, UPDATES) >= command.waiting_max:
            await asyncio.sleep(FULL_SECONDS)
            continue
        stop = published + BATCH_MESSAGES_MAX
        await _publish(
            publisher, [_message(corpus, number, again=False) for number in range(published, stop)]
        )
        published = stop
    await enough
    return published


async def _trickle(link: Link, publisher: Publisher, corpus: Corpus, command: Trickle) -> int:
    enough = asyncio.create_task(link.receive())
    began, number = time.perf_counter(), command.first
    while not enough.done():
        due = began + (number - command.first) / command.per_second
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        await publisher.publish(*_message(corpus, number, again=False))
        number += 1
    await enough
    return number


async def _publish(publisher: Publisher, messages: list[Outbound]) -> None:
    try:
        await publisher.publish_batch(messages)
    except (StreamRefused, OutcomeUnknown):
        # A batch that was stored without an answer is refused when it comes again. Alone, each
        # update gets an answer of its own, and counts once.
        await asyncio.gather(*(publisher.publish(*message) for message in messages))


def _message(corpus: Corpus, number: int, *, again: bool) -> Outbound:
    subject, payload, update_id = corpus.message(number)
    return subject, payload, {"Nats-Msg-Id": f"{AGAIN}{update_id}" if again else update_id}
