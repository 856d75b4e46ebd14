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
    """An update, the users that this step is for, and the last of them if there may be more."""

    work: Work
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
        steps = await asyncio.gather(*(self._step(work, _reading(work).after) for work in works))
        while steps:
            await self._publish([step.page for step in steps])
            again = await asyncio.gather(*(self._continue(step) for step in steps))
            # A stream without room takes no continuation: then all is done here.
            steps = [step for step in again if step is not None]

    async def _step(self, work: Work, after: str) -> Step:
        reading = _reading(work)
        if not isinstance(reading.audience, Followers):
            return Step(work, Page(reading, reading.audience), None)
        limit = _page_max(reading)
        removal = reading.facts.update_type == "content_removal"
        page = AudiencePage(reading.audience.actor, after, limit, removal)
        users = await resolve(self._resolver, page)
        return Step(work, Page(reading, users), users[-1] if len(users) == limit else None)

    async def _publish(self, pages: Sequence[Page]) -> None:
        known = await self._contexts.of(
            (user, page.reading.facts.feed) for page in pages for user in page.users or ()
        )
        await self._publisher.publish_batch(plan(pages, known, self._lane_of))

    async def _continue(self, step: Step) -> Step | None:
        """Have somebody go on after this step; returns the next one if that cannot be."""
        if step.more_after is None:
            return None
        message = step.work.message
        headers = readings.continuation_headers(_reading(step.work), step.more_after)
        try:
            await self._publisher.publish(message.subject, message.payload, headers)
        except StreamRefused as refused:
            logger.info("an audience is done in one go: %s", refused.detail)
            return await self._step(step.work, step.more_after)
        return None


def _page_max(reading: Reading) -> int:
    """Followers of one step: as many as their rows may be in memory."""
    return max(1, min(FOLLOWERS_PAGE_MAX, ROWS_MAX // len(reading.updates)))


def _reading(work: Work) -> Reading:
    assert isinstance(work.content, Reading)  # `read` made it
    return work.content
