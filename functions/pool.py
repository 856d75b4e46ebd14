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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from livefeed import subjects
from livefeed.adapters.nats.connection import Connection, DirectSubscription
from livefeed.adapters.nats.lag import consumer_lag, last_sequence
from livefeed.adapters.nats.purge import progress
from livefeed.adapters.process import Child
from livefeed.breaker import Breaker
from livefeed.errors import Unavailable
from livefeed.limits import RETAIN_IDLE_SECONDS, WORKER_SETTLE_SECONDS
from livefeed.scaling import start_delay_seconds, workers_wanted
from livefeed.topology import LANE_STREAM, UPDATES

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
    """The workers of one function."""

    function: str
    started: dict[int, tuple[Child, float]] = field(default_factory=dict)
    """By pid: the process, and when it was started."""
    succeeded: set[int] = field(default_factory=set)
    """Pids of workers near their end whose successor was started."""
    crashes: int = 0
    not_before: float = 0.0
    nothing_until: int | None = None
    """The stream's last sequence when nothing was waiting; None when something was."""


class Pool:
    """Runs the workers of every function on one host.

    Args:
        connection: NATS.
        start_worker: Starts a worker process of a function.
        database_answers: Whether Postgres answers now; raises Unavailable if not.
        policy: Bounds.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        start_worker: Callable[[str], Child],
        database_answers: Callable[[], Awaitable[object]],
        policy: PoolPolicy,
    ) -> None:
        self._connection = connection
        self._start_worker = start_worker
        self._database_answers = database_answers
        self._policy = policy
        self._breaker = Breaker()
        self._teams = {function: Team(function) for function in STREAMS}
        self._retain = Team("retain")
        self._upkeep = Upkeep(policy.retain_seconds, time.monotonic())
        self._changed = asyncio.Event()
        self._hinted = False
        self._leaving = False
        self._hint: DirectSubscription | None = None
        self._watchers: set[asyncio.Task[None]] = set()

    def leave(self) -> None:
        """Stop starting workers, have those that run settle, return from `run`."""
        self._leaving = True
        self._changed.set()

    async def run(self) -> None:
        """Run until told to leave."""
        self._connection.subscribe_direct(subjects.CONTROL_WAKE, self._on_hint)
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
        hinted, self._hinted = self._hinted, False
        for team in self._teams.values():
            wanted = await self._wanted(team, hinted=hinted)
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
        if not await self._database_is_there():
            return
        try:
            handled = await progress(self._connection, STREAMS.values())
        except Unavailable as error:
            logger.debug("pool: %s", error)
            return
        if not self._leaving and self._upkeep.wanted(time.monotonic(), handled):
            self._start(self._retain)

    async def _wanted(self, team: Team, *, hinted: bool) -> int:
        running = len(team.started)
        if hinted and running == 0:
            return 1
        if running >= self._policy.processes_max:
            return running
        try:
            lag = await self._lag(team)
        except Unavailable as error:
            logger.debug("pool: %s", error)
            return running
        return workers_wanted(lag=lag, running=running, processes_max=self._policy.processes_max)

    async def _lag(self, team: Team) -> int:
        """Messages that wait for a function.

        Where none was pending or in anybody's hands, none is until another one is stored: while
        nothing happens only the stream is asked, not its 48 consumers.
        """
        stream = STREAMS[team.function]
        last = await last_sequence(self._connection, stream)
        if last == team.nothing_until:
            return 0
        lag = sum((await consumer_lag(self._connection, stream)).values())
        team.nothing_until = None if lag else last
        return lag

    def _start(self, team: Team) -> None:
        worker = self._start_worker(team.function)
        team.started[worker.pid] = (worker, time.monotonic())
        logger.info("pool: started %s, pid %d", team.function, worker.pid)
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
            self._hinted = True
        self._changed.set()

    async def _database_is_there(self) -> bool:
        now = time.monotonic()
        if not self._breaker.allows(now):
            return False
        if self._breaker.state == "closed" and self._teams["deliver"].started:
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
        """While a function has no worker, the next update that passes by is the hint."""
        if self._hint is None and not all(team.started for team in self._teams.values()):
            self._hint = self._connection.subscribe_direct(subjects.UPDATES_ALL, self._on_update)

    def _on_update(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        hint, self._hint = self._hint, None
        if hint is not None:
            # One is enough: while workers run, updates do not pass through here.
            self._connection.unsubscribe_now(hint)
        self._on_hint(subject, reply, headers, payload)

    def _on_hint(self, _subject: bytes, _reply: bytes, _headers: bytes, _payload: bytes) -> None:
        self._hinted = True
        self._changed.set()

    async def _on_regained(self) -> None:
        # What passed by meanwhile was no hint.
        self._changed.set()

    def _seconds_to_next_look(self) -> float:
        now = time.monotonic()
        waits = [team.not_before - now for team in self._teams.values() if team.not_before > now]
        asleep = all(
            not team.started and team.nothing_until is not None for team in self._teams.values()
        )
        return min([ASLEEP_SECONDS if asleep else LOOK_SECONDS, *waits])

    async def _stop_all(self) -> None:
        teams = [*self._teams.values(), self._retain]
        children = [child for team in teams for child, _ in team.started.values()]
        stops = [(signal.SIGTERM, WORKER_SETTLE_SECONDS + 1)]
        await asyncio.gather(*(child.stop(stops) for child in children))
