"""Catch-up: the one recovery path. Gathers what connections miss into few reads of the log.

First connect, reconnect, gap, slow reader, hidden tab, lost push: each is "send what is newer than
my position".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Iterable
from typing import Final

from gateway.connection import Connection
from gateway.held_pages import HeldPages
from gateway.hub import Hub
from gateway.log_reader import LogReader
from gateway.turn import Place, Turn
from gateway.update_frames import Piece
from livefeed.adapters.postgres.reads import Page
from livefeed.alarms import Alarms
from livefeed.errors import LivefeedError
from livefeed.limits import GATHERED_CHANNELS_MAX, PAGE_BYTES_MAX
from livefeed.protocol import CloseCode

logger = logging.getLogger(__name__)

GATHER_SECONDS: Final = 0.002
"""How long requests gather before they are read together."""
READS_MAX: Final = 4
"""Reads of the log under way at once."""
RETRY_SECONDS: Final = 0.5
HELD_LOOK_SECONDS: Final = 0.1
"""How often it looks whether clients have read what holds everything up."""
WAKE_SECONDS: Final = 0.01
"""How long those whose budget allows a frame gather before they go on together."""
CONNECTIONS_A_TURN: Final = 200
"""Connections that are given a page before others have their turn."""

Batch = dict[Place, list[Turn]]


class CatchUp:
    """Answers connections that are behind."""

    now = staticmethod(time.monotonic)
    """The clock, in seconds."""

    def __init__(self, reader: LogReader, hub: Hub) -> None:
        self._reader = reader
        self._hub = hub
        self._wanted: Batch = {}
        self._requested = asyncio.Event()
        self._reads = asyncio.Semaphore(READS_MAX)
        self._alarms: Alarms[Connection] = Alarms()
        self._earlier = asyncio.Event()
        """An alarm was set that is earlier than those before."""
        self._channels_max = GATHERED_CHANNELS_MAX
        """Halved by each failure: a read that takes too long together may pass in parts."""
        self.held = HeldPages()
        self.failures = 0
        self._failing = False
        """Whether the last read failed: with many waiting, each of them would be a line."""

    def request(self, turn: Turn) -> None:
        """Read the turn's pages, then call `connection.take`."""
        for place in turn.places:
            self._wanted.setdefault(place, []).append(turn)
        self._requested.set()

    def wake(self, connection: Connection, at: float) -> None:
        """Call `connection.go_on` at a time, and not at the one that was named before."""
        next_at = self._alarms.next_at()
        self._alarms.set(connection, at)
        if next_at is None or at < next_at:
            self._earlier.set()

    def retry_at(self) -> float:
        """When to ask again for what could not be read."""
        return time.monotonic() + RETRY_SECONDS * (0.5 + random.random())

    def forget(self, connection: Connection) -> None:
        """Wake it no more."""
        self._alarms.discard(connection)
        self.held.forget(connection)

    async def run(self) -> None:
        """Read and wake for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._wake_for_ever(), name="catch-up-alarms")
            while True:
                await self._requested.wait()
                await asyncio.sleep(GATHER_SECONDS)
                while self.held.full(time.monotonic()):  # noqa: ASYNC110  # only looking tells
                    await asyncio.sleep(HELD_LOOK_SECONDS)
                await self._reads.acquire()
                batch = self._gather()
                tasks.create_task(self._read(batch), name="catch-up")

    async def _wake_for_ever(self) -> None:
        while True:
            self._earlier.clear()
            at = self._alarms.next_at()
            wait = None if at is None else max(0.0, at - time.monotonic())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._earlier.wait(), wait)
            await asyncio.sleep(WAKE_SECONDS)
            while due := self._alarms.due(time.monotonic(), CONNECTIONS_A_TURN):
                for connection in due:
                    _go_on(connection)
                await asyncio.sleep(0)

    def _gather(self) -> Batch:
        batch: Batch = {}
        while self._wanted and len(batch) < self._channels_max:
            place = next(iter(self._wanted))
            turns = self._wanted.pop(place)
            if any(turn.is_wanted(place[0]) for turn in turns):
                batch[place] = turns
            else:
                # Who asked is gone: after an outage that may be most of them.
                _give(turns, place, None)
        if not self._wanted:
            self._requested.clear()
        return batch

    async def _read(self, batch: Batch) -> None:
        try:
            pages = await self._pages(batch) if batch else []
        except Exception as error:  # noqa: BLE001  # whatever it is, the clients still wait
            self._failed(batch, error)
            return
        finally:
            self._reads.release()
        self._channels_max = min(GATHERED_CHANNELS_MAX, self._channels_max * 2)
        if self._failing and batch:
            self._failing = False
            logger.info("catch-up goes on")
        given = 0
        for (place, turns), page in zip(batch.items(), pages, strict=True):
            piece = Piece(page, place[1])
            for turn in turns:
                if turn.give(place[0], piece):
                    _take(turn, self.held)
                given += 1
                if given % CONNECTIONS_A_TURN == 0:
                    await asyncio.sleep(0)

    async def _pages(self, batch: Batch) -> list[Page]:
        # Whatever is committed after this moment is pushed; whatever was before it is read.
        await self._hub.settle()
        shares = [
            PAGE_BYTES_MAX // max(len(one.asked) for one in turns) for turns in batch.values()
        ]
        return await self._reader.pages(list(batch), shares)

    def _failed(self, batch: Batch, error: Exception) -> None:
        self.failures += 1
        self._channels_max = max(1, len(batch) // 2)
        if not isinstance(error, LivefeedError):
            logger.error("a catch-up read failed", exc_info=error)
        elif not self._failing:
            logger.warning("catch-up waits: %s", error)
            self._failing = True
        for place, turns in batch.items():
            _give(turns, place, None)


def _give(turns: Iterable[Turn], place: Place, piece: Piece | None) -> None:
    for turn in turns:
        if turn.give(place[0], piece):
            _take(turn)


def _take(turn: Turn, held: HeldPages | None = None) -> None:
    try:
        turn.connection.take(turn)
        if held is not None:
            held.given(turn, time.monotonic())
    except Exception:
        # One connection's trouble must not become the others'.
        logger.exception("pages could not be given to a connection")
        turn.connection.socket.close(CloseCode.UNAVAILABLE, "come back")


def _go_on(connection: Connection) -> None:
    try:
        connection.go_on()
    except Exception:
        logger.exception("a connection could not go on")
        connection.socket.close(CloseCode.UNAVAILABLE, "come back")
