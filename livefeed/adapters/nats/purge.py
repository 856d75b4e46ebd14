"""Take handled messages out of the streams, so that a bounded stream never fills with them.

A consumer's ack floor is the end of what was acknowledged without a gap: nothing at or below it is
pending or in anybody's hands. What lies before the first message that anybody has still to handle
goes in whole blocks, which is cheap. What lies behind it, because one consumer is far behind the
others, has to be picked out filter by filter: the server reads every block meanwhile, and the
stream stands for as long. Measured with 300,000 waiting: 0.4 to 0.9 s, against 4 ms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.jetstream_api import Answer, ask, call
from livefeed.adapters.nats.lag import last_sequence
from livefeed.adapters.nats.stored import first_since
from livefeed.errors import Unavailable
from livefeed.order import microseconds
from livefeed.topology import consumers

NOT_FOUND: Final = 404


@dataclass(frozen=True, slots=True)
class Handled:
    """Up to where a stream's messages of some subjects were handled."""

    stream: str
    consumer: str
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


class _StreamConfig(msgspec.Struct, frozen=True):
    max_bytes: int = 0


class _State(msgspec.Struct, frozen=True):
    bytes: int = 0


class _Stored(msgspec.Struct, frozen=True):
    seq: int


class _Answer(Answer):
    total: int = 0
    consumers: list[_Consumer] | None = None
    purged: int = 0
    message: _Stored | None = None
    config: _StreamConfig = _StreamConfig()
    state: _State = _State()


async def handled(connection: Connection, stream: str) -> list[Handled]:
    """Up to where each of our consumers of a stream has handled its messages.

    Raises:
        Unavailable: When JetStream does not answer or the stream is missing.
    """
    found: list[_Consumer] = []
    while True:
        asked = {"offset": len(found)}
        answer = await ask(connection, f"CONSUMER.LIST.{stream}", asked, _Answer)
        page = answer.consumers or []
        found += page
        if not page or len(found) >= answer.total:
            break
    # Somebody who looks at a stream with a consumer of their own handles nothing.
    ours = _names(stream)
    return [
        Handled(stream, one.name, _filters(one.config), one.ack_floor.stream_seq)
        for one in found
        if one.name in ours
    ]


async def first_unhandled(connection: Connection, stream: str, done: Iterable[Handled]) -> int:
    """The sequence of the first message that a consumer has still to handle.

    One more than the stream's last when all are handled. A consumer's floor alone does not say it:
    that of a quiet partition stands where its last message was.

    Args:
        connection: NATS.
        stream: Which stream.
        done: What each of its consumers has handled.

    Raises:
        Unavailable: When JetStream does not answer or the stream is missing.
    """
    ours = sorted(done, key=lambda one: one.floor)
    if {one.consumer for one in ours} != _names(stream):
        # One was deleted. When it comes again it begins with the first message that is there.
        return 0
    # Asked before the others, so that what arrives meanwhile is behind it.
    first = await last_sequence(connection, stream) + 1
    for one in ours:
        if one.floor + 1 >= first:
            break
        for subject in one.filters:
            first = min(first, await _next(connection, stream, subject, one.floor + 1) or first)
    return first


async def purge_before(connection: Connection, stream: str, stays: int) -> int:
    """Delete all messages before a sequence; returns how many those were.

    Raises:
        Unavailable: When JetStream does not answer.
    """
    if stays <= 1:
        return 0
    return (await ask(connection, f"STREAM.PURGE.{stream}", {"seq": stays}, _Answer)).purged


async def purge_behind(connection: Connection, done: Handled, kept_from: int | None) -> int:
    """Delete what one consumer has handled, others' messages among it; returns how many.

    Args:
        connection: NATS.
        done: What was handled.
        kept_from: The first sequence that stays although it was handled; None keeps none.

    Raises:
        Unavailable: When JetStream does not answer.
    """
    # The first that stays.
    stays = done.floor + 1 if kept_from is None else min(done.floor + 1, kept_from)
    if stays <= 1:
        return 0
    purged = 0
    for subject in done.filters:
        wanted = {"filter": subject, "seq": stays}
        purged += (await ask(connection, f"STREAM.PURGE.{done.stream}", wanted, _Answer)).purged
    return purged


async def fill(connection: Connection, stream: str) -> float:
    """How full a stream is, as a share of its bytes.

    Raises:
        Unavailable: When JetStream does not answer or the stream is missing.
    """
    answer = await ask(connection, f"STREAM.INFO.{stream}", {}, _Answer)
    return answer.state.bytes / max(1, answer.config.max_bytes)


async def first_younger(connection: Connection, stream: str, seconds: float) -> int | None:
    """The sequence of a stream's first message that is younger; None when there is none.

    Raises:
        Unavailable: When JetStream does not answer.
    """
    moment = microseconds(datetime.now(UTC) - timedelta(seconds=seconds))
    return await first_since(connection, stream, moment)


async def progress(connection: Connection, streams: Iterable[str]) -> int:
    """A number that grows whenever a message of these streams was handled.

    Raises:
        Unavailable: When JetStream does not answer.
    """
    return sum([one.floor for name in streams for one in await handled(connection, name)])


async def _next(connection: Connection, stream: str, subject: str, first: int) -> int | None:
    """The sequence of the first message from `first` on that matches; None when there is none.

    Not a direct get: a replica that lags would say that there is none.
    """
    name, wanted = f"STREAM.MSG.GET.{stream}", {"seq": first, "next_by_subj": subject}
    answer = await call(connection, name, wanted, _Answer)
    if answer.error is not None and answer.error.code != NOT_FOUND:
        raise Unavailable("nats", f"{name}: {answer.error.description}")
    return None if answer.message is None else answer.message.seq


def _names(stream: str) -> set[str]:
    return {consumer.name for consumer in consumers() if consumer.stream == stream}


def _filters(config: _Config) -> tuple[str, ...]:
    # As the server has them: these are what the floor speaks of.
    return tuple(filter(None, [config.filter_subject, *config.filter_subjects]))
