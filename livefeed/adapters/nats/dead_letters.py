"""The dead-letter queue: read it, publish a letter again, delete letters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from livefeed import subjects
from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.jetstream_api import Answer, ask, call
from livefeed.adapters.nats.publish import PublishAck, Publisher
from livefeed.adapters.nats.stored import Stored, first_since, held_by, read_stream
from livefeed.dead_letter import DeadLetter, Outbound, read_letter
from livefeed.errors import DeadLetterReason, Unavailable
from livefeed.topology import DEAD_LETTERS

GONE_CODES: Final = frozenset({10037, 10043, 10057})
"""No message found, sequence not found, nothing stored so far."""
LOOK_BACK_MAX: Final = 100_000
"""Sequences that one look for the newest letters goes back."""


class _Purged(Answer):
    purged: int = 0


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
        name = f"STREAM.MSG.DELETE.{DEAD_LETTERS}"
        answer = await call(self._connection, name, {"seq": sequence}, Answer)
        if answer.error is None:
            return True
        if answer.error.err_code in GONE_CODES:
            return False
        raise Unavailable("nats", f"letter {sequence} stays: {answer.error.description}")

    async def purge(self, *, before: int, reason: DeadLetterReason | None) -> int:
        """Delete every letter below a sequence, of one reason or of all; returns how many."""
        only = {} if reason is None else {"filter": subjects.dead_letters(reason)}
        name = f"STREAM.PURGE.{DEAD_LETTERS}"
        return (await ask(self._connection, name, {"seq": before, **only}, _Purged)).purged


def _letter(message: Stored) -> DeadLetter:
    return read_letter(
        message.sequence, message.subject, message.stored_at, message.headers, message.payload
    )
