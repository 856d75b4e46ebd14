"""The pool: starts workers when there is work, from none, and replaces those that end.

A worker is wanted on a hint (an update passes by, or a wake) or on lag, which is looked at every
second or two. While Postgres is away no worker of deliver is started; one that crashes again and
again is started later and later. Now and then, while there was work, it runs `retain`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from livefeed import subjects
from livefeed.adapters.nats.connection import Connection, DirectSubscription, Handler
from livefeed.adapters.nats.lag import consumer_lag, last_sequence
from livefeed.adapters.nats.purge import progress
from livefeed.adapters.process import Child
from livefeed.breaker import Breaker
from livefeed.errors import Unavailable
from livefeed.limits import PARTITIONS, RETAIN_IDLE_SECONDS, WORKER_SETTLE_SECONDS
from livefeed.scaling import start_delay_seconds, workers_wanted
from livefeed.subjects import BULK, LANES, URGENT, Lane
from livefeed.topology import LANE_STREAM, UPDATES, deliver_consumer, prioritize_consumer

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
ASLEEP_SECONDS: Final = 2.0
"""How often is looked while nothing waits and nobody works: the hint makes it look at once, and is
lost only with the connection, after whose return it looks too."""
SUCCESSOR_LEAD_SECONDS: Final = 2.0
"""How long before a worker's end its successor is started."""
CRASHED_WITHIN_SECONDS: Final = 5.0
"""A worker that ends badly this soon counts as one more crash in a row."""
STREAMS: Final = {"prioritize": UPDATES, "deliver": LANE_STREAM}
"""The stream whose lag calls for a function's workers."""
CONSUMERS: Final = {
    (UPDATES, lane): frozenset({prioritize_consumer(lane).name}) for lane in LANES
} | {
    (LANE_STREAM, lane): frozenset(
        deliver_consumer(lane, number).name for number in range(PARTITIONS)
    )
    for lane in LANES
}
"""By stream and lane: who reads it."""
PLACES: Final = (URGENT, BULK)
"""Lanes that share workers. High has processes of its own: what a flush of the others does to a
process's loop, to its memory and to its CPU is none of its business."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPolicy:
    """What a pool may do."""

    processes_max: int
    life_seconds: float
    retain_seconds: float = 0.0
    """How often `retain` is started; 0 is never."""


class Upkeep:
    """When `retain` is started: often while messages are handled, seldom while none is.

    Args:
        seconds: How often at most; 0 is never.
        now: Monotonic seconds.
    """

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        # Pools that start together do not stay together.
        self._due_at = now + seconds * random.uniform(0.5, 1.0) if seconds else math.inf
        self._handled: int | None = None
        self._started_at = now

    def due(self, now: float) -> bool:
        """Whether to ask what was handled meanwhile."""
        return now >= self._due_at

    def wanted(self, now: float, handled: int) -> bool:
        """Whether to start it, after so many messages; the next time is some time later."""
        self._due_at = now + self._seconds * random.uniform(0.9, 1.1)
        if handled == self._handled and now - self._started_at < RETAIN_IDLE_SECONDS:
            return False
        self._handled, self._started_at = handled, now
        return True

    def failed(self) -> None:
        """It has to be done again, whatever was handled."""
        self._handled = None


@dataclass(slots=True)
class Team:
    """The workers of one function that serve the same lanes."""

    function: str
    lanes: tuple[Lane, ...] = ()
    hinted: bool = False
    """Whether something told that there is work."""
    started: dict[int, tuple[Child, float]] = field(default_factory=dict)
    """By pid: the process, and when it was started."""
    succeeded: set[int] = field(default_factory=set)
    """Pids of workers near their end whose successor was started."""
    crashes: int = 0
    not_before: float = 0.0


class Pool:
    """Runs the workers of every function on one host.

    Args:
        connection: NATS.
        start_worker: Starts a worker process of a function for some lanes; for none in `retain`.
        database_answers: Whether Postgres answers now; raises Unavailable if not.
        policy: Bounds.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        start_worker: Callable[[str, Sequence[Lane]], Child],
        database_answers: Callable[[], Awaitable[object]],
        policy: PoolPolicy,
    ) -> None:
        self._connection = connection
        self._start_worker = start_worker
        self._database_answers = database_answers
        self._policy = policy
        self._breaker = Breaker()
        self._teams = [Team(function, lanes) for lanes in PLACES for function in STREAMS]
        self._retain = Team("retain")
        self._nothing_until: dict[str, int] = {}
        """By stream: its last sequence when nothing waited in it, while nothing does."""
        self._upkeep = Upkeep(policy.retain_seconds, time.monotonic())
        self._changed = asyncio.Event()
        self._leaving = False
        self._hints: dict[tuple[Lane, ...], list[DirectSubscription]] = {}
        self._watchers: set[asyncio.Task[None]] = set()

    def leave(self) -> None:
        """Stop starting workers, have those that run settle, return from `run`."""
        self._leaving = True
        self._changed.set()

    async def run(self) -> None:
        """Run until told to leave."""
        self._connection.subscribe_direct(subjects.CONTROL_WAKE, self._on_wake)
        self._connection.when_regained(self._on_regained)
        while not self._leaving and not self._connection.closed_for_good.is_set():
            await self._look()
            self._listen_when_asleep()
            self._changed.clear()
            try:
                async with asyncio.timeout(self._seconds_to_next_look()):
                    await self._changed.wait()
            except TimeoutError:
                continue
        await self._stop_all()

    async def _look(self) -> None:
        """Start what is wanted now."""
        lags = await self._lags()
        for team in self._teams:
            wanted = self._wanted(team, lags)
            now = time.monotonic()
            self._start_successors(team, now)
            if len(team.started) >= wanted or now < team.not_before:
                continue
            # Asked only when it matters: an idle stack asks nobody.
            if team.function == "deliver" and not await self._database_is_there():
                continue
            while len(team.started) < wanted:
                self._start(team)
        if not self._retain.started and self._upkeep.due(time.monotonic()):
            await self._retain_if_wanted()

    async def _retain_if_wanted(self) -> None:
        try:
            handled = await progress(self._connection, STREAMS.values())
        except Unavailable as error:
            logger.debug("pool: %s", error)
            return
        if not self._leaving and self._upkeep.wanted(time.monotonic(), handled):
            self._start(self._retain)

    def _wanted(self, team: Team, lags: Mapping[str, Mapping[Lane, int]]) -> int:
        hinted, team.hinted = team.hinted, False
        running = len(team.started)
        lag = sum(lags.get(STREAMS[team.function], {}).get(lane, 0) for lane in team.lanes)
        wanted = workers_wanted(lag=lag, running=running, processes_max=self._policy.processes_max)
        return max(wanted, 1) if hinted else wanted

    async def _lags(self) -> dict[str, Mapping[Lane, int]]:
        """Messages that wait, by stream and lane; a stream that does not answer is left out."""
        lags: dict[str, Mapping[Lane, int]] = {}
        for stream in STREAMS.values():
            try:
                lags[stream] = await self._lag(stream)
            except Unavailable as error:
                logger.debug("pool: %s", error)
        return lags

    async def _lag(self, stream: str) -> Mapping[Lane, int]:
        """Messages that wait in a stream, by lane.

        Where none was pending or in anybody's hands, none is until another one is stored: while
        nothing happens only the stream is asked, not its 48 consumers.
        """
        last = await last_sequence(self._connection, stream)
        if last == self._nothing_until.get(stream):
            return {}
        waiting = await consumer_lag(self._connection, stream)
        lag = {
            lane: sum(waiting.get(name, 0) for name in CONSUMERS[stream, lane]) for lane in LANES
        }
        self._nothing_until.pop(stream, None)
        if not any(lag.values()):
            self._nothing_until[stream] = last
        return lag

    def _start(self, team: Team) -> None:
        worker = self._start_worker(team.function, team.lanes)
        team.started[worker.pid] = (worker, time.monotonic())
        logger.info("pool: started %s %s, pid %d", team.function, ",".join(team.lanes), worker.pid)
        watcher = asyncio.create_task(self._watch(team, worker), name=f"watch-{worker.pid}")
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    def _start_successors(self, team: Team, now: float) -> None:
        if self._leaving:
            return
        end = self._policy.life_seconds - SUCCESSOR_LEAD_SECONDS
        for pid, (_, started_at) in list(team.started.items()):
            if now - started_at >= end and pid not in team.succeeded:
                team.succeeded.add(pid)
                self._start(team)

    async def _watch(self, team: Team, worker: Child) -> None:
        code = await worker.wait()
        now = time.monotonic()
        _, started_at = team.started.pop(worker.pid)
        team.succeeded.discard(worker.pid)
        if code == 0 or self._leaving:
            team.crashes = 0
        else:
            quick = now - started_at < CRASHED_WITHIN_SECONDS
            team.crashes = team.crashes + 1 if quick else 1
            team.not_before = now + start_delay_seconds(team.crashes)
            logger.warning("pool: %s, pid %d, ended with %d", team.function, worker.pid, code)
            if team is self._retain:
                self._upkeep.failed()
                return
            # It had work, or it would have left by itself: the next one is wanted now.
            team.hinted = True
        self._changed.set()

    async def _database_is_there(self) -> bool:
        now = time.monotonic()
        if not self._breaker.allows(now):
            return False
        delivering = any(team.started for team in self._teams if team.function == "deliver")
        if self._breaker.state == "closed" and delivering:
            # Its workers know best, and they hold on by themselves.
            return True
        try:
            await self._database_answers()
        except Unavailable as error:
            self._breaker.failed(time.monotonic(), jitter=random.random())
            logger.debug("pool: %s", error)
            return False
        self._breaker.succeeded()
        return True

    def _listen_when_asleep(self) -> None:
        """While lanes miss a worker, the next of their updates that passes by is the hint."""
        now = time.monotonic()
        for lanes in PLACES:
            missing = [team for team in self._teams if team.lanes == lanes and not team.started]
            # One that may not be started yet needs no hint: it is looked at when it may.
            if lanes not in self._hints and any(team.not_before <= now for team in missing):
                self._hints[lanes] = [
                    self._connection.subscribe_direct(subject, self._hint_for(lanes))
                    for lane in lanes
                    for subject in subjects.updates_filters(lane)
                ]

    def _hint_for(self, lanes: tuple[Lane, ...]) -> Handler:
        def passed_by(_subject: bytes, _reply: bytes, _headers: bytes, _payload: bytes) -> None:
            # One is enough: while workers run, updates do not pass through here.
            for hint in self._hints.pop(lanes, []):
                self._connection.unsubscribe_now(hint)
            self._hint(lanes)

        return passed_by

    def _on_wake(self, _subject: bytes, _reply: bytes, _headers: bytes, _payload: bytes) -> None:
        for lanes in PLACES:
            self._hint(lanes)

    def _hint(self, lanes: tuple[Lane, ...]) -> None:
        for team in self._teams:
            team.hinted = team.hinted or team.lanes == lanes
        self._changed.set()

    async def _on_regained(self) -> None:
        # What passed by meanwhile was no hint.
        self._changed.set()

    def _seconds_to_next_look(self) -> float:
        now = time.monotonic()
        waits = [team.not_before - now for team in self._teams if team.not_before > now]
        working = any(team.started for team in self._teams)
        asleep = not working and len(self._nothing_until) == len(STREAMS)
        return min([ASLEEP_SECONDS if asleep else LOOK_SECONDS, *waits])

    async def _stop_all(self) -> None:
        teams = [*self._teams, self._retain]
        children = [child for team in teams for child, _ in team.started.values()]
        stops = [(signal.SIGTERM, WORKER_SETTLE_SECONDS + 1)]
        await asyncio.gather(*(child.stop(stops) for child in children))
