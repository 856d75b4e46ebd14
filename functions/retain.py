"""retain: what was handled leaves the streams, what is beyond its bounds leaves the database.

First the streams, for a full one refuses publishes; then what gateways left, and follows and pages
that ended; then floors; then, now and then, bodies. Every step is short and followed by a pause, so
that what it costs is spread. One at a time in the fleet.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Final

from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.purge import (
    Handled,
    fill,
    first_unhandled,
    first_younger,
    handled,
    purge_before,
    purge_behind,
)
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.retention import Bounds, Retention, only_one
from livefeed.limits import BODY_COLLECT_SECONDS, RETAIN_BUDGET_SECONDS, STREAM_KEPT_SHARE_MAX
from livefeed.topology import DEAD_LETTERS, LANE_STREAM, UPDATES

PAUSE_SHARE: Final = 1.0
"""A pause is as long as the step before it: `retain` takes at most half of one connection."""
PAUSE_SECONDS_MAX: Final = 0.5


@dataclass(slots=True)
class Summary:
    """What a run did; printed as its one line."""

    function: str = "retain"
    reason: str = "done"
    purged: int = 0
    dead_letters_full: float = 0.0
    """Share of its bytes that FEED_DLQ has; a full one deletes its oldest."""
    gateways_deleted: int = 0
    presence_deleted: int = 0
    follows_deleted: int = 0
    seen_deleted: int = 0
    revocations_deleted: int = 0
    pages_deleted: int = 0
    """Of the feed source, that had ended."""
    pages_dropped: int = 0
    """Before their end, because there were too many."""
    channels: int = 0
    floors_raised: int = 0
    entries_deleted: int = 0
    bodies_deleted: int = 0
    collected: bool = False
    """Whether the walk over the bodies came to its end."""
    seconds: float = 0.0

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is to do."""

    first: float
    """Where the walk over the channels begins, 0..1; it goes once around."""
    collects: bool
    thorough: bool
    """Whether the streams give up what was handled behind what was not, full or not."""
    trim_seconds_max: float


def plan(*, once: bool, every_seconds: float, place: float, chance: float) -> Plan:
    """Everything to its end when a person asks; else a bounded share, and bodies now and then.

    Args:
        once: Whether a person asks for all of it.
        every_seconds: How often the pool starts a run.
        place: 0..1, random.
        chance: 0..1, random: runs do not know of each other, so the hour between two collections is
            a mean.
    """
    if once:
        return Plan(first=0.0, collects=True, thorough=True, trim_seconds_max=float("inf"))
    return Plan(
        first=place,
        collects=chance * BODY_COLLECT_SECONDS < every_seconds,
        thorough=False,
        trim_seconds_max=RETAIN_BUDGET_SECONDS,
    )


