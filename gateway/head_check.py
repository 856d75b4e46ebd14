"""Compares positions with the heads now and then: a lost last push is found here."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from typing import Final

from gateway.connection import Connection
from gateway.log_reader import LogReader
from gateway.marks import Marks
from gateway.warn import warn
from livefeed.adapters.postgres.reads import Heads
from livefeed.alarms import Alarms
from livefeed.errors import LivefeedError
from livefeed.limits import (
    GATHERED_CHANNELS_MAX,
    HEAD_CHECK_FIRST_SECONDS,
    HEAD_CHECK_SECONDS,
)
from livefeed.protocol import CloseCode

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.25
"""How often it looks who is due: so long they gather."""


class HeadCheck:
    """When each connection's positions are compared next, and the comparison."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._alarms: Alarms[Connection] = Alarms()
        self._connections: set[Connection] = set()
        self._seconds = HEAD_CHECK_SECONDS
        self._epoch: str | None = None
        """The log's, when heads were read last."""
        self._failing = False
        """Whether they could not be read the last time."""

    def add(self, connection: Connection) -> None:
        """Check a connection soon, and again and again."""
        self._connections.add(connection)
        self._alarms.set(connection, time.monotonic() + HEAD_CHECK_FIRST_SECONDS)

    def remove(self, connection: Connection) -> None:
        """Check it no more."""
        self._connections.discard(connection)
        self._alarms.discard(connection)

    def all_soon(self) -> None:
        """Check every connection within a second: pushes were lost."""
        now = time.monotonic()
        for connection in self._connections:
            self._alarms.set(connection, now + random.random())

    def every(self, seconds: float) -> None:
        """Check every connection this often from now on."""
        self._seconds = seconds
        now = time.monotonic()
        for connection in self._connections:
            self._alarms.set(connection, now + seconds * random.random())

    async def run(self) -> None:
        """Check for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            while due := self._alarms.due(time.monotonic(), GATHERED_CHANNELS_MAX):
                await self._check(due)

    async def _check(self, connections: Sequence[Connection]) -> None:
        for connection in connections:
            # Spread by up to a tenth, so that what connected together does not stay together. Set
            # before the heads are read: whatever calls for a check meanwhile moves it again.
            self._again(connection, self._seconds * (0.95 + random.random() / 10))
        marks = {connection: connection.marks() for connection in connections}
        channels = {channel for one in marks.values() for channel in one.places}
        if not channels:
            return
        try:
            found = await self._reader.heads(list(channels))
        except Exception as error:  # noqa: BLE001  # whatever it is, the next one may pass
            if not isinstance(error, LivefeedError) or not self._failing:
                warn(logger, "head checks wait", error)
            self._failing = True
            for connection in connections:
                self._again(connection, HEAD_CHECK_FIRST_SECONDS + random.random())
            return
        for connection in connections:
            _compare(connection, found, marks[connection])
        self._tell_all(found.epoch)

    def _again(self, connection: Connection, seconds: float) -> None:
        if connection in self._connections:
            self._alarms.set(connection, time.monotonic() + seconds)

    def _tell_all(self, epoch: str) -> None:
        """What one check has found out concerns every connection: the log is back, or another."""
        if self._failing or self._epoch not in {None, epoch}:
            self.all_soon()
        self._failing, self._epoch = False, epoch


def _compare(connection: Connection, found: Heads, marks: Marks) -> None:
    try:
        connection.head(found, marks)
    except Exception:
        logger.exception("a head check failed for a connection")
        connection.socket.close(CloseCode.UNAVAILABLE, "come back")
