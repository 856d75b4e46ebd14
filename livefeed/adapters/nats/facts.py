"""What there is to know of a NATS server's health, through a client's connection."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Final

from nats.errors import Error as NatsError
from nats.js.api import ConsumerInfo, DiscardPolicy, PersistMode, StreamInfo
from nats.js.errors import NotFoundError, ServiceUnavailableError

from livefeed import subjects
from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.provision import consumer_infos
from livefeed.broker_health import BrokerFacts, ConsumerFacts, StreamCopy, StreamFacts
from livefeed.errors import Unavailable
from livefeed.topology import DEAD_LETTERS, LANE_STREAM, UPDATES

SECONDS_MAX: Final = 2.0


def server_id(connection: Connection) -> str:
    """The id of the server that we are connected to."""
    return str(connection._server_info.get("server_id", ""))  # noqa: SLF001


async def broker_facts(connection: Connection) -> BrokerFacts:
    """The server that we are connected to.

    Raises:
        Unavailable: When it does not answer.
    """
    async with _answering():
        began_at = time.perf_counter()
        await connection.flush(1)
        seconds = time.perf_counter() - began_at
        try:
            await connection.jetstream(timeout=SECONDS_MAX).account_info()
        except ServiceUnavailableError:
            jetstream = False
        else:
            jetstream = True
    return BrokerFacts(
        server_id=server_id(connection),
        version=str(connection._server_info.get("version", "")),  # noqa: SLF001
        jetstream=jetstream,
        payload_bytes_max=connection.max_payload,
        round_trip_milliseconds=seconds * 1000,
    )


async def stream_facts(connection: Connection) -> list[StreamFacts]:
    """The streams of the topology that exist.

    Raises:
        Unavailable: When JetStream does not answer.
    """
    jetstream = connection.jetstream(timeout=SECONDS_MAX)
    found = []
    async with _answering():
        for name in (UPDATES, LANE_STREAM, DEAD_LETTERS):
            try:
                found.append(_stream(await jetstream.stream_info(name)))
            except NotFoundError:
                continue
    return found


async def consumer_facts(connection: Connection) -> list[ConsumerFacts]:
    """The consumers of the two working streams.

    Raises:
        Unavailable: When JetStream does not answer.
    """
    jetstream = connection.jetstream(timeout=SECONDS_MAX)
    async with _answering():
        pages = [await consumer_infos(jetstream, stream) for stream in (UPDATES, LANE_STREAM)]
    return [_consumer(info) for page in pages for info in page.values()]


async def dead_letter_counts(connection: Connection) -> dict[str, int] | None:
    """Messages in the dead-letter queue by reason; None when there is no such stream.

    Raises:
        Unavailable: When JetStream does not answer.
    """
    jetstream = connection.jetstream(timeout=SECONDS_MAX)
    async with _answering():
        try:
            info = await jetstream.stream_info(DEAD_LETTERS, subjects.DEAD_LETTERS_ALL)
        except NotFoundError:
            return None
    counts = info.state.subjects or {}
    return {name.removeprefix(subjects.DEAD_LETTERS_PREFIX): n for name, n in counts.items()}


@asynccontextmanager
async def heard_workers(
    connection: Connection, functions: Collection[str]
) -> AsyncIterator[Mapping[str, set[str]]]:
    """Listen to the workers of some functions; the sets fill while the context is open."""
    heard: dict[str, set[str]] = {function: set() for function in functions}

    def listen(subject: bytes, _reply: bytes, _headers: bytes, payload: bytes) -> None:
        try:
            said = json.loads(payload)
            worker, leaving = str(said["worker"]), bool(said["leaving"])
        except (ValueError, KeyError, TypeError):
            return
        workers = heard[subject.decode().rpartition(".")[2]]
        (workers.discard if leaving else workers.add)(worker)

    names = [subjects.control_workers(function) for function in functions]
    subscriptions = [connection.subscribe_direct(name, listen) for name in names]
    try:
        yield heard
    finally:
        for subscription in subscriptions:
            connection.unsubscribe_now(subscription)


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    try:
        yield
    except (TimeoutError, NatsError) as error:
        detail = str(error) or type(error).__name__
        raise Unavailable("nats", f"JetStream does not answer: {detail}") from error


def _stream(info: StreamInfo) -> StreamFacts:
    peers = (info.cluster.replicas if info.cluster else None) or []
    copies = tuple(
        StreamCopy(
            str(peer.name), bool(peer.current) and not peer.offline, (peer.active or 0) / 1e9
        )
        for peer in peers
    )
    return StreamFacts(
        name=str(info.config.name),
        messages=info.state.messages,
        bytes=info.state.bytes,
        bytes_max=info.config.max_bytes or 0,
        refuses_when_full=info.config.discard == DiscardPolicy.NEW,
        acknowledges_before_writing=info.config.persist_mode == PersistMode.ASYNC,
        copies=copies,
    )


def _consumer(info: ConsumerInfo) -> ConsumerFacts:
    return ConsumerFacts(
        name=info.name,
        stream=info.stream_name,
        pending=info.num_pending or 0,
        ack_pending=info.num_ack_pending or 0,
        redelivered=info.num_redelivered or 0,
        paused=bool(info.paused),
    )
