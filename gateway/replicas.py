"""The replicas of the log: how far behind each is, how it answers, and which ones a read asks."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from typing import Any, Final

from gateway.warn import warn
from livefeed.adapters.postgres.gauge import Gauge
from livefeed.adapters.postgres.pool import Pool
from livefeed.breaker import Attempt, Breaker, BreakerPolicy
from livefeed.errors import Unavailable
from livefeed.limits import REPLICA_LAG_SECONDS_MAX, REPLICA_LOOK_SECONDS
from livefeed.replica_choice import Candidate, Lag, Order, PrimaryTrack, order

logger = logging.getLogger(__name__)

READS_POLICY: Final = BreakerPolicy(open_seconds_min=0.5, open_seconds_max=10.0)
"""A replica that fails three reads in a row is left alone for a while, though it answers looks: one
that is only slow costs each read `REPLICA_SECONDS_MAX`."""
LOOKS_POLICY: Final = BreakerPolicy(open_seconds_min=0.5, open_seconds_max=1.5)
"""A look costs nobody anything, so one that was away is found soon: within 5 s, with what a look
takes."""


class Replica:
    """One replica: its pool, and what is known of it.

    Args:
        name: Host and port, for people.
        pool: What reads it.
        gauge: What looks at it.
    """

    def __init__(self, name: str, pool: Pool, gauge: Gauge) -> None:
        self.name: Final = name
        self.pool: Final = pool
        self.gauge: Final = gauge
        self.reads: Final = Breaker(READS_POLICY)
        """Of reads; in half open the next one is the probe."""
        self.looks: Final = Breaker(LOOKS_POLICY)
        """Of looks; while it is not closed nothing is read, so a read never waits for a probe."""
        self.lag: Lag | None = None
        self.stale_reads = 0

    def candidate(self, now: float) -> Candidate:
        """What is known of it; asks for no probe."""
        reads = self.reads
        probed = reads.state == "open" and now >= reads.retry_at()
        answers = self.looks.state == "closed" and (reads.state == "closed" or probed)
        return Candidate(answers, self.lag, self.stale_reads)

    async def look(self, track: PrimaryTrack) -> None:
        """Look at it, if its breaker lets us."""
        allowed = self.looks.begin(time.monotonic())
        if allowed is None:
            return
        answered = self.looks.state == "closed"
        try:
            with Attempt(allowed, time.monotonic, random.random, failures=(Unavailable,)):
                look = await self.gauge.look()
        except Unavailable as error:
            if answered:
                logger.warning("the replica %s is away: %s", self.name, error)
            return
        if not answered:
            logger.info("the replica %s is back", self.name)
        self.lag = track.lag(look, time.monotonic())
        self.stale_reads = 0

    def described(self) -> dict[str, Any]:
        """For people: its lag, None while that is not known, and its breaker's state."""
        lag = self.lag
        state = self.reads.state if self.looks.state == "closed" else self.looks.state
        return {
            "name": self.name,
            "lag_seconds": None if lag is None else round(lag.seconds, 3),
            "lag_bytes": None if lag is None else lag.bytes,
            "breaker": state,
        }


class Replicas:
    """All replicas of one primary; there may be none.

    Args:
        primary: What looks at the primary.
        each: The replicas.
    """

    def __init__(self, primary: Gauge | None = None, each: Sequence[Replica] = ()) -> None:
        self._primary = primary
        self._each = list(each)
        self._track = PrimaryTrack()

    def to_ask(self) -> tuple[list[Replica], list[Replica]]:
        """Those that a read may ask now, in order: the near ones, and those too far behind."""
        if not self._each:
            return [], []
        chosen: Order = order(
            [one.candidate(time.monotonic()) for one in self._each],
            lag_seconds_max=REPLICA_LAG_SECONDS_MAX,
            chances=[random.random() for _ in self._each],
        )
        near, far = ([self._each[number] for number in numbers] for numbers in chosen)
        return near, far

    async def run(self) -> None:
        """Look at all of them about once a second, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._primary is not None and self._each:
                tasks.create_task(self._watch_primary(self._primary), name="primary-position")
            for one in self._each:
                tasks.create_task(self._watch(one), name=f"replica-{one.name}")

    def described(self) -> list[dict[str, Any]]:
        """For people: every replica."""
        return [one.described() for one in self._each]

    async def _watch(self, replica: Replica) -> None:
        # Each by itself: one that hangs holds no other up.
        while True:
            try:
                await replica.look(self._track)
            except Exception as error:  # noqa: BLE001  # whatever it is, the next look may pass
                warn(logger, f"the lag of {replica.name} is not known", error)
            # Spread, so that many gateways do not look at once.
            await asyncio.sleep(REPLICA_LOOK_SECONDS * (0.9 + random.random() / 5))

    async def _watch_primary(self, gauge: Gauge) -> None:
        while True:
            try:
                self._track.note(time.monotonic(), await gauge.position())
            except Unavailable as error:
                # The reader says so, loudly, when a read fails too.
                logger.debug("the primary's position is not known: %s", error)
            except Exception as error:  # noqa: BLE001  # whatever it is, the next look may pass
                warn(logger, "the primary's position is not known", error)
            await asyncio.sleep(REPLICA_LOOK_SECONDS)
