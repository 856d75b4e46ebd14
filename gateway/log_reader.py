"""Which server a read of the log asks: a replica that is close enough behind, else the primary."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from gateway.turn import Place
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.reads import Heads, Page, read_heads, read_pages
from livefeed.adapters.postgres.snapshot_reads import SnapshotPage, read_snapshot_page
from livefeed.breaker import Breaker, BreakerPolicy
from livefeed.errors import Unavailable
from livefeed.feed_view import PageQuery
from livefeed.limits import GATHERED_BYTES_MAX, PAGE_BYTES_MAX, REPLICA_SECONDS_MAX

logger = logging.getLogger(__name__)

Read = TypeVar("Read")

REPLICA_POLICY: Final = BreakerPolicy(open_seconds_min=0.5, open_seconds_max=10.0)
"""A replica that is away, or behind in all that is asked of it, three times in a row is left alone
for a while: each try costs a read, and of one that hangs `REPLICA_SECONDS_MAX`."""


class LogReader:
    """Reads the log: from a replica that is close enough behind, else from the primary."""

    def __init__(self, primary: Pool, replica: Pool | None) -> None:
        self._primary = primary
        self._replica = replica
        self._breaker = Breaker(REPLICA_POLICY)
        self._given_up: set[asyncio.Task[Any]] = set()
        """Reads of the replica that nobody waits for any more."""
        self.epoch: str | None = None
        """The log's, as last read."""
        self.failing = False
        """Whether the last read of the primary failed."""
        self.replica_pages = 0
        self.primary_pages = 0

    async def known_epoch(self) -> str:
        """The log's epoch, read if it never was; raises Unavailable.

        One that is out of date is found out by the first page, and answered by a reset.
        """
        return self.epoch or (await self.heads([])).epoch

    async def heads(self, channels: Sequence[str]) -> Heads:
        """The heads at the primary; raises Unavailable."""
        with self._noted():
            heads = await read_heads(self._primary, channels)
        self.epoch = heads.epoch
        return heads

    async def snapshot_page(self, user_id: str, feed: str, query: PageQuery) -> SnapshotPage:
        """Part of a feed as a user sees it; raises Unavailable.

        Its cursor is of the same moment as its items, so any server that has this log will do,
        however far behind it is.
        """
        epoch, replica = await self.known_epoch(), self._replica
        if replica is not None and self._breaker.allows(time.monotonic()):
            try:
                read = read_snapshot_page(replica, user_id, feed, query)
                page = await self._in_time(read)
            except Unavailable as error:
                logger.warning("a snapshot goes to the primary: %s", error)
            except BaseException:
                self._breaker.abandoned(time.monotonic())
                raise
            else:
                if page.epoch == epoch:
                    self._breaker.succeeded()
                    return page
            self._breaker.failed(time.monotonic(), jitter=random.random())
        with self._noted():
            page = await read_snapshot_page(self._primary, user_id, feed, query)
        self.epoch = page.epoch
        return page

    async def pages(
        self, places: Sequence[Place], shares: Sequence[int] | None = None
    ) -> list[Page]:
        """The next page of each place.

        Args:
            places: Channels and positions.
            shares: Most bytes of each page, if it is to be less than a page's most.

        Raises:
            Unavailable: The primary is away.
        """
        most = min(PAGE_BYTES_MAX, GATHERED_BYTES_MAX // len(places))
        bytes_max = [min(most, share) for share in shares or [most] * len(places)]
        fresh = await self._from_replica(places, bytes_max)
        self.replica_pages += len(fresh)
        stale = [number for number, place in enumerate(places) if place not in fresh]
        if stale:
            asked = [places[number] for number in stale]
            shares = [bytes_max[number] for number in stale]
            with self._noted():
                pages = await read_pages(self._primary, asked, bytes_max=shares)
            self.primary_pages += len(stale)
            self.epoch = pages[0].epoch
            fresh |= dict(zip(asked, pages, strict=True))
        return [fresh[place] for place in places]

    async def _from_replica(
        self, places: Sequence[Place], bytes_max: Sequence[int]
    ) -> dict[Place, Page]:
        """The pages that a replica has as the primary has them; it is asked while that helps."""
        replica = self._replica
        if replica is None or not self._breaker.allows(time.monotonic()):
            return {}
        try:
            heads = await self.heads([channel for channel, _ in places])
        except BaseException:
            # It says nothing about the replica.
            self._breaker.abandoned(time.monotonic())
            raise
        try:
            pages = await self._in_time(read_pages(replica, places, bytes_max=bytes_max))
        except Unavailable as error:
            logger.warning("catch-up goes to the primary: %s", error)
            pages = []
        except BaseException:
            self._breaker.abandoned(time.monotonic())
            raise
        fresh = {
            place: page
            for place, page in zip(places, pages, strict=False)
            if page.epoch == heads.epoch and page.head >= heads.heads[page.channel]
        }
        if fresh:
            self._breaker.succeeded()
        else:
            self._breaker.failed(time.monotonic(), jitter=random.random())
        return fresh

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except Unavailable:
            self.failing = True
            raise
        self.failing = False

    async def _in_time(self, read: Coroutine[Any, Any, Read]) -> Read:
        task = asyncio.create_task(read, name="replica-read")
        try:
            await asyncio.wait({task}, timeout=REPLICA_SECONDS_MAX)
        finally:
            if not task.done():
                # A server that hangs is not waited for while the read is taken back either.
                task.cancel()
                self._given_up.add(task)
                task.add_done_callback(self._forget)
        if not task.done():
            raise Unavailable("replica", f"no answer within {REPLICA_SECONDS_MAX:g} s")
        return task.result()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._given_up.discard(task)
        if not task.cancelled():
            task.exception()
