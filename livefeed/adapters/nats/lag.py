"""How much is waiting in a stream, for each of its consumers, in one request."""

from __future__ import annotations

import msgspec

from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.jetstream_api import Answer, ask


class _Consumer(msgspec.Struct):
    name: str
    num_pending: int = 0
    num_ack_pending: int = 0


class _State(msgspec.Struct):
    last_seq: int = 0


class _Answer(Answer):
    consumers: list[_Consumer] | None = None
    state: _State | None = None


async def consumer_lag(connection: Connection, stream: str) -> dict[str, int]:
    """Messages pending or in workers' hands, by consumer; at most 256 consumers.

    Raises:
        Unavailable: When JetStream does not answer or the stream is missing.
    """
    answer = await ask(connection, f"CONSUMER.LIST.{stream}", {}, _Answer)
    return {
        consumer.name: consumer.num_pending + consumer.num_ack_pending
        for consumer in answer.consumers or []
    }


async def last_sequence(connection: Connection, stream: str) -> int:
    """The sequence of a stream's last message; a fraction of what its consumers' lag costs.

    Raises:
        Unavailable: As for `consumer_lag`.
    """
    state = (await ask(connection, f"STREAM.INFO.{stream}", {}, _Answer)).state
    return 0 if state is None else state.last_seq
