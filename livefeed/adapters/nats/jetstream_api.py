"""Calls of JetStream's API: one request, one answer, and what it means when there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec
from nats.errors import Error as NatsError

from livefeed.adapters.nats.connection import Connection
from livefeed.errors import Unavailable

REQUEST_SECONDS_MAX: Final = 5.0


class Fault(msgspec.Struct, frozen=True):
    """What the server says is wrong."""

    code: int = 0
    """Like an HTTP status."""
    err_code: int = 0
    """JetStream's own."""
    description: str = ""


class Answer(msgspec.Struct):
    """What every answer may have; those of a call derive from it."""

    error: Fault | None = None


Kind = TypeVar("Kind", bound=Answer)


async def call(
    connection: Connection, name: str, wanted: Mapping[str, object], kind: type[Kind]
) -> Kind:
    """Ask, and return the answer, which may hold a fault.

    Args:
        connection: NATS.
        name: What is asked, with the stream: `STREAM.INFO.FEED_UPDATES`.
        wanted: The request.
        kind: What of the answer is of interest.

    Raises:
        Unavailable: When JetStream does not answer.
    """
    subject, question = f"$JS.API.{name}", msgspec.json.encode(wanted)
    try:
        reply = await connection.request(subject, question, timeout=REQUEST_SECONDS_MAX)
    except (NatsError, TimeoutError) as error:
        raise Unavailable("nats", f"JetStream does not answer: {error}") from error
    return msgspec.json.decode(reply.data, type=kind)


async def ask(
    connection: Connection, name: str, wanted: Mapping[str, object], kind: type[Kind]
) -> Kind:
    """Ask, and return the answer.

    Raises:
        Unavailable: As for `call`, and for every fault, such as a missing stream.
    """
    answer = await call(connection, name, wanted, kind)
    if answer.error is not None:
        raise Unavailable("nats", f"{name}: {answer.error.description}")
    return answer
