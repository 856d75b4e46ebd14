"""Which server a read of the log asks: a replica that is close enough behind, else the primary."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from gateway.replicas import Replica, Replicas
from gateway.turn import Place
from gateway.warn import warn
from livefeed.adapters.patience import patient_timeout
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.reads import Heads, Page, read_heads, read_pages
from livefeed.adapters.postgres.snapshot_reads import SnapshotPage, read_snapshot_page
from livefeed.breaker import PAGES_POLICY, Attempt, Breaker, Call
from livefeed.errors import Unavailable
from livefeed.feed_view import PageQuery
from livefeed.limits import (
    GATHERED_BYTES_MAX,
    HEAD_CHECK_SECONDS,
    PAGE_BYTES_MAX,
    REPLICA_SECONDS_MAX,
    REPLICAS_ASKED_MAX,
    SNAPSHOT_SECONDS_MAX,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")
Moment = TypeVar("Moment", Heads, SnapshotPage)


class LogReader:
    """Reads the log: from a replica that is close enough behind, else from the primary."""

    def __init__(self, primary: Pool, replicas: Replicas) -> None:
        self._primary = primary
        self._primary_reads = Breaker(PAGES_POLICY)
        """Of the reads that may go anywhere; those that need the primary try it each time."""
        self._replicas = replicas
        self.epoch: str | None = None
        """The log's, as last read."""
        self._learning: asyncio.Task[str | None] | None = None
        """The first read of it, for all who ask: what was wrong, or None."""
        self.failing = False
        """Whether the last read of the primary failed."""
        self.replica_pages = 0
        self.primary_pages = 0

    async def run(self) -> None:
        """Look how the replicas are, and which log this is, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._replicas.run(), name="replicas")
            tasks.create_task(self._watch_epoch(), name="epoch")

    def described(self) -> list[dict[str, Any]]:
        """For people: how the replicas are."""
        return self._replicas.described()

    async def known_epoch(self) -> str:
        """The log's epoch, read if it never was, once for all who ask; raises Unavailable.

        One that is out of date is found out by the first page, and answered by a reset.
        """
        if self.epoch is None:
            learning = self._learning or asyncio.create_task(self._learn(), name="epoch")
            self._learning = learning
            # Not with the task: whoever waits may go away, the others still want it.
            await asyncio.wait({learning})
            if self.epoch is None:
                raise Unavailable("log", f"its epoch could not be read: {learning.result()}")
        return self.epoch

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

        async def read(pool: Pool) -> SnapshotPage:
            return await read_snapshot_page(pool, user_id, feed, query)

        _, page = await self._of_this_log(read)
        return page

    async def heads_anywhere(self, channels: Sequence[str]) -> tuple[Pool, Heads]:
        """Heads at the first server that answers, and that server's pool; raises Unavailable.

        What is read from the same server afterwards is not older than these heads.
        """

        async def read(pool: Pool) -> Heads:
            return await read_heads(pool, channels)

        return await self._of_this_log(read)

    async def _of_this_log(self, read: Callable[[Pool], Awaitable[Moment]]) -> tuple[Pool, Moment]:
        """What a read gives at a server that has the log's epoch, however far behind it is."""
        epoch = await self.known_epoch()

        async def checked(pool: Pool) -> tuple[Pool, Moment]:
            found = await read(pool)
            if found.epoch != epoch and pool is not self._primary:
                raise Unavailable(pool.dependency, "it has another log")
            return pool, found

        pool, found = await self.read_anywhere(checked, deadline_seconds=SNAPSHOT_SECONDS_MAX)
        self.epoch = found.epoch
        return pool, found

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
        fresh = await self._from_replicas(places, bytes_max)
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

    async def read_anywhere(
        self, read: Callable[[Pool], Awaitable[T]], *, deadline_seconds: float
    ) -> T:
        """What a read that needs no target gives at the first server that answers it.

        Asked are replicas that are close behind, then the primary, then replicas that are far
        behind: their log is old, and better than none. Each has half of the time that is left.

        Args:
            read: Reads from one server; what it raises beside Unavailable is raised.
            deadline_seconds: How long all of them may take together.

        Raises:
            Unavailable: None has answered.
        """
        near, far = self._replicas.to_ask()
        servers = [
            *(_Server(one.pool, one.reads) for one in near[:REPLICAS_ASKED_MAX]),
            _Server(self._primary, self._primary_reads),
            *(_Server(one.pool, one.reads) for one in far[:REPLICAS_ASKED_MAX]),
        ]
        deadline = time.monotonic() + deadline_seconds
        failed = Unavailable("log", "each server that has it failed a moment ago")
        for number, server in enumerate(servers):
            share = _share(deadline, is_last=number == len(servers) - 1)
            allowed = server.breaker.begin(time.monotonic()) if share > 0.0 else None
            if allowed is None:
                continue
            try:
                return await _in_time(server.pool, allowed, read, share)
            except Unavailable as error:
                logger.warning("a read goes to another server: %s", error)
                failed = error
        raise failed

    async def _watch_epoch(self) -> None:
        """Where all that is asked for is cached, nothing else would notice another log."""
        while True:
            await asyncio.sleep(HEAD_CHECK_SECONDS * (0.9 + random.random() / 5))
            try:
                self.epoch = (await read_heads(self._primary, [])).epoch
            except Unavailable as error:
                # A read that needs it says so.
                logger.debug("the epoch is not known: %s", error)
            except Exception as error:  # noqa: BLE001  # whatever it is, the next look may pass
                warn(logger, "the epoch is not known", error)

    async def _learn(self) -> str | None:
        try:
            await self.heads([])
        except Unavailable as error:
            return str(error)
        finally:
            self._learning = None
        return None

    async def _from_replicas(
        self, places: Sequence[Place], bytes_max: Sequence[int]
    ) -> dict[Place, Page]:
        """The pages that a replica has as the primary has them.

        A second one is asked for what the first one lacks; both within `REPLICA_SECONDS_MAX`.
        """
        near, far = self._replicas.to_ask()
        asked = near[:REPLICAS_ASKED_MAX] or far[:1]
        if not asked:
            return {}
        heads = await self.heads([channel for channel, _ in places])
        shares = dict(zip(places, bytes_max, strict=True))
        fresh: dict[Place, Page] = {}
        deadline = time.monotonic() + REPLICA_SECONDS_MAX
        for number, replica in enumerate(asked):
            seconds = _share(deadline, is_last=number == len(asked) - 1)
            if not shares or seconds <= 0.0:
                break
            fresh |= await self._fresh(replica, shares, heads, seconds)
            shares = {place: most for place, most in shares.items() if place not in fresh}
        return fresh

    async def _fresh(
        self, replica: Replica, shares: Mapping[Place, int], heads: Heads, seconds: float
    ) -> dict[Place, Page]:
        """The pages that one replica has; none when it fails."""
        # Only here: in half open whoever asks is the probe, and has to read.
        allowed = replica.reads.begin(time.monotonic())
        if allowed is None:
            return {}

        async def read(pool: Pool) -> list[Page]:
            return await read_pages(pool, list(shares), bytes_max=list(shares.values()))

        try:
            pages = await _in_time(replica.pool, allowed, read, seconds)
        except Unavailable as error:
            logger.warning("catch-up goes elsewhere: %s", error)
            return {}
        fresh = {
            place: page
            for place, page in zip(shares, pages, strict=True)
            if page.epoch == heads.epoch and page.head >= heads.heads[page.channel]
        }
        replica.stale_reads = 0 if fresh else replica.stale_reads + 1
        return fresh

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except Unavailable:
            self.failing = True
            raise
        self.failing = False


class _Server(NamedTuple):
    """A server to read from."""

    pool: Pool
    breaker: Breaker


def _share(deadline: float, *, is_last: bool) -> float:
    """How long one server may take, in seconds.

    Half of what is left, and the last one all: nearly always the first one answers, and a breaker
    that was opened because many others might have been asked too would be wrong.
    """
    left = deadline - time.monotonic()
    return left if is_last else left / 2


async def _in_time(
    pool: Pool, allowed: Call, read: Callable[[Pool], Awaitable[T]], seconds: float
) -> T:
    """A read that its server's breaker has let through, within a time; raises Unavailable."""
    try:
        with Attempt(allowed, time.monotonic, random.random, failures=(Unavailable, TimeoutError)):
            async with patient_timeout(seconds):
                return await read(pool)
    except TimeoutError as error:
        raise Unavailable(pool.dependency, f"no answer within {seconds:.3g} s") from error
