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
from typing import Final, NamedTuple

from livefeed import subjects
from livefeed.adapters.nats.connection import Connection, DirectSubscription, Handler
from livefeed.adapters.nats.lag import consumer_lag, last_sequence
from livefeed.adapters.nats.purge import progress
from livefeed.adapters.process import Running
from livefeed.breaker import Attempt, Breaker
from livefeed.errors import Unavailable
from livefeed.limits import PARTITIONS, RETAIN_IDLE_SECONDS, WORKER_SETTLE_SECONDS
from livefeed.scaling import start_delay_seconds, workers_wanted
from livefeed.subjects import LANES, PLACES, URGENT, Lane
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
DATABASE_SECONDS_MAX: Final = 0.5
"""How long a look waits for Postgres; a later answer makes the pool look again."""
OVERDUE_SECONDS: Final = WORKER_SETTLE_SECONDS + 5.0
"""How long after its end a worker may still run."""
STREAMS: Final = {"prioritize": UPDATES, "deliver": LANE_STREAM}
"""The stream whose lag calls for a function's workers."""


def _deliver_hints(lane: Lane) -> list[str]:
    moved = [subjects.lanes_filter(lane)]
    # Both functions from cold; but little of what is published as high comes to its lane.
    return moved if lane in URGENT else [*subjects.updates_filters(lane), *moved]


HINTS: Final[dict[str, Callable[[Lane], list[str]]]] = {
    "prioritize": subjects.updates_filters,
    "deliver": _deliver_hints,
}
"""What passes by when there is work for a function in a lane."""
CONSUMERS: Final = {
    (UPDATES, lane): frozenset({prioritize_consumer(lane).name}) for lane in LANES
} | {
    (LANE_STREAM, lane): frozenset(
        deliver_consumer(lane, number).name for number in range(PARTITIONS)
    )
    for lane in LANES
}
"""By stream and lane: who reads it."""


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


class Quiet(NamedTuple):
    """A stream in which nothing waits."""

    last: int
    """Its last sequence then."""
    since: float
    believed: bool
    """Whether it was looked at twice."""


