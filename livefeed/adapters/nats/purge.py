"""Take handled messages out of the streams, so that a bounded stream never fills with them.

A consumer's ack floor is the end of what was acknowledged without a gap: nothing at or below it is
pending or in anybody's hands. What lies before the first message that anybody has still to handle
goes in whole blocks, which is cheap. What lies behind it, because one consumer is far behind the
others, has to be picked out filter by filter: the server reads every block meanwhile, and the
stream stands for as long. Measured with 300,000 waiting: 0.4 to 0.9 s, against 4 ms.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from livefeed.adapters.nats.connection import Connection
from livefeed.errors import Unavailable
from livefeed.topology import consumers

REQUEST_SECONDS_MAX = 5.0


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
    last_seq: int = 0


class _Stored(msgspec.Struct, frozen=True):
    seq: int


class _Answer(msgspec.Struct):
    total: int = 0
    consumers: list[_Consumer] | None = None
    purged: int = 0
    message: _Stored | None = None
    config: _StreamConfig = _StreamConfig()
    state: _State = _State()
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
    first = (await _ask(connection, f"STREAM.INFO.{stream}", {})).state.last_seq + 1
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
    return (await _ask(connection, f"STREAM.PURGE.{stream}", {"seq": stays})).purged


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
        purged += (await _ask(connection, f"STREAM.PURGE.{done.stream}", wanted)).purged
    return purged


async def fill(connection: Connection, stream: str) -> float:
    """How full a stream is, as a share of its bytes.

    Raises:
        Unavailable: When JetStream does not answer or the stream is missing.
    """
    answer = await _ask(connection, f"STREAM.INFO.{stream}", {})
    return answer.state.bytes / max(1, answer.config.max_bytes)


async def first_younger(connection: Connection, stream: str, seconds: float) -> int | None:
    """The sequence of a stream's first message that is younger; None when there is none.

    A direct get by time (ADR-31): the server looks it up in its blocks. With a million messages it
    takes 0.3 ms, and up to 30 ms when the block has to be read from disk first.

    Raises:
        Unavailable: When JetStream does not answer.
    """
    since = datetime.now(UTC) - timedelta(seconds=seconds)
    wanted = {"start_time": since.isoformat(), "next_by_subj": ">"}
    reply = await _request(connection, f"DIRECT.GET.{stream}", wanted)
    headers = reply.headers or {}
    if headers.get("Status") == "404":
        return None
    if "Nats-Sequence" not in headers:
        detail = headers.get("Description", "an answer without a sequence")
        raise Unavailable("nats", f"DIRECT.GET.{stream}: {detail}")
    return int(headers["Nats-Sequence"])


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
    call = f"STREAM.MSG.GET.{stream}"
    answer = await _answer(connection, call, {"seq": first, "next_by_subj": subject})
    if answer.error is not None and answer.error.get("code") == 404:
        return None
    return None if (found := _checked(call, answer).message) is None else found.seq


def _names(stream: str) -> set[str]:
    return {consumer.name for consumer in consumers() if consumer.stream == stream}


def _filters(config: _Config) -> tuple[str, ...]:
    # As the server has them: these are what the floor speaks of.
    return tuple(filter(None, [config.filter_subject, *config.filter_subjects]))


async def _ask(connection: Connection, call: str, wanted: Mapping[str, object]) -> _Answer:
    return _checked(call, await _answer(connection, call, wanted))


def _checked(call: str, answer: _Answer) -> _Answer:
    if answer.error is not None:
        raise Unavailable("nats", f"{call}: {answer.error.get('description')}")
    return answer


async def _answer(connection: Connection, call: str, wanted: Mapping[str, object]) -> _Answer:
    return _decoder.decode((await _request(connection, call, wanted)).data)


async def _request(connection: Connection, call: str, wanted: Mapping[str, object]) -> Msg:
    payload = json.dumps(wanted).encode()
    try:
        return await connection.request(f"$JS.API.{call}", payload, timeout=REQUEST_SECONDS_MAX)
    except (NatsError, TimeoutError) as error:
        raise Unavailable("nats", f"JetStream does not answer: {error}") from error
