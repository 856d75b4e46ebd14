"""The publishing side of a backlog, in a process of its own: a corpus, as fast as it goes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from benchmarks.corpus import Corpus
from benchmarks.load_process import Link
from livefeed.adapters.nats.connection import close, connect
from livefeed.adapters.nats.publish import BATCH_MESSAGES_MAX, Outbound, Publisher

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


async def flood(link: Link, nats_url: str, corpus: Corpus) -> None:
    """The load: answers each Flood with a Flooded."""
    connection = await connect([nats_url], name="livefeed-bench-publisher")
    publisher = Publisher(connection)
    publisher.start()
    try:
        while True:
            command: Flood = await link.receive()
            began = time.perf_counter()
            for first in range(command.first, command.stop, BATCH_MESSAGES_MAX):
                stop = min(first + BATCH_MESSAGES_MAX, command.stop)
                await publisher.publish_batch(
                    [_message(corpus, number, again=command.again) for number in range(first, stop)]
                )
            link.send(Flooded(time.perf_counter() - began))
    finally:
        await close(connection)


def _message(corpus: Corpus, number: int, *, again: bool) -> Outbound:
    subject, payload, update_id = corpus.message(number)
    return subject, payload, {"Nats-Msg-Id": f"{AGAIN}{update_id}" if again else update_id}
