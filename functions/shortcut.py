"""The short way: what is urgent and for few goes from prioritize to the log at once.

A lane is a stream: to be stored, delivered and settled once more costs an urgent update more than
its flush. What would stand in the high lane is flushed by prioritize itself, which settles its
update when that is done. Where it cannot be flushed, the lane takes it, as it takes what is for
many.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from functions.flush import Flush
from functions.lane_plan import Addressed
from livefeed.breaker import Attempt, Breaker
from livefeed.errors import Unavailable, UpdateRefused

logger = logging.getLogger(__name__)

ROWS_MAX: Final = 1_000
"""Rows of one flush; more would keep the next urgent update waiting, and lanes share them out."""


class Shortcut:
    """Flushes what is urgent.

    Args:
        flush: Persists lane messages and tells the gateways.
        clock: Monotonic seconds.
        jitter: 0..1, random, spreads the probes of many workers.
    """

    def __init__(
        self, flush: Flush, *, clock: Callable[[], float], jitter: Callable[[], float]
    ) -> None:
        self._flush = flush
        self._clock = clock
        self._jitter = jitter
        self._breaker = Breaker()

    async def take(self, messages: Iterable[Addressed]) -> list[Addressed]:
        """Flush what is urgent, as much as one flush takes; returns the rest, for the lanes."""
        urgent: list[Addressed] = []
        rest: list[Addressed] = []
        rows = 0
        for message in messages:
            if message.lane == "high" and rows + message.content.rows <= ROWS_MAX:
                urgent.append(message)
                rows += message.content.rows
            else:
                rest.append(message)
        if urgent and not await self._flushed(urgent):
            rest = urgent + rest
        return rest

    async def _flushed(self, urgent: list[Addressed]) -> bool:
        if not self._breaker.allows(self._clock()):
            return False
        try:
            with Attempt(self._breaker, self._clock, self._jitter, failures=(Unavailable,)):
                await self._flush([message.content for message in urgent])
        except Unavailable as error:
            logger.info("what is urgent takes its lane: %s", error)
            return False
        except UpdateRefused:
            # deliver finds out which of them it is, and puts it aside.
            return False
        return True
