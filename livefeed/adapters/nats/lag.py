"""How much is waiting in a stream for each of its consumers, in one request."""

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


class _Page(msgspec.Struct):
    consumers: list[_Consumer] | None = None
    error: dict[str, object] | None = None


_decoder = msgspec.json.Decoder(_Page)


async def consumer_lag(connection: Connection, stream: str) -> dict[str, int]:
    """Messages pending or in workers' hands, by consumer; at most 256 consumers.

    Raises:
        Unavailable: When JetStream does not answer or the stream is missing.
    """
    subject = f"$JS.API.CONSUMER.LIST.{stream}"
    try:
        answer = await connection.request(subject, b"{}", timeout=REQUEST_SECONDS_MAX)
    except (NatsError, TimeoutError) as error:
        raise Unavailable("nats", f"JetStream does not answer: {error}") from error
    page = _decoder.decode(answer.data)
    if page.error is not None:
        raise Unavailable("nats", f"{stream}: {page.error.get('description')}")
    return {
        consumer.name: consumer.num_pending + consumer.num_ack_pending
        for consumer in page.consumers or []
    }
