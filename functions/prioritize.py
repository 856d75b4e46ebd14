"""prioritize: from a publisher's update to lane messages, and of what is urgent to the log at once.

`reading` checks, `audience` asks who and how they are, `lane_plan` decides, `shortcut` flushes what
is urgent; this puts them together and publishes the rest. Of an actor's followers it takes one
page, and publishes the update again for the rest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from functions import reading as readings
from functions.audience import AudiencePage, AudienceResolver, ContextCache, resolve
from functions.function import Undone, Work
from functions.lane_plan import Page, guarded, plan
from functions.reading import Reading
from functions.shortcut import Shortcut
from livefeed.adapters.nats.publish import Publisher, StreamRefused
from livefeed.adapters.nats.pull import Message
from livefeed.context import followers_page_max
from livefeed.errors import DeadLetterReason, Unavailable, UpdateRefused
from livefeed.limits import (
    FOLLOWERS_ROWS_MAX,
    MIB,
    RESOLVE_DELIVERIES_MAX,
    RESOLVED_AT_ONCE,
)
from livefeed.priority import LaneFunction
from livefeed.subjects import LANES, Lane
from livefeed.topology import Consumer, prioritize_consumer
from livefeed.update import Followers

logger = logging.getLogger(__name__)

ROWS_MAX: Final = FOLLOWERS_ROWS_MAX
"""Recipients × items that are published together."""
BYTES_MAX: Final = 2 * MIB
"""Payloads that are in memory at once; an update may be in a message of each partition."""
FOLLOWERS_GUESS: Final = 100
"""What an audience is taken for before it is read; the call ends early where it was more."""
PAGES_IN_PLACE_MAX: Final = 100
"""Pages of an audience that one call does when the stream has no room for its continuation."""
DATABASE: Final = "primary"


class Step(NamedTuple):
    """Some followers of an update's audience, and the last of them if there are more."""

    work: Work
    page: Page
    more_after: str | None

    @property
    def rows(self) -> int:
        """Rows that it makes in the log."""
        return len(self.page.users or ()) * len(self.page.reading.updates)


