"""Catch-up: the one recovery path. Gathers what connections miss into few reads of the log.

First connect, reconnect, gap, slow reader, lost push: each is "send what is newer than my
position".
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Final

from gateway.connection import Connection
from gateway.hub import Hub
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.reads import Heads, Page, read_heads, read_pages
from livefeed.errors import LivefeedError, Unavailable
from livefeed.limits import GATHERED_CHANNELS_MAX, HEAD_CHECK_FIRST_SECONDS, HEAD_CHECK_SECONDS
from livefeed.protocol import CloseCode

logger = logging.getLogger(__name__)

GATHER_SECONDS: Final = 0.002
"""How long requests gather before they are read together."""
READS_MAX: Final = 4
"""Reads of the log under way at once."""
RETRY_SECONDS: Final = 0.5

Place = tuple[str, int]
"""A channel and a position in it."""


class LogReader:
    """Reads the log: from a replica that is close enough behind, else from the primary."""

    def __init__(self, primary: Pool, replica: Pool | None) -> None:
        self._primary = primary
        self._replica = replica
        self.epoch: str | None = None
        """The log's, as last read."""
        self.replica_pages = 0
        self.primary_pages = 0

    async def heads(self, channels: Sequence[str]) -> Heads:
        """The heads at the primary; raises Unavailable."""
        heads = await read_heads(self._primary, channels)
        self.epoch = heads.epoch
        return heads

    async def pages(self, places: Sequence[Place]) -> list[Page]:
        """The next page of each place; raises Unavailable."""
        if self._replica is None:
            return await self._from_primary(places)
        heads = await self.heads([channel for channel, _ in places])
        try:
            pages = await read_pages(self._replica, places)
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

    async def _from_primary(self, places: Sequence[Place]) -> list[Page]:
        self.primary_pages += len(places)
        pages = await read_pages(self._primary, places)
        self.epoch = pages[0].epoch
        return pages


class CatchUp:
    """Answers connections that are behind."""

    def __init__(self, reader: LogReader, hub: Hub) -> None:
        self._reader = reader
        self._hub = hub
        self._wanted: dict[Place, set[Connection]] = {}
        self._wake = asyncio.Event()
        self._reads = asyncio.Semaphore(READS_MAX)
        self.failures = 0

    def request(self, connection: Connection, channel: str) -> None:
        """Have the connection given the next page of a channel."""
        place = (channel, connection.positions[channel].position)
        self._wanted.setdefault(place, set()).add(connection)
        self._wake.set()

    async def run(self) -> None:
        """Read for ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._wake.wait()
                await asyncio.sleep(GATHER_SECONDS)
                await self._reads.acquire()
                batch = self._gather()
                tasks.create_task(self._read(batch), name="catch-up")

    def _gather(self) -> dict[Place, set[Connection]]:
        places = list(self._wanted)[:GATHERED_CHANNELS_MAX]
        batch = {place: self._wanted.pop(place) for place in places}
        if not self._wanted:
            self._wake.clear()
        return batch

    async def _read(self, batch: dict[Place, set[Connection]]) -> None:
        try:
            # Whatever is committed after this moment is pushed; whatever was before it is read.
            await self._hub.settle()
            pages = await self._reader.pages(list(batch))
        except Exception as error:  # noqa: BLE001  # whatever it is, the clients still wait
            self._failed(batch, error)
            return
        finally:
            self._reads.release()
        for ((_, position), connections), page in zip(batch.items(), pages, strict=True):
            for connection in connections:
                try:
                    connection.page(page, after=position)
                except Exception:
                    # One connection's trouble must not become the others'.
                    logger.exception("a page could not be given to a connection")
                    connection.socket.close(CloseCode.UNAVAILABLE, "come back")

    def _failed(self, batch: dict[Place, set[Connection]], error: Exception) -> None:
        self.failures += 1
        if isinstance(error, LivefeedError):
            logger.warning("a catch-up waits: %s", error)
        else:
            logger.error("a catch-up read failed", exc_info=error)
        wait = RETRY_SECONDS * (0.5 + random.random())
        asyncio.get_running_loop().call_later(wait, self._again, batch)

    def _again(self, batch: dict[Place, set[Connection]]) -> None:
        for (channel, position), connections in batch.items():
            for connection in connections:
                place = connection.positions.get(channel)
                if place is not None and place.position == position and place.catching_up:
                    self.request(connection, channel)


class HeadCheck:
    """Compares positions with the heads now and then: a lost last push is found here."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._due: dict[Connection, float] = {}
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
                self._due[connection] = now + HEAD_CHECK_SECONDS * spread
        marks = {connection: connection.marks() for connection in connections}
        channels = {channel for places in marks.values() for channel in places}
        if not channels:
            return
        try:
            found = await self._reader.heads(list(channels))
        except LivefeedError as error:
            logger.warning("a head check waits: %s", error)
            return
        for connection in connections:
            connection.head(found, marks[connection])
