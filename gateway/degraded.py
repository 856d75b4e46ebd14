"""Tells clients when updates may be late, because pushes cannot come or the log cannot be read.

Without pushes the heads are compared more often, so what is new still comes, if later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Set as AbstractSet
from typing import Final

from gateway.connection import Connection
from gateway.frames import Frame
from gateway.head_check import HeadCheck
from gateway.log_reader import LogReader
from livefeed.adapters.nats.connection import Connection as Nats
from livefeed.limits import (
    DEGRADED_AFTER_SECONDS,
    HEAD_CHECK_DEGRADED_SECONDS,
    HEAD_CHECK_SECONDS,
)
from livefeed.protocol import degraded

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.25
TOLD_A_TURN: Final = 200
"""Connections that are told before others have their turn."""


class Degraded:
    """Watches what updates need, and tells every connection of a change.

    Args:
        connections: Those that are told; the set lives.
    """

    def __init__(
        self,
        nats: Nats,
        reader: LogReader,
        head_check: HeadCheck,
        connections: AbstractSet[Connection],
    ) -> None:
        self.reason: str | None = None
        """Why updates may be late, or None."""
        self._nats = nats
        self._reader = reader
        self._head_check = head_check
        self._connections = connections
        self._away_since: float | None = None

    def greet(self, connection: Connection) -> None:
        """Tell one that has just connected, if there is anything to tell."""
        if self.reason is not None:
            connection.socket.send(self._frame())

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            reason = self._look(asyncio.get_running_loop().time())
            if reason != self.reason:
                await self._change(reason)

    def _look(self, now: float) -> str | None:
        """What is away for long enough to be worth a word."""
        away = "nats" if not self._nats.is_connected else "log" if self._reader.failing else None
        if away is None:
            self._away_since = None
            return None
        if self._away_since is None:
            self._away_since = now
        return away if now - self._away_since >= DEGRADED_AFTER_SECONDS else self.reason

    async def _change(self, reason: str | None) -> None:
        told = (reason is None) != (self.reason is None)
        self.reason = reason
        logger.log(
            logging.INFO if reason is None else logging.WARNING,
            "updates come at once again" if reason is None else "updates may be late: no %s",
            *(() if reason is None else (reason,)),
        )
        self._head_check.every(
            HEAD_CHECK_SECONDS if reason is None else HEAD_CHECK_DEGRADED_SECONDS
        )
        if told:
            frame = self._frame()
            for number, connection in enumerate(list(self._connections), 1):
                connection.socket.send(frame)
                if number % TOLD_A_TURN == 0:
                    await asyncio.sleep(0)

    def _frame(self) -> Frame:
        return Frame(
            degraded(
                realtime=self.reason is None,
                poll_after_milliseconds=0
                if self.reason is None
                else int(HEAD_CHECK_DEGRADED_SECONDS * 1000),
            )
        )