class Prioritize:
    """The function; see `function.Function`.

    Args:
        publisher: For lane messages and continuations.
        contexts: What is known about recipients.
        resolver: Who an actor's followers are.
        lane_of: The lane table.
        shortcut: For what is urgent.
        windows: Seconds that each lane gathers, from acceptance.
    """

    name = "prioritize"
    failure: Final[DeadLetterReason] = "invalid_update"
    rows_max = ROWS_MAX
    bytes_max = BYTES_MAX

    def __init__(
        self,
        publisher: Publisher,
        *,
        contexts: ContextCache,
        resolver: AudienceResolver,
        lane_of: LaneFunction,
        shortcut: Shortcut,
        windows: Mapping[Lane, float],
    ) -> None:
        self.windows = windows
        self._publisher = publisher
        self._contexts = contexts
        self._resolver = resolver
        self._lane_of = guarded(lane_of)
        self._shortcut = shortcut

    def sources(self, _partitions: frozenset[int]) -> Sequence[tuple[Lane, Consumer]]:
        """The three consumers; updates are not partitioned yet."""
        return [(priority, prioritize_consumer(priority)) for priority in LANES]

    def read(self, message: Message) -> Work:
        """Check an update; raises UpdateRefused."""
        reading = readings.read(message)
        users = 1
        if isinstance(reading.audience, Followers):
            users = FOLLOWERS_GUESS
        elif reading.audience is not None:
            users = len(reading.audience)
        # What goes to the high lane is not to wait here, whatever the priority of its subject.
        facts = reading.facts
        urgent = facts.priority == "high" or facts.update_type == "content_removal"
        return Work(
            message,
            reading,
            users * len(reading.updates),
            reading.accepted_at,
            queue="urgent" if urgent else "",
            gathers=not urgent,
        )

    async def handle(self, works: Sequence[Work]) -> Sequence[Undone]:
        """Publish the lane messages of all, and the continuations of those with more followers."""
        pages: list[Page] = []
        followed: list[Work] = []
        for work in works:
            reading = _reading(work)
            if isinstance(reading.audience, Followers):
                followed.append(work)
            else:
                pages.append(Page(reading, reading.audience))
        steps, undone = await self._steps(followed)
        await self._publish([*pages, *(step.page for step in steps)])
        for step in steps:
            undone += await self._continue(step)
        return undone

    async def _steps(self, works: Sequence[Work]) -> tuple[list[Step], list[Undone]]:
        """The first pages of audiences, some at a time, until they are enough for one call."""
        steps: list[Step] = []
        undone: list[Undone] = []
        for start in range(0, len(works), RESOLVED_AT_ONCE):
            some = works[start : start + RESOLVED_AT_ONCE]
            if sum(step.rows for step in steps) >= ROWS_MAX:
                undone += [Undone(work, None) for work in some]
                continue
            found = await asyncio.gather(*(self._step(work, _reading(work).after) for work in some))
            steps += [one for one in found if isinstance(one, Step)]
            undone += [one for one in found if isinstance(one, Undone)]
        return steps, undone

    async def _step(self, work: Work, after: str) -> Step | Undone:
        """Read the next followers; where that fails, it is this update that waits, no other.

        Raises:
            Unavailable: The database is away: then all have to wait.
        """
        reading = _reading(work)
        assert isinstance(reading.audience, Followers)  # whoever calls this has looked
        limit = followers_page_max(len(reading.updates))
        # One more than the page holds: so it is known whether there are more.
        page = AudiencePage(
            actor=reading.audience.actor,
            after=after,
            limit=limit + 1,
            removal=reading.facts.update_type == "content_removal",
            accepted_at=reading.accepted_at,
        )
        try:
            users = await resolve(self._resolver, page)
        except UpdateRefused as refused:
            return Undone(work, refused)
        except Unavailable as error:
            if error.dependency == DATABASE:
                raise
            return Undone(work, _given_up(work, error) or error)
        more = len(users) > limit
        users = users[:limit]
        part = Page(reading, users, is_part=more or bool(after))
        return Step(work, part, users[-1] if more else None)

    async def _publish(self, pages: Sequence[Page]) -> None:
        known = await self._contexts.of(
            (user, page.reading.facts.feed) for page in pages for user in page.users or ()
        )
        rest = await self._shortcut.take(plan(pages, known, self._lane_of))
        await self._publisher.publish_all(message.outbound() for message in rest)

    async def _continue(self, step: Step) -> list[Undone]:
        """Have somebody go on after this step; where the stream has no room, go on here."""
        message, more_after = step.work.message, step.more_after
        for _ in range(PAGES_IN_PLACE_MAX):
            if more_after is None:
                return []
            headers = readings.continuation_headers(message, _reading(step.work), more_after)
            try:
                await self._publisher.publish(message.subject, message.payload, headers, attempts=1)
            except StreamRefused as refused:
                logger.info("an audience goes on in place: %s", refused.detail)
            else:
                return []
            following = await self._step(step.work, more_after)
            if isinstance(following, Undone):
                return [following]
            await self._publish([following.page])
            more_after = following.more_after
        if more_after is None:
            return []
        # Whatever it held back can be purged when it is given back, and there is room then.
        return [Undone(step.work, Unavailable("nats", "no room for the rest of an audience"))]


def _given_up(work: Work, error: Unavailable) -> UpdateRefused | None:
    if work.message.deliveries < RESOLVE_DELIVERIES_MAX:
        return None
    return UpdateRefused("unsupported_audience", f"after {RESOLVE_DELIVERIES_MAX} tries: {error}")


def _reading(work: Work) -> Reading:
    assert isinstance(work.content, Reading)  # `read` made it
    return work.content
