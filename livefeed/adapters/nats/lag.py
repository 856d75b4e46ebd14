"""How much is waiting in a stream, for each of its consumers, in one request."""

from __future__ import annotations

import msgspec
from nats.errors import Error as NatsError

from livefeed.adapters.nats.connection import Connection
from livefeed.errors import Unavailable

REQUEST_SECONDS_MAX = 2.0


class _Consumer(msgspec.Struct):
    name: str
    num_pending: int = 0
    num_ack_pending: int = 0


class _State(msgspec.Struct):
    last_seq: int = 0


class _Answer(msgspec.Struct):
    consumers: list[_Consumer] | None = None
    state: _State | None = None
    error: dict[str, object] | None = None


_decoder = msgspec.json.Decoder(_Answer)


async def consumer_lag(connection: Connection, stream: str) -> dict[str, int]:
    """Messages pending or in workers' hands, by consumer; at most 256 consumers.

    Raises:
        Unavailable: When JetStream does not answer or the stream is missing.
    """
    answer = await _ask(connection, "CONSUMER.LIST", stream)
    return {
        consumer.name: consumer.num_pending + consumer.num_ack_pending
        for consumer in answer.consumers or []
    }


async def last_sequence(connection: Connection, stream: str) -> int:
    """The sequence of a stream's last message; a fraction of what its consumers' lag costs.

    Raises:
        Unavailable: As for `consumer_lag`.
    """
    state = (await _ask(connection, "STREAM.INFO", stream)).state
    return 0 if state is None else state.last_seq


async def _ask(connection: Connection, what: str, stream: str) -> _Answer:
    subject = f"$JS.API.{what}.{stream}"
    try:
        message = await connection.request(subject, b"{}", timeout=REQUEST_SECONDS_MAX)
    except (NatsError, TimeoutError) as error:
        raise Unavailable("nats", f"JetStream does not answer: {error}") from error
    answer = _decoder.decode(message.data)
    if answer.error is not None:
        raise Unavailable("nats", f"{stream}: {answer.error.get('description')}")
    return answer
