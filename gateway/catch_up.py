"""Catch-up: the one recovery path. Gathers what connections miss into few reads of the log.

First connect, reconnect, gap, slow reader, lost push: each is "send what is newer than my
position".
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from gateway.connection import Connection
from gateway.hub import Hub
from gateway.update_frames import PageFrames, page_frame
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.reads import Heads, Page, read_heads, read_pages
from livefeed.adapters.postgres.seen import furthest_seen
from livefeed.errors import LivefeedError, Unavailable
from livefeed.limits import (
    GATHERED_BYTES_MAX,
    GATHERED_CHANNELS_MAX,
    HEAD_CHECK_FIRST_SECONDS,
    HEAD_CHECK_SECONDS,
    PAGE_BYTES_MAX,
)
from livefeed.position import Position
from livefeed.protocol import CloseCode

logger = logging.getLogger(__name__)

GATHER_SECONDS: Final = 0.002
"""How long requests gather before they are read together."""
READS_MAX: Final = 4
"""Reads of the log under way at once."""
RETRY_SECONDS: Final = 0.5
CONNECTIONS_A_TURN: Final = 200
"""Connections that are given a page before others have their turn."""

Place = tuple[str, int]
"""A channel and a position in it."""


class LogReader:
    """Reads the log: from a replica that is close enough behind, else from the primary."""

    def __init__(self, primary: Pool, replica: Pool | None) -> None:
        self._primary = primary
        self._replica = replica
        self.epoch: str | None = None
        """The log's, as last read."""
        self.failing = False
        """Whether the last read of the primary failed."""
        self.replica_pages = 0
        self.primary_pages = 0

    async def heads(self, channels: Sequence[str]) -> Heads:
        """The heads at the primary; raises Unavailable."""
        with self._noted():
            heads = await read_heads(self._primary, channels)
        self.epoch = heads.epoch
        return heads

    async def pages(self, places: Sequence[Place]) -> list[Page]:
        """The next page of each place; raises Unavailable."""
        if self._replica is None:
            return await self._from_primary(places)
        heads = await self.heads([channel for channel, _ in places])
        try:
            pages = await read_pages(self._replica, places, bytes_max=_share(places))
        except Unavailable as error:
            logger.warning("catch-up goes to the primary: %s", error)
            return await self._from_primary(places)
        fresh = {
            place: page
            for place, page in zip(places, pages, strict=True)
            if page.epoch == heads.epoch and page.head >= heads.heads[page.channel]
        }
        self.replica_pages += len(fresh)
        stale = [place for place in places if place not in fresh]
        if stale:
            fresh |= dict(zip(stale, await self._from_primary(stale), strict=True))
        return [fresh[place] for place in places]

    async def seen(self, user_id: str, channels: Sequence[str], epoch: str) -> dict[str, int]:
        """How far any device of a user has shown channels; raises Unavailable."""
        return await furthest_seen(self._primary, user_id, channels, epoch)

    async def _from_primary(self, places: Sequence[Place]) -> list[Page]:
        self.primary_pages += len(places)
        with self._noted():
            pages = await read_pages(self._primary, places, bytes_max=_share(places))
        self.epoch = pages[0].epoch
        return pages

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except Unavailable:
            self.failing = True
            raise
        self.failing = False