class Retain:
    """One run.

    Args:
        connection: NATS.
        pool: The primary.
        bounds: What stays.
        keep_seconds: How long FEED_UPDATES keeps what was handled.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        connection: Connection,
        pool: Pool,
        bounds: Bounds,
        *,
        keep_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.summary = Summary()
        self._connection = connection
        self._pool = pool
        self._bounds = bounds
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """Return from `run` after the step that runs now."""
        self._leaving.set()

    async def run(self, wanted: Plan) -> Summary:
        """Do what the plan says, unless another process does it now.

        Raises:
            Unavailable: NATS or the primary is away; what was done stays done.
        """
        began_at = self._clock()
        # Two at once do no harm here; and a stream must not fill because the database is away.
        await self._purge(thorough=wanted.thorough)
        async with only_one(self._pool, self._bounds) as retention:
            if retention is None:
                self.summary.reason = "another retain runs"
            else:
                await self._expire(retention)
                await self._trim(retention, wanted)
                if wanted.collects:
                    await self._collect(retention)
        if self._leaving.is_set():
            self.summary.reason = "signal"
        self.summary.seconds = round(self._clock() - began_at, 3)
        return self.summary

    async def _purge(self, *, thorough: bool) -> None:
        # The lanes first: what is handled there makes room for prioritize.
        for stream, keep_seconds in ((LANE_STREAM, 0.0), (UPDATES, self._keep_seconds)):
            kept_from = await self._kept_from(stream, keep_seconds)
            done = await handled(self._connection, stream)
            stays = await first_unhandled(self._connection, stream, done)
            stays = stays if kept_from is None else min(stays, kept_from)
            self.summary.purged += await purge_before(self._connection, stream, stays)
            # The stream stands while what lies behind is picked out: only when it needs the room.
            if thorough or await fill(self._connection, stream) > STREAM_KEPT_SHARE_MAX:
                await self._purge_behind(done, kept_from)
        self.summary.dead_letters_full = round(await fill(self._connection, DEAD_LETTERS), 3)

    async def _purge_behind(self, done: list[Handled], kept_from: int | None) -> None:
        for one in done:
            if self._leaving.is_set():
                return
            began_at = self._clock()
            self.summary.purged += await purge_behind(self._connection, one, kept_from)
            await self._pause(began_at)

    async def _kept_from(self, stream: str, keep_seconds: float) -> int | None:
        if keep_seconds == 0 or await fill(self._connection, stream) > STREAM_KEPT_SHARE_MAX:
            return None
        return await first_younger(self._connection, stream, keep_seconds)

    async def _expire(self, retention: Retention) -> None:
        """What silent gateways reported, and follows, markers and revocations that are over."""
        summary = self.summary
        summary.gateways_deleted += await retention.forget_gateways()
        summary.presence_deleted += await self._until_short(retention.forget_presence)
        summary.follows_deleted += await self._until_short(retention.forget_follows)
        summary.seen_deleted += await self._until_short(retention.forget_seen)
        summary.revocations_deleted += await self._until_short(retention.forget_revocations)
        most = self._bounds.pages_at_once
        summary.pages_deleted += await self._until_short(retention.forget_pages, most)
        async for gone in self._paced(retention.drop_pages()):
            summary.pages_dropped += gone

    async def _until_short(
        self, step: Callable[[], Awaitable[int]], most: int | None = None
    ) -> int:
        """Repeat a step until it does less than it may; returns the sum."""
        total, most = 0, most or self._bounds.rows_max
        while not self._leaving.is_set():
            began_at = self._clock()
            done = await step()
            total += done
            if done < most:
                break
            await self._pause(began_at)
        return total

    async def _trim(self, retention: Retention, wanted: Plan) -> None:
        """Once around all channels, from where the plan says."""
        deadline = self._clock() + wanted.trim_seconds_max
        first = await retention.first_channel(wanted.first)
        after, around = first, first == 0
        while not self._leaving.is_set():
            began_at = self._clock()
            if began_at >= deadline:
                self.summary.reason = "out of time"
                return
            done = await retention.trim(after)
            self.summary.channels += done.channels
            self.summary.floors_raised += done.raised
            self.summary.entries_deleted += done.entries
            if done.last_id is None or (around and first and done.last_id >= first):
                if around:
                    return
                after, around = 0, True
            else:
                after = done.last_id
            await self._pause(began_at)

    async def _collect(self, retention: Retention) -> None:
        async for gone in self._paced(retention.collect()):
            self.summary.bodies_deleted += gone
        self.summary.collected = not self._leaving.is_set()

    async def _paced(self, given: AsyncGenerator[int]) -> AsyncGenerator[int]:
        """Steps with a pause after each, until there are no more or the run is to leave."""
        began_at = self._clock()
        # Closed before the session is given back, for what they use is in the session.
        async with aclosing(given) as steps:
            async for gone in steps:
                yield gone
                if self._leaving.is_set():
                    return
                await self._pause(began_at)
                began_at = self._clock()

    async def _pause(self, began_at: float) -> None:
        seconds = min(PAUSE_SHARE * (self._clock() - began_at), PAUSE_SECONDS_MAX)
        try:
            async with asyncio.timeout(seconds):
                await self._leaving.wait()
        except TimeoutError:
            return
