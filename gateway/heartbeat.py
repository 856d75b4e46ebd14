"""Asks each client now and then whether it is there; one timer for all of them."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

logger = logging.getLogger(__name__)

SLOTS_A_SECOND: Final = 4
"""In how many parts those that are due within a second are asked: none of them takes long."""


class Asked(Protocol):
    """A connection that is asked."""

    def beat(self) -> None:
        """Ask, or end what has not answered the last time."""
        ...


class Heartbeat:
    """A circle of slots: every connection is in one of them, and is asked once a round.

    A timer of its own for each connection would wake the process as often as there are connections.

    Args:
        seconds: Of a round.
    """

    def __init__(self, seconds: float) -> None:
        self._slots: Final[list[set[Asked]]] = [set() for _ in range(int(seconds * SLOTS_A_SECOND))]
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None

    def join(self, connection: Asked) -> None:
        """Ask a connection from now on, within a round for the first time."""
        self._slot_of(connection).add(connection)
        if self._timer is None:
            self._wait()

    def leave(self, connection: Asked) -> None:
        """Ask it no more, if it was."""
        self._slot_of(connection).discard(connection)

    def _slot_of(self, connection: Asked) -> set[Asked]:
        # By its address, which is as good as chance: who came together is not asked together.
        return self._slots[hash(connection) % len(self._slots)]

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(1 / SLOTS_A_SECOND, self._ask)

    def _ask(self) -> None:
        self._timer = None
        self._next = (self._next + 1) % len(self._slots)
        if any(self._slots):
            self._wait()
        for connection in tuple(self._slots[self._next]):
            try:
                connection.beat()
            except Exception:
                # One connection's trouble must not become the others'.
                logger.exception("a connection could not be asked whether it is there")
