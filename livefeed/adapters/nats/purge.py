"""Take handled messages out of the streams, so that a bounded stream never fills with them.

A consumer's ack floor is the end of what was acknowledged without a gap: nothing at or below it is
pending or in anybody's hands. Each filter is purged up to its own consumer's floor, so a consumer
that stands still keeps its own messages and nobody else's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
from nats.errors import Error as NatsError

from livefeed.adapters.nats.connection import Connection
from livefeed.errors import Unavailable
from livefeed.topology import consumers

REQUEST_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Handled:
    """Up to where a stream's messages of some subjects were handled."""

    stream: str
    filters: tuple[str, ...]
    floor: int
    """The stream sequence; 0 before anything was."""


class _Sequences(msgspec.Struct):
    stream_seq: int = 0


class _Config(msgspec.Struct):
    filter_subject: str = ""
    filter_subjects: list[str] = []


class _Consumer(msgspec.Struct):
    name: str
    config: _Config
    ack_floor: _Sequences


class _Answer(msgspec.Struct):
    total: int = 0
    consumers: list[_Consumer] | None = None
    purged: int = 0
    error: dict[str, object] | None = None


_decoder = msgspec.json.Decoder(_Answer)


async def handled(connection: Connection, stream: str) -> list[Handled]:
    """Up to where each of our consumers of a stream has handled its messages.

    Raises:
        Unavailable: When JetStream does not answer or the stream is missing.
    """
    found: list[_Consumer] = []
    while True:
        asked = {"offset": len(found)}
        answer = await _ask(connection, f"CONSUMER.LIST.{stream}", asked)
        page = answer.consumers or []
        found += page
        if not page or len(found) >= answer.total:
            break
    # Somebody who looks at a stream with a consumer of their own handles nothing.
    ours = {consumer.name for consumer in consumers() if consumer.stream == stream}
    return [
        Handled(stream, _filters(one.config), one.ack_floor.stream_seq)
        for one in found
        if one.name in ours
    ]


async def purge(connection: Connection, done: Handled) -> int:
    """Delete what was handled; returns how many messages that were.

    Raises:
        Unavailable: When JetStream does not answer.
    """
    if done.floor == 0:
        return 0
    purged = 0
    for subject in done.filters:
        # `seq` is the first that stays.
        wanted = {"filter": subject, "seq": done.floor + 1}
        purged += (await _ask(connection, f"STREAM.PURGE.{done.stream}", wanted)).purged
    return purged


async def progress(connection: Connection, streams: Iterable[str]) -> int:
    """A number that grows whenever a message of these streams was handled.

    Raises:
        Unavailable: When JetStream does not answer.
    """
    return sum([one.floor for name in streams for one in await handled(connection, name)])


def _filters(config: _Config) -> tuple[str, ...]:
    # As the server has them: these are what the floor speaks of.
    return tuple(filter(None, [config.filter_subject, *config.filter_subjects]))


async def _ask(connection: Connection, call: str, wanted: Mapping[str, object]) -> _Answer:
    payload = json.dumps(wanted).encode()
    try:
        reply = await connection.request(f"$JS.API.{call}", payload, timeout=REQUEST_SECONDS_MAX)
    except (NatsError, TimeoutError) as error:
        raise Unavailable("nats", f"JetStream does not answer: {error}") from error
    answer = _decoder.decode(reply.data)
    if answer.error is not None:
        raise Unavailable("nats", f"{call}: {answer.error.get('description')}")
    return answer
