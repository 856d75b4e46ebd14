"""What a stream holds, read page by page without a consumer: reading changes nothing.

A page is one direct get: the server answers with messages and ends with a status.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from livefeed.adapters.nats.connection import Connection, decode_headers, status_of
from livefeed.errors import Misconfigured, Unavailable
from livefeed.limits import MIB
from livefeed.moment import moment_text
from livefeed.order import microseconds

PAGE_MESSAGES_MAX: Final = 500
PAGE_BYTES_MAX: Final = 4 * MIB
"""More than the largest message, or the server could not send it."""
PAGE_SECONDS_MAX: Final = 5.0
ATTEMPTS_MAX: Final = 3
"""How often a page is asked for: a question is lost while a stream elects its leader."""
UNCONNECTED_SECONDS: Final = 1.0
REQUEST_SECONDS_MAX: Final = 5.0

_ADDED: Final = b"\r\nNats-Stream: "
"""What the server says of a stored message begins here, behind the message's own headers."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One message of a stream."""

    sequence: int
    subject: str
    stored_at: int
    """Microseconds since 1970."""
    headers: Mapping[str, str]
    """The publisher's, by lower-case name."""
    payload: bytes


class Held(NamedTuple):
    """What a stream holds; both ends are 0 before there was anything."""

    messages: int
    first: int
    last: int


async def held_by(connection: Connection, stream: str) -> Held:
    """How much a stream holds now.

    Raises:
        Unavailable: When JetStream does not answer.
        Misconfigured: When there is no such stream.
    """
    try:
        state = (await connection.jetstream(timeout=REQUEST_SECONDS_MAX).stream_info(stream)).state
    except NotFoundError as error:
        detail = f"nats has no stream {stream}; run `livefeed provision` or `livefeed up`"
        raise Misconfigured(detail) from error
    except (NatsError, TimeoutError) as error:
        raise Unavailable("nats", f"JetStream does not answer: {error}") from error
    return Held(state.messages, state.first_seq, state.last_seq)


async def read_stream(
    connection: Connection,
    stream: str,
    *,
    first: int = 1,
    last: int,
    subject: str | None = None,
) -> AsyncIterator[list[Stored]]:
    """The messages of a range of sequences, oldest first, in pages of bounded size.

    Args:
        connection: NATS.
        stream: Which stream.
        first: The first sequence that may come.
        last: The last one.
        subject: Only messages on this subject.

    Raises:
        Unavailable: When JetStream does not answer.
    """
    only = {} if subject is None else {"next_by_subj": subject}
    while first <= last:
        batch = min(PAGE_MESSAGES_MAX, last - first + 1)
        found = await _page(connection, stream, {"seq": first, "batch": batch, **only})
        page = [message for message in found if message.sequence <= last]
        if page:
            yield page
        if not found or len(page) < len(found):
            return
        first = found[-1].sequence + 1


async def first_since(
    connection: Connection, stream: str, moment: int, *, subject: str | None = None
) -> int | None:
    """The first sequence that was stored at a moment or later; None when there is none.

    Raises:
        Unavailable: When JetStream does not answer.
    """
    only = {} if subject is None else {"next_by_subj": subject}
    wanted = {"start_time": moment_text(moment), "batch": 1, **only}
    found = await _page(connection, stream, wanted)
    return found[0].sequence if found else None


async def _page(connection: Connection, stream: str, wanted: Mapping[str, Any]) -> list[Stored]:
    question = json.dumps({**wanted, "max_bytes": PAGE_BYTES_MAX}).encode()
    status = None
    for _ in range(ATTEMPTS_MAX):
        found: list[Stored] = []
        status = await _ask(connection, f"$JS.API.DIRECT.GET.{stream}", question, found)
        if status in {"204", "404"}:
            return found
    raise Unavailable("nats", f"stream {stream} cannot be read ({status or 'no answer'})")


async def _ask(
    connection: Connection, subject: str, question: bytes, found: list[Stored]
) -> str | None:
    """Collect the messages of one answer; returns the status that ended it, None without one."""
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def receive(_subject: bytes, _reply: bytes, headers: bytes, payload: bytes) -> None:
        if _ADDED in headers:
            found.append(_stored(headers, payload))
        elif not ended.done():
            ended.set_result(status_of(headers))

    inbox = connection.new_inbox()
    subscription = connection.subscribe_direct(inbox, receive)
    try:
        async with asyncio.timeout(PAGE_SECONDS_MAX):
            if connection.send(subject, question, reply=inbox):
                return await ended
            await asyncio.sleep(UNCONNECTED_SECONDS)
            return None
    except TimeoutError:
        return None
    finally:
        connection.unsubscribe_now(subscription)


def _stored(block: bytes, payload: bytes) -> Stored:
    # A publisher may have used the server's names: the server's own come last.
    own, _, added = block.rpartition(_ADDED)
    said = decode_headers(b"\r\nNats-Stream: " + added)
    return Stored(
        sequence=int(said["nats-sequence"]),
        subject=said["nats-subject"],
        stored_at=microseconds(datetime.fromisoformat(said["nats-time-stamp"])),
        headers=decode_headers(own),
        payload=payload,
    )
