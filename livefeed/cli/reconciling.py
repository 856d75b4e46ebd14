"""Reconciling: read the stream page by page, ask the log about each page, count, publish again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from functions.audience import AudiencePage, AudienceResolver, resolve
from livefeed import headers, subjects
from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.dead_letters import DeadLetters
from livefeed.adapters.nats.publish import Publisher
from livefeed.adapters.nats.stored import Stored, read_stream
from livefeed.adapters.postgres.places import read_expected_followers, read_places
from livefeed.adapters.postgres.pool import Pool
from livefeed.context import followers_page_max
from livefeed.errors import UpdateRefused
from livefeed.limits import RECONCILED_PLACES_MAX
from livefeed.reconcile import (
    Followers,
    Handled,
    LetterIndex,
    Place,
    Published,
    State,
    read_published,
    state_of,
)
from livefeed.topology import UPDATES

PUBLISHING_MAX: Final = 64
"""Updates whose acknowledgements are waited for at once."""


class Missing(NamedTuple):
    """A place where an update should be and is not."""

    published: Published
    place: Place


class Reconciler:
    """One run.

    Args:
        connection: NATS.
        pool: The primary.
        handled: How far the functions were when the run began.
        letters: The dead letters, read after that.
        resolver: Who an actor's followers are, if not those of the table.
        show: Told of each missing place.
        progress: Told how many sequences were gone through.
    """

    def __init__(
        self,
        connection: Connection,
        pool: Pool,
        handled: Handled,
        letters: LetterIndex,
        *,
        resolver: AudienceResolver | None,
        show: Callable[[Missing], None],
        progress: Callable[[int], None],
    ) -> None:
        self._connection = connection
        self._pool = pool
        self._handled = handled
        self._letters = letters
        self._resolver = resolver
        self._show = show
        self._progress = progress
        self.updates = 0
        self.republished = 0
        self.counts: Counter[State] = Counter()
        """Places by state; a message that is dead, or was refused, counts as one."""

    async def run(
        self, *, first: int, last: int, publisher: Publisher | None = None, run_id: str = ""
    ) -> None:
        """Compare a range of the stream with the log, and publish again what is missing.

        Args:
            first: The first sequence of the range.
            last: The last one: what is published meanwhile is not looked at.
            publisher: Publishes again what is missing; None publishes nothing.
            run_id: Makes what this run publishes different from what an earlier one did.
        """
        before = first - 1
        async for page in read_stream(self._connection, UPDATES, first=first, last=last):
            missing = await self._compare(page)
            if publisher is not None:
                again = [message for message in page if message.sequence in missing]
                await self._republish(again, publisher, run_id)
            self._progress(page[-1].sequence - before)
            before = page[-1].sequence

    async def _compare(self, page: Iterable[Stored]) -> set[int]:
        """Count the states of a page; returns the sequences of which something is missing."""
        missing: set[int] = set()
        gathered: list[Missing] = []
        for message in page:
            self.updates += 1
            published = self._read(message)
            if published is None:
                continue
            for place in published.places(await self._channels(published)):
                gathered.append(Missing(published, place))
                if len(gathered) == RECONCILED_PLACES_MAX:
                    missing |= await self._judge(gathered)
                    gathered = []
        if gathered:
            missing |= await self._judge(gathered)
        return missing

    def _read(self, message: Stored) -> Published | None:
        """The update of a message; None for one that is no matter of the log, which is counted."""
        if self._letters.has_message(message.sequence):
            self.counts["dead_letter"] += 1
            return None
        try:
            return read_published(
                message.sequence,
                message.subject,
                message.stored_at,
                message.headers.get,
                message.payload,
            )
        except UpdateRefused:
            done = self._handled.is_prioritized(message.sequence, message.subject)
            self.counts["refused" if done else "pending"] += 1
            return None

    async def _channels(self, published: Published) -> list[str]:
        audience = published.audience
        if not isinstance(audience, Followers):
            return audience
        limit = followers_page_max(len(published.items))
        if self._resolver is not None:
            actor, after, removal = audience.actor, audience.after, audience.ended
            accepted_at = published.accepted_at
            page = AudiencePage(actor, after, limit, removal, accepted_at)
            users = await resolve(self._resolver, page)
        else:
            users = await read_expected_followers(
                self._pool, audience, accepted_at=published.accepted_at, limit=limit
            )
        return [published.channel_of(user) for user in users]

    async def _judge(self, gathered: list[Missing]) -> set[int]:
        missing: set[int] = set()
        found = await read_places(self._pool, [one.place for one in gathered])
        for one, there in zip(gathered, found, strict=True):
            state = state_of(one.published, one.place, there, self._handled, self._letters)
            self.counts[state] += 1
            if state == "missing":
                missing.add(one.published.sequence)
                self._show(one)
        return missing

    async def _republish(self, messages: list[Stored], publisher: Publisher, run_id: str) -> None:
        for start in range(0, len(messages), PUBLISHING_MAX):
            some = messages[start : start + PUBLISHING_MAX]
            await asyncio.gather(*(publisher.publish(*_again(one, run_id)) for one in some))
            self.republished += len(some)


async def index_letters(connection: Connection, *, since: int) -> LetterIndex:
    """The dead letters that were put aside since a moment.

    Raises:
        Unavailable: When JetStream does not answer.
        Refused: When there are too many.
    """
    index, letters = LetterIndex(), DeadLetters(connection)
    last = await letters.last()
    first = await letters.first_since(since)
    if first is not None:
        async for page in letters.pages(first=first, last=last):
            for letter in page:
                index.add(letter)
    return index


def _again(message: Stored, run_id: str) -> tuple[str, bytes, dict[str, str]]:
    subject = message.subject
    if not subjects.is_literal(subject):
        subject = subjects.updates(subjects.priority_of(subject), "reconcile")
    told = headers.kept(message.headers.get, stored_at=message.stored_at)
    identity = f"reconcile:{message.sequence}:{run_id}"
    return subject, message.payload, {headers.MESSAGE_ID: identity, **told}
