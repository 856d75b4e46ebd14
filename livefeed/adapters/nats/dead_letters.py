"""The dead-letter queue: read it, publish a letter again, delete letters."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import msgspec
from nats.errors import Error as NatsError

from livefeed import subjects
from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.publish import PublishAck, Publisher
from livefeed.adapters.nats.stored import Stored, first_since, held_by, read_stream
from livefeed.dead_letter import DeadLetter, Outbound, read_letter
from livefeed.errors import DeadLetterReason, Unavailable
from livefeed.topology import DEAD_LETTERS

REQUEST_SECONDS_MAX: Final = 5.0
GONE_CODES: Final = frozenset({10037, 10043, 10057})
"""No message found, sequence not found, nothing stored so far."""
LOOK_BACK_MAX: Final = 100_000
"""Sequences that one look for the newest letters goes back."""


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    purged: int = 0
    error: _Error | None = None


_decoder = msgspec.json.Decoder(_Answer)


class DeadLetters:
    """The queue, over one connection. Every method raises Unavailable when NATS does not answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def last(self) -> int:
        """The sequence of the newest letter there ever was.

        Raises:
            Misconfigured: When there is no dead-letter queue.
        """
        return (await held_by(self._connection, DEAD_LETTERS)).last

    async def first_since(self, moment: int) -> int | None:
        """The first letter that was put aside at a moment or later."""
        return await first_since(self._connection, DEAD_LETTERS, moment)

    async def get(self, sequence: int) -> DeadLetter | None:
        """One letter; None when it is gone, or was never there."""
        found = read_stream(self._connection, DEAD_LETTERS, first=sequence, last=sequence)
        async for page in found:
            return _letter(page[0])
        return None

    async def pages(
        self, *, first: int = 1, last: int, reason: DeadLetterReason | None = None
    ) -> AsyncIterator[list[DeadLetter]]:
        """The letters of a range of sequences, oldest first, in pages of bounded size."""
        subject = None if reason is None else subjects.dead_letters(reason)
        found = read_stream(self._connection, DEAD_LETTERS, first=first, last=last, subject=subject)
        async for page in found:
            yield [_letter(message) for message in page]

    async def first_of_newest(
        self, limit: int, *, first: int, last: int, reason: DeadLetterReason | None
    ) -> int:
        """The sequence at which the newest `limit` letters of a range begin."""
        found: list[int] = []
        end, step = last, limit
        while end >= first and len(found) < limit:
            begin = max(first, end - step + 1)
            some = [
                letter.sequence
                async for page in self.pages(first=begin, last=end, reason=reason)
                for letter in page
            ]
            found = some[-(limit - len(found)) :] + found
            end, step = begin - 1, min(2 * step, LOOK_BACK_MAX)
        return found[0] if found else last + 1

    async def replay(self, publisher: Publisher, sequence: int, again: Outbound) -> PublishAck:
        """Publish what a letter becomes, and only when that is stored delete the letter.

        Raises:
            StreamRefused, OutcomeUnknown: It may be stored, and the letter is still there: replay
                it again.
        """
        ack = await publisher.publish(*again)
        await self.delete(sequence)
        return ack

    async def delete(self, sequence: int) -> bool:
        """Delete one letter for ever; False when it was gone."""
        answer = await self._ask("MSG.DELETE", {"seq": sequence})
        if answer.error is None:
            return True
        if answer.error.err_code in GONE_CODES:
            return False
        raise Unavailable("nats", f"letter {sequence} stays: {answer.error.description}")

    async def purge(self, *, before: int, reason: DeadLetterReason | None) -> int:
        """Delete every letter below a sequence, of one reason or of all; returns how many."""
        only = {} if reason is None else {"filter": subjects.dead_letters(reason)}
        answer = await self._ask("PURGE", {"seq": before, **only})
        if answer.error is not None:
            raise Unavailable("nats", f"the letters stay: {answer.error.description}")
        return answer.purged

    async def _ask(self, call: str, wanted: Mapping[str, Any]) -> _Answer:
        subject = f"$JS.API.STREAM.{call}.{DEAD_LETTERS}"
        question = json.dumps(wanted).encode()
        try:
            reply = await self._connection.request(subject, question, timeout=REQUEST_SECONDS_MAX)
        except (NatsError, TimeoutError) as error:
            raise Unavailable("nats", f"JetStream does not answer: {error}") from error
        return _decoder.decode(reply.data)


def _letter(message: Stored) -> DeadLetter:
    return read_letter(
        message.sequence, message.subject, message.stored_at, message.headers, message.payload
    )
