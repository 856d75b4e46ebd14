"""prioritize: from a publisher's update to lane messages.

`reading` checks, `audience` asks who and how they are, `lane_plan` decides; this puts them together
and publishes. Of an actor's followers it takes one page, and publishes the update again for the
rest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from functions import reading as readings
from functions.audience import AudiencePage, AudienceResolver, ContextCache, resolve
from functions.function import Work
from functions.lane_plan import Page, plan
from functions.reading import Reading
from livefeed.adapters.nats.publish import Publisher, StreamRefused
from livefeed.adapters.nats.pull import Message
from livefeed.limits import FOLLOWERS_PAGE_MAX, MIB
from livefeed.priority import LaneFunction
from livefeed.subjects import LANES, Lane
from livefeed.topology import Consumer, prioritize_consumer
from livefeed.update import Followers

logger = logging.getLogger(__name__)

ROWS_MAX: Final = 20_000
"""Recipients × items that are in memory at once."""
BYTES_MAX: Final = 2 * MIB
"""Payloads that are in memory at once; an update may be in a message of each partition."""


class Step(NamedTuple):
    """Some followers of an update's audience, and the last of them if there may be more."""

    work: Work
    audience: Followers
    page: Page
    more_after: str | None


class Prioritize:
    """The function; see `function.Function`.

    Args:
        publisher: For lane messages and continuations.
        contexts: What is known about recipients.
        resolver: Who an actor's followers are.
        lane_of: The lane table.
    """

    name = "prioritize"
    windows: Final[Mapping[Lane, float]] = {"high": 0.0, "medium": 0.0, "low": 0.0}
    rows_max = ROWS_MAX
    bytes_max = BYTES_MAX

    def __init__(
        self,
        publisher: Publisher,
        *,
        contexts: ContextCache,
        resolver: AudienceResolver,
        lane_of: LaneFunction,
    ) -> None:
        self._publisher = publisher
        self._contexts = contexts
        self._resolver = resolver
        self._lane_of = lane_of

    def sources(self, _partitions: frozenset[int]) -> Sequence[tuple[Lane, Consumer]]:
        """The three consumers; updates are not partitioned yet."""
        return [(priority, prioritize_consumer(priority)) for priority in LANES]

    def read(self, message: Message) -> Work:
        """Check an update; raises UpdateRefused."""
        reading = readings.read(message)
        users = 1
        if isinstance(reading.audience, Followers):
            users = _page_max(reading)
        elif reading.audience is not None:
            users = len(reading.audience)
        return Work(message, reading, users * len(reading.updates), reading.accepted_at)

    async def handle(self, works: Sequence[Work]) -> None:
        """Publish the lane messages of all, and the continuations of those with more followers."""
        pages: list[Page] = []
        followed: list[tuple[Work, Followers]] = []
        for work in works:
            audience = _reading(work).audience
            if isinstance(audience, Followers):
                followed.append((work, audience))
            else:
                pages.append(Page(_reading(work), audience))
        steps = await asyncio.gather(
            *(self._step(work, audience, _reading(work).after) for work, audience in followed)
        )
        await self._publish([*pages, *(step.page for step in steps)])
        while steps := await self._continue(steps):
            await self._publish([step.page for step in steps])

    async def _step(self, work: Work, audience: Followers, after: str) -> Step:
        """Read the next followers."""
        reading = _reading(work)
        limit = _page_max(reading)
        removal = reading.facts.update_type == "content_removal"
        users = await resolve(self._resolver, AudiencePage(audience.actor, after, limit, removal))
        more_after = users[-1] if len(users) == limit else None
        page = Page(reading, users, is_part=bool(after) or more_after is not None)
        return Step(work, audience, page, more_after)

    async def _publish(self, pages: Sequence[Page]) -> None:
        known = await self._contexts.of(
            (user, page.reading.facts.feed) for page in pages for user in page.users or ()
        )
        await self._publisher.publish_batch(plan(pages, known, self._lane_of))

    async def _continue(self, steps: Sequence[Step]) -> list[Step]:
        """Have somebody go on after these steps; returns the next ones of those nobody can."""
        again = []
        for step in steps:
            if step.more_after is None:
                continue
            message = step.work.message
            headers = readings.continuation_headers(_reading(step.work), step.more_after)
            try:
                await self._publisher.publish(message.subject, message.payload, headers)
            except StreamRefused as refused:
                # A stream without room: it gets some when this very message is done.
                logger.info("an audience is done in one go: %s", refused.detail)
                again.append(await self._step(step.work, step.audience, step.more_after))
        return again


def _page_max(reading: Reading) -> int:
    """Followers of one step: as many as their rows may be in memory."""
    return max(1, min(FOLLOWERS_PAGE_MAX, ROWS_MAX // len(reading.updates)))


def _reading(work: Work) -> Reading:
    assert isinstance(work.content, Reading)  # `read` made it
    return work.content