def _share(places: Sequence[Place]) -> int:
    """Bytes that each of some channels may have of one read."""
    return min(PAGE_BYTES_MAX, GATHERED_BYTES_MAX // len(places))


class CatchUp:
    """Answers connections that are behind."""

    def __init__(self, reader: LogReader, hub: Hub) -> None:
        self._reader = reader
        self._hub = hub
        self._wanted: dict[Place, dict[Connection, Position]] = {}
        self._wake = asyncio.Event()
        self._reads = asyncio.Semaphore(READS_MAX)
        self._channels_max = GATHERED_CHANNELS_MAX
        """Halved by each failure: a read that takes too long together may pass in parts."""
        self.failures = 0

    def request(self, connection: Connection, channel: str, *, later: bool = False) -> None:
        """Have the connection given the next page of a channel, now or in a moment."""
        position = connection.positions[channel]
        if later:
            self._later(connection, channel, position)
        else:
            self._want(connection, channel, position)

    async def run(self) -> None:
        """Read for ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._wake.wait()
                await asyncio.sleep(GATHER_SECONDS)
                await self._reads.acquire()
                batch = self._gather()
                tasks.create_task(self._read(batch), name="catch-up")

    def _want(self, connection: Connection, channel: str, position: Position) -> None:
        if connection.positions.get(channel) is position:
            self._wanted.setdefault((channel, position.position), {})[connection] = position
            self._wake.set()

    def _gather(self) -> dict[Place, dict[Connection, Position]]:
        places = list(self._wanted)[: self._channels_max]
        batch = {place: self._wanted.pop(place) for place in places}
        if not self._wanted:
            self._wake.clear()
        return batch

    async def _read(self, batch: dict[Place, dict[Connection, Position]]) -> None:
        try:
            # Whatever is committed after this moment is pushed; whatever was before it is read.
            await self._hub.settle()
            pages = await self._reader.pages(list(batch))
        except Exception as error:  # noqa: BLE001  # whatever it is, the clients still wait
            self._failed(batch, error)
            return
        finally:
            self._reads.release()
        self._channels_max = min(GATHERED_CHANNELS_MAX, self._channels_max * 2)
        for ((_, after), asked), page in zip(batch.items(), pages, strict=True):
            frames = functools.cache(functools.partial(page_frame, page, after))
            for number, (connection, position) in enumerate(asked.items(), 1):
                _give(connection, page, position, after, frames)
                if number % CONNECTIONS_A_TURN == 0:
                    await asyncio.sleep(0)

    def _failed(self, batch: dict[Place, dict[Connection, Position]], error: Exception) -> None:
        self.failures += 1
        self._channels_max = max(1, len(batch) // 2)
        if isinstance(error, LivefeedError):
            logger.warning("a catch-up waits: %s", error)
        else:
            logger.error("a catch-up read failed", exc_info=error)
        for (channel, _), asked in batch.items():
            for connection, position in asked.items():
                self._later(connection, channel, position)

    def _later(self, connection: Connection, channel: str, position: Position) -> None:
        wait = RETRY_SECONDS * (0.5 + random.random())
        asyncio.get_running_loop().call_later(wait, self._want, connection, channel, position)


def _give(
    connection: Connection, page: Page, position: Position, after: int, frames: PageFrames
) -> None:
    try:
        connection.page(page, position, after=after, frames=frames)
    except Exception:
        # One connection's trouble must not become the others'.
        logger.exception("a page could not be given to a connection")
        connection.socket.close(CloseCode.UNAVAILABLE, "come back")


class HeadCheck:
    """Compares positions with the heads now and then: a lost last push is found here."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._due: dict[Connection, float] = {}
        self._seconds = HEAD_CHECK_SECONDS
        self.found_behind = 0

    def add(self, connection: Connection) -> None:
        """Check a connection soon, and again and again."""
        now = asyncio.get_running_loop().time()
        self._due[connection] = now + HEAD_CHECK_FIRST_SECONDS

    def remove(self, connection: Connection) -> None:
        """Check it no more."""
        self._due.pop(connection, None)

    def all_soon(self) -> None:
        """Check every connection within a second: pushes were lost."""
        now = asyncio.get_running_loop().time()
        for connection in self._due:
            self._due[connection] = now + random.random()

    def every(self, seconds: float) -> None:
        """Check every connection this often from now on."""
        self._seconds = seconds
        now = asyncio.get_running_loop().time()
        for connection, due_at in self._due.items():
            self._due[connection] = min(due_at, now + seconds * random.random())

    async def run(self) -> None:
        """Check for ever."""
        while True:
            await asyncio.sleep(0.25)
            now = asyncio.get_running_loop().time()
            due = [connection for connection, at in self._due.items() if at <= now]
            for start in range(0, len(due), GATHERED_CHANNELS_MAX):
                await self._check(due[start : start + GATHERED_CHANNELS_MAX])

    async def _check(self, connections: Sequence[Connection]) -> None:
        now = asyncio.get_running_loop().time()
        for connection in connections:
            if connection in self._due:
                # Spread by up to a tenth, so that what connected together does not stay together.
                spread = 0.95 + random.random() / 10
                self._due[connection] = now + self._seconds * spread
        marks = {connection: connection.marks() for connection in connections}
        channels = {channel for one in marks.values() for channel in one.places}
        if not channels:
            return
        try:
            found = await self._reader.heads(list(channels))
        except LivefeedError as error:
            logger.warning("a head check waits: %s", error)
            for connection in connections:
                if connection in self._due:
                    self._due[connection] = now + HEAD_CHECK_FIRST_SECONDS + random.random()
            return
        for connection in connections:
            try:
                connection.head(found, marks[connection])
            except Exception:
                logger.exception("a head check failed for a connection")
                connection.socket.close(CloseCode.UNAVAILABLE, "come back")
