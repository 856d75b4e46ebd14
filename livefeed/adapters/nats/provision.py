"""Make a NATS server match the topology, and tell where it does not; never destroys data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, NotFoundError

from livefeed.adapters.nats.connection import Connection
from livefeed.broker_health import Difference
from livefeed.errors import Misconfigured, Unavailable
from livefeed.topology import CONSUMER_ACK_PENDING_MAX, Consumer, Stream, consumers, streams


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What a run changed."""

    created: list[str]
    updated: list[str]


async def provision(connection: Connection, *, replicas: int, bytes_max: int) -> Provisioned:
    """Create what is missing and mend what differs; idempotent.

    Raises:
        Unavailable: When JetStream does not answer.
        Misconfigured: When the server refuses a definition.
    """
    jetstream = connection.jetstream(timeout=10)
    done = Provisioned([], [])
    try:
        for stream in streams(bytes_max=bytes_max):
            await _stream(jetstream, _stream_config(stream, replicas), done)
        for stream_name in {consumer.stream for consumer in consumers()}:
            await _consumers(jetstream, stream_name, done)
    except APIError as error:
        raise Misconfigured(f"nats refuses a stream or consumer: {error.description}") from error
    except (NatsError, TimeoutError) as error:
        raise Unavailable("nats", f"JetStream does not answer: {error}") from error
    return done


async def differences(connection: Connection, *, replicas: int, bytes_max: int) -> list[Difference]:
    """Every stream and consumer that is missing or not as the topology says.

    Raises:
        Unavailable: When JetStream does not answer.
    """
    jetstream = connection.jetstream(timeout=5)
    found: list[Difference] = []
    try:
        for stream in streams(bytes_max=bytes_max):
            wanted = _stream_config(stream, replicas)
            try:
                actual = (await jetstream.stream_info(stream.name)).config
            except NotFoundError:
                found.append(Difference(stream.name, "the stream is missing"))
                continue
            found += [Difference(stream.name, text) for text in _differing(wanted, actual)]
        for stream_name in {consumer.stream for consumer in consumers()}:
            found += await _consumer_differences(jetstream, stream_name)
    except (NatsError, TimeoutError) as error:
        raise Unavailable("nats", f"JetStream does not answer: {error}") from error
    return found


async def consumer_infos(jetstream: JetStreamContext, stream: str) -> dict[str, ConsumerInfo]:
    """Every consumer of a stream by name; none when the stream is missing."""
    infos: dict[str, ConsumerInfo] = {}
    while True:
        try:
            page = await jetstream.consumers_info(stream, offset=len(infos))
        except NotFoundError:
            return infos
        infos.update({info.name: info for info in page})
        if len(page) < 256:  # The server's page size.
            return infos


async def _stream(jetstream: JetStreamContext, wanted: StreamConfig, done: Provisioned) -> None:
    name = str(wanted.name)
    try:
        actual = (await jetstream.stream_info(name)).config
    except NotFoundError:
        await jetstream.add_stream(wanted)
        done.created.append(name)
        return
    if _differing(wanted, actual):
        await jetstream.update_stream(wanted)
        done.updated.append(name)


async def _consumers(jetstream: JetStreamContext, stream: str, done: Provisioned) -> None:
    actual = await consumer_infos(jetstream, stream)
    for consumer in consumers():
        if consumer.stream != stream:
            continue
        wanted = _consumer_config(consumer)
        info = actual.get(consumer.name)
        if info is None or _differing(wanted, info.config):
            await jetstream.add_consumer(stream, wanted)
            (done.created if info is None else done.updated).append(consumer.name)


async def _consumer_differences(jetstream: JetStreamContext, stream: str) -> list[Difference]:
    actual = await consumer_infos(jetstream, stream)
    found: list[Difference] = []
    for consumer in consumers():
        if consumer.stream != stream:
            continue
        if consumer.name not in actual:
            found.append(Difference(consumer.name, "the consumer is missing"))
            continue
        texts = _differing(_consumer_config(consumer), actual[consumer.name].config)
        found += [Difference(consumer.name, text) for text in texts]
    return found


def _stream_config(stream: Stream, replicas: int) -> StreamConfig:
    return StreamConfig(
        name=stream.name,
        subjects=list(stream.subjects),
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy(stream.discard),
        max_age=stream.age_seconds_max,
        max_bytes=stream.bytes_max,
        max_msg_size=stream.message_bytes_max,
        duplicate_window=stream.duplicate_window_seconds,
        num_replicas=replicas,
        allow_atomic=True,
        allow_direct=True,
    )


def _consumer_config(consumer: Consumer) -> ConsumerConfig:
    # One filter goes in filter_subject: the server would report it back there.
    one = len(consumer.filters) == 1
    return ConsumerConfig(
        durable_name=consumer.name,
        filter_subject=consumer.filters[0] if one else None,
        filter_subjects=None if one else list(consumer.filters),
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        ack_wait=consumer.ack_wait_seconds,
        max_deliver=-1,
        max_ack_pending=CONSUMER_ACK_PENDING_MAX,
    )


def _differing(wanted: StreamConfig | ConsumerConfig, actual: Any) -> list[str]:
    """One text for each field that is set in `wanted` and differs in `actual`."""
    texts = []
    for name, value in vars(wanted).items():
        have = getattr(actual, name, None)
        same = sorted(value) == sorted(have or []) if isinstance(value, list) else value == have
        if value is not None and not same:
            texts.append(f"{name} is {have}, not {value}")
    return texts