@dataclass(slots=True)
class Team:
    """The workers of one function that serve the same lanes."""

    function: str
    lanes: tuple[Lane, ...] = ()
    hinted: bool = False
    """Whether something told that there is work."""
    hints: list[DirectSubscription] = field(default_factory=list)
    """What is listened to while it has no worker."""
    lost: int = 0
    """Workers that ended badly and were not replaced yet."""
    started: dict[int, tuple[Running, float]] = field(default_factory=dict)
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
        start_worker: Callable[[str, Sequence[Lane]], Running],
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
        self._quiet: dict[str, Quiet] = {}
        """By stream, while nothing waits in it."""
        self._upkeep = Upkeep(policy.retain_seconds, time.monotonic())
        self._changed = asyncio.Event()
        self._leaving = False
        self._watchers: set[asyncio.Task[None]] = set()
        self._probe: asyncio.Task[bool] | None = None

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
            now = time.monotonic()
            self._end_overdue(team, now)
            self._start_successors(team, now)
            missing = self._wanted(team, lags) - len(team.started)
            if missing <= 0:
                team.hinted, team.lost = False, 0
            elif now >= team.not_before and await self._may_start(team):
                team.hinted, team.lost = False, 0
                for _ in range(missing):
                    self._start(team)
        if not self._retain.started and self._upkeep.due(time.monotonic()):
            await self._retain_if_wanted()

    async def _may_start(self, team: Team) -> bool:
        # Asked only when it matters: an idle stack asks nobody.
        return team.function != "deliver" or await self._database_is_there()

    async def _retain_if_wanted(self) -> None:
        try:
            handled = await progress(self._connection, STREAMS.values())
        except Unavailable as error:
            logger.debug("pool: %s", error)
            return
        if not self._leaving and self._upkeep.wanted(time.monotonic(), handled):
            self._start(self._retain)

    def _wanted(self, team: Team, lags: Mapping[str, Mapping[Lane, int]]) -> int:
        running, most = len(team.started), self._policy.processes_max
        lag = sum(lags.get(STREAMS[team.function], {}).get(lane, 0) for lane in team.lanes)
        wanted = workers_wanted(lag=lag, running=running, processes_max=most)
        # What ended badly had work, or it would have left by itself.
        return max(wanted, int(team.hinted), min(most, running + team.lost))

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
        nothing happens only the stream is asked, not its 48 consumers. It is believed when it was
        so twice, for a consumer hears of a message a moment after its stream counts it.
        """
        last, now = await last_sequence(self._connection, stream), time.monotonic()
        quiet = self._quiet.get(stream)
        if quiet is not None and quiet.believed and quiet.last == last:
            return {}
        waiting = await consumer_lag(self._connection, stream)
        try:
            lag = {lane: sum(waiting[name] for name in CONSUMERS[stream, lane]) for lane in LANES}
        except KeyError as missing:
            raise Unavailable("nats", f"{stream} has no consumer {missing}") from missing
        if any(lag.values()):
            self._quiet.pop(stream, None)
        elif quiet is None or quiet.last != last:
            self._quiet[stream] = Quiet(last, now, believed=False)
        else:
            believed = now - quiet.since >= LOOK_SECONDS
            self._quiet[stream] = quiet._replace(believed=believed)
        return lag

    def _start(self, team: Team) -> None:
        try:
            worker = self._start_worker(team.function, team.lanes)
        except OSError as error:
            # No memory, or too many processes: later there may be room.
            team.not_before = time.monotonic() + LOOK_SECONDS
            team.hinted = True
            logger.warning("pool: %s cannot be started: %s", team.function, error)
            return
        team.started[worker.pid] = (worker, time.monotonic())
        logger.info("pool: started %s %s, pid %d", team.function, ",".join(team.lanes), worker.pid)
        watcher = asyncio.create_task(self._watch(team, worker), name=f"watch-{worker.pid}")
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    def _end_overdue(self, team: Team, now: float) -> None:
        """A worker leaves by itself at its end; one that does not is stuck in somebody's code."""
        for worker, started_at in list(team.started.values()):
            if now - started_at > self._policy.life_seconds + OVERDUE_SECONDS:
                logger.warning("pool: %s, pid %d, does not leave", team.function, worker.pid)
                worker.kill()

    def _start_successors(self, team: Team, now: float) -> None:
        if self._leaving:
            return
        end = self._policy.life_seconds - SUCCESSOR_LEAD_SECONDS
        for pid, (_, started_at) in list(team.started.items()):
            if now - started_at >= end and pid not in team.succeeded:
                team.succeeded.add(pid)
                self._start(team)

    async def _watch(self, team: Team, worker: Running) -> None:
        code = await worker.wait()
        now = time.monotonic()
        _, started_at = team.started.pop(worker.pid)
        team.succeeded.discard(worker.pid)
        if code == 0 or self._leaving:
            team.crashes = 0
        else:
            quick = now - started_at < CRASHED_WITHIN_SECONDS
            team.crashes = team.crashes + 1 if quick else 1
            killed = code == -signal.SIGKILL
            team.not_before = now + start_delay_seconds(team.crashes, killed=killed)
            logger.warning("pool: %s, pid %d, ended with %d", team.function, worker.pid, code)
            if team is self._retain:
                self._upkeep.failed()
                return
            team.lost += 1
        self._changed.set()

    async def _database_is_there(self) -> bool:
        if self._probe is None and not self._breaker.allows(time.monotonic()):
            return False
        delivering = any(team.started for team in self._teams if team.function == "deliver")
        if self._breaker.state == "closed" and delivering:
            # Its workers know best, and they hold on by themselves.
            return True
        # One that takes long to answer must not keep the pool from all else.
        probe = self._probe or asyncio.create_task(self._ask_database(), name="database")
        self._probe = probe
        await asyncio.wait([probe], timeout=DATABASE_SECONDS_MAX)
        return probe.done() and probe.result()

    async def _ask_database(self) -> bool:
        try:
            with Attempt(self._breaker, time.monotonic, random.random, failures=(Unavailable,)):
                await self._database_answers()
        except Unavailable as error:
            logger.debug("pool: %s", error)
            return False
        else:
            return True
        finally:
            self._probe = None
            self._changed.set()

    def _listen_when_asleep(self) -> None:
        """While a team has no worker, the next message for it that passes by is the hint."""
        for team in self._teams:
            # One that may not be started yet needs no hint: it is looked at each second.
            if not (team.started or team.hints) and self._is_startable(team):
                team.hints = [
                    self._connection.subscribe_direct(subject, self._hint_for(team))
                    for lane in team.lanes
                    for subject in HINTS[team.function](lane)
                ]

    def _is_startable(self, team: Team) -> bool:
        there = team.function != "deliver" or self._breaker.state == "closed"
        return there and team.not_before <= time.monotonic()

    def _hint_for(self, team: Team) -> Handler:
        def passed_by(_subject: bytes, _reply: bytes, _headers: bytes, _payload: bytes) -> None:
            # One is enough: while workers run, messages do not pass through here.
            hints, team.hints = team.hints, []
            for hint in hints:
                self._connection.unsubscribe_now(hint)
            team.hinted = True
            self._changed.set()

        return passed_by

    def _on_wake(self, _subject: bytes, _reply: bytes, _headers: bytes, _payload: bytes) -> None:
        for team in self._teams:
            team.hinted = True
        self._changed.set()

    async def _on_regained(self) -> None:
        # What passed by meanwhile was no hint.
        self._changed.set()

    def _seconds_to_next_look(self) -> float:
        now = time.monotonic()
        waits = [team.not_before - now for team in self._teams if team.not_before > now]
        working = any(team.started for team in self._teams)
        asleep = not working and all(
            stream in self._quiet and self._quiet[stream].believed for stream in STREAMS.values()
        )
        return min([ASLEEP_SECONDS if asleep else LOOK_SECONDS, *waits])

    async def _stop_all(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
        teams = [*self._teams, self._retain]
        children = [child for team in teams for child, _ in team.started.values()]
        stops = [(signal.SIGTERM, WORKER_SETTLE_SECONDS + 1)]
        await asyncio.gather(*(child.stop(stops) for child in children))
