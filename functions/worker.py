"""The worker: a short-lived process that runs one function. The only loop.

It pulls, reads, hands due lanes to the function, high beside the others, settles, and leaves: when
idle, at the end of its life, above its memory cap, or when told to. While the function's dependency
is down it holds what it has and pulls nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, cast

from functions.fleet_load import FleetLoad
from functions.function import Function, Undone
from functions.intake import Held, Intake
from functions.lag import Lag
from functions.life import Summary, WorkerPolicy
from functions.peers import Peers
from functions.pulls import Pulls
from functions.schedule import Schedule
from functions.settling import REFUSED_MAX, Settling
from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.publish import Publisher
from livefeed.adapters.nats.pull import Message
from livefeed.adapters.resources import memory_bytes
from livefeed.breaker import Breaker
from livefeed.errors import (
    LivefeedError,
    OutcomeUnknown,
    Unavailable,
    UpdateRefused,
)
from livefeed.limits import (
    DELIVERIES_MAX,
    ISOLATE_DELIVERIES,
    MIB,
    WORKER_SETTLE_SECONDS,
)
from livefeed.subjects import LANES, Lane
from livefeed.topology import Consumer

logger = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.25
CANCEL_SECONDS_MAX: Final = 0.5
MEMORY_GRACE_SECONDS: Final = 5.0
"""A worker does something before it leaves for its memory, or a cap that is too low would only
start others."""
DEAD_LETTERS: Final = "dead letters"
"""The task that puts messages aside, beside those named after lanes."""


class Worker:
    """Runs one function until it is time to leave.

    Args:
        function: What to do with messages.
        connection: NATS.
        publisher: For dead letters and for the last acknowledgement of a batch.
        policy: When to leave.
        clock: Monotonic seconds.
        now_microseconds: Microseconds since 1970.
        bulk: Where medium and low are pulled: with a connection of their own, a high message never
            waits in a socket behind their backlog.
        lanes: What it serves; others serve the rest.
        load: What the gateways say of their load.
    """

    def __init__(
        self,
        function: Function,
        connection: Connection,
        publisher: Publisher,
        policy: WorkerPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        now_microseconds: Callable[[], int] = lambda: time.time_ns() // 1000,
        bulk: Connection | None = None,
        lanes: Sequence[Lane] = LANES,
        load: FleetLoad | None = None,
    ) -> None:
        self.id = f"{function.name}-{secrets.token_hex(6)}"
        self.summary = Summary(function.name, self.id)
        self._function = function
        self._connections = [connection, bulk or connection]
        self._policy = policy
        self._clock = clock
        self._now = now_microseconds
        # Who is called once is not called to wait.
        self._intake = Intake(dict.fromkeys(LANES, 0.0) if policy.once else function.windows)
        self._pulls = Pulls(
            {lane: connection if lane == "high" else bulk or connection for lane in LANES},
            receive=self._receive,
            wanted=self._wants,
            clock=clock,
            once=policy.once,
        )
        self._breaker = Breaker()
        self._schedule = Schedule(self._intake, self._breaker)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """What runs now: at most one for each place of the schedule, and one for dead letters."""
        self._wake = asyncio.Event()
        self._rests_until = 0.0
        self._leave_reason: str | None = None
        self._active_at = self._started_at = clock()
        self._ticked_at = -TICK_SECONDS
        self._lanes = tuple(lanes)
        self._peers = Peers(connection, function.name, self.id, self._lanes, clock=clock)
        self._settling = Settling(connection, publisher, self.summary, clock=clock)
        self._load = load or FleetLoad(clock=clock)
        self._lag = Lag()

    def leave(self, reason: str) -> None:
        """Stop taking, finish what is due, settle, return from `run`."""
        self._leave_reason = self._leave_reason or reason
        self._wake.set()

    async def run(self) -> Summary:
        """Work until it is time to leave."""
        self._peers.listen()
        self._load.listen(self._connections[0])
        for connection in set(self._connections):
            self._watch(connection)
        alive = asyncio.create_task(self._settling.keep_alive(), name="keep-alive")
        try:
            while self._leave_reason is None:
                await self._step()
            await self._drain()
        finally:
            alive.cancel()
            self._settling.give_back_all()
            await self._cancel()
        self._summarise()
        return self.summary

    def _watch(self, connection: Connection) -> None:
        async def lost() -> None:
            self._pulls.lost(connection)

        async def regained() -> None:
            self._wake.set()
            self._pulls.ask()

        connection.when_lost(lost)
        connection.when_regained(regained)

    async def _step(self) -> None:
        """Start what is due, and wait for a message, an end, a due time, or a tick."""
        now = self._clock()
        if now - self._ticked_at >= TICK_SECONDS:
            await self._tick(now)
        self._start_due(now)
        await self._rest(now)
        self._reap()

    def _start_due(self, now: float) -> None:
        while (lane := self._schedule.next(now)) is not None:
            self._start(lane, self._handle(self._take(lane), lane))
        if self._settling.dead_letter_due(now) and DEAD_LETTERS not in self._tasks:
            self._start(DEAD_LETTERS, self._settling.dead_letter_one())

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[name] = asyncio.create_task(work, name=name)
        task.add_done_callback(lambda _: self._wake.set())

    def _reap(self) -> None:
        """Forget what has ended; an error that nobody thought of ends the worker."""
        for name in [name for name, task in self._tasks.items() if task.done()]:
            if name != DEAD_LETTERS:
                self._schedule.ended(cast(Lane, name))
                # There is room again; and what it published may be for this very worker.
                self._pulls.ask_once_more()
            self._tasks.pop(name).result()

    def _take(self, lane: Lane) -> list[Held]:
        function = self._function
        return self._intake.lanes[lane].take(
            rows_max=function.rows_max, bytes_max=function.bytes_max
        )

    async def _rest(self, now: float) -> None:
        due_at = self._schedule.look_at()
        seconds = TICK_SECONDS if due_at is None else min(TICK_SECONDS, max(0.0, due_at - now))
        self._rests_until = now + seconds
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _tick(self, now: float) -> None:
        """Everything that is done a few times a second, whatever the load."""
        self._ticked_at = now
        self._peers.announce(now, self._say_lag)
        self._intake.lanes["low"].widen(self._load.low_window_factor)
        self._pulls.serve(self._sources(now))
        self._pulls.ask()
        self._consider_leaving(now)

    def _say_lag(self) -> float:
        return self._lag.say(self._intake.lanes["high"].oldest(), self._now())

    def _sources(self, now: float) -> list[tuple[Lane, Consumer]]:
        # Who is called once is not called to wait.
        paused = not self._policy.once and self._load.pauses_low
        return [
            (lane, consumer)
            for served in self._lanes
            if not (paused and served == "low")
            for lane, consumer in self._function.sources(self._peers.partitions(served, now))
            if lane == served
        ]

    def _wants(self, lane: Lane) -> bool:
        busy = self._breaker.state != "closed" or self._settling.refused > REFUSED_MAX
        return self._intake.lanes[lane].has_room and not busy and not self._leave_reason

    def _receive(self, message: Message, lane: Lane) -> None:
        now = self._clock()
        self._active_at = now
        if not self._settling.take(message, lane):
            return
        try:
            if message.deliveries >= DELIVERIES_MAX:
                detail = f"delivered {message.deliveries} times: it kills its workers"
                raise UpdateRefused("too_many_deliveries", detail)
            work = self._function.read(message)
        except UpdateRefused as refused:
            self._refuse(message, refused)
            return
        except Exception as error:
            # Whatever it is, this message does it every time: put it aside with what it did.
            logger.exception("%s cannot read a message", self.id)
            detail = f"it cannot be read: {error!r}"
            self._refuse(message, UpdateRefused("invalid_update", detail))
            return
        age_seconds = (self._now() - work.accepted_at) / 1e6
        self._intake.lanes[lane].add(work, now=now, age_seconds=age_seconds)
        due_at = self._schedule.look_at()
        if due_at is not None and due_at < self._rests_until:
            self._wake.set()

    def _refuse(self, message: Message, refused: UpdateRefused) -> None:
        self._settling.refuse(message, refused)
        self._wake.set()

    async def _handle(self, taken: list[Held], lane: Lane) -> None:
        works = [held.work for held in taken]
        try:
            undone = await self._function.handle(works)
        except (Unavailable, OutcomeUnknown) as error:
            self._hold(taken, lane, error)
            return
        except UpdateRefused as refused:
            self._breaker.succeeded()
            if len(taken) == 1:
                self._settling.refuse(works[0].message, refused)
            else:
                await self._bisect(taken, lane)
            return
        except Exception:
            logger.exception("%s failed in a way that nobody thought of", self.id)
            self._breaker.succeeded()
            await self._suspect(taken, lane)
            return
        except BaseException:
            # Told to stop in the middle: they are still ours to hand over.
            self._intake.lanes[lane].put_back(taken)
            raise
        self._breaker.succeeded()
        self._intake.lanes[lane].succeeded()
        self._active_at = self._clock()
        if undone:
            taken = self._set_aside(taken, lane, undone)
        if lane == "high":
            self._lag.handled(taken, self._now())
        self.summary.calls += 1
        self.summary.handled += len(taken)
        self.summary.rows += sum(held.work.rows for held in taken)
        self.summary.lanes[lane] = self.summary.lanes.get(lane, 0) + len(taken)
        if taken:
            await self._settling.acknowledge([held.work.message for held in taken])

    def _set_aside(self, taken: list[Held], lane: Lane, undone: Sequence[Undone]) -> list[Held]:
        """See to what a call did not get done; returns what it did."""
        left = {one.work.message.key: one.why for one in undone}
        for held in taken:
            why = left.get(held.work.message.key)
            if isinstance(why, UpdateRefused):
                self._settling.refuse(held.work.message, why)
            elif why is not None:
                self._settling.delay(held.work.message)
                self.summary.retried += 1
        later = [held for held in taken if left.get(held.work.message.key, held) is None]
        self._intake.lanes[lane].put_first(later)
        return [held for held in taken if held.work.message.key not in left]

    def _hold(self, taken: list[Held], lane: Lane, error: LivefeedError) -> None:
        """The dependency is down: keep the messages, try later, pull nothing meanwhile."""
        self._intake.lanes[lane].put_back(taken)
        self._breaker.failed(self._clock(), jitter=random.random())
        self.summary.retried += len(taken)
        logger.warning("%s holds %d messages: %s", self.id, len(self._intake), error)

    async def _suspect(self, taken: list[Held], lane: Lane) -> None:
        """One of them makes the code fail: it comes again, and in the end is put aside."""
        if len(taken) > 1:
            await self._bisect(taken, lane)
            return
        message = taken[0].work.message
        if message.deliveries < ISOLATE_DELIVERIES:
            self.summary.retried += 1
            self._settling.delay(message)
            return
        detail = "it makes its worker fail each time; the worker's log says how"
        self._settling.refuse(message, UpdateRefused(self._function.failure, detail))

    async def _bisect(self, taken: list[Held], lane: Lane) -> None:
        """Do halves of what cannot be done together."""
        half = len(taken) // 2
        await self._handle(taken[:half], lane)
        if self._breaker.state == "closed":
            await self._handle(taken[half:], lane)
        else:
            self._intake.lanes[lane].put_back(taken[half:])

    def _consider_leaving(self, now: float) -> None:
        empty = not self._intake and not self._settling.refused and not self._tasks
        once = self._policy.once and self._pulls.exhausted
        if any(connection.closed_for_good.is_set() for connection in self._connections):
            self.leave("nats connection closed")
        elif now - self._started_at >= self._policy.life_seconds:
            self.leave("end of life")
        elif empty and (once or now - self._active_at >= self._policy.idle_seconds):
            self.leave("idle")
        elif now - self._started_at < MEMORY_GRACE_SECONDS:
            return
        elif memory_bytes() > self._policy.memory_bytes_max:
            self.leave("memory")

    async def _drain(self) -> None:
        """Hand over: nobody waits for what this worker has in hand."""
        try:
            async with asyncio.timeout(WORKER_SETTLE_SECONDS - 2):
                self._peers.announce_leaving()
                await self._pulls.stop()
                while self._tasks or self._has_more():
                    if self._has_more():
                        # Nothing gathers any more.
                        self._start_due(math.inf)
                    await asyncio.wait(self._tasks.values(), return_when="FIRST_COMPLETED")
                    self._reap()
        except TimeoutError:
            logger.warning("%s: not everything could be settled in time", self.id)

    def _has_more(self) -> bool:
        handled = bool(self._intake) and self._breaker.state == "closed"
        return handled or bool(self._settling.refused)

    async def _cancel(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            # A call whose database does not answer may take long to notice.
            await asyncio.wait(self._tasks.values(), timeout=CANCEL_SECONDS_MAX)

    def _summarise(self) -> None:
        self.summary.reason = self._leave_reason or ""
        self.summary.seconds = round(self._clock() - self._started_at, 3)
        self.summary.memory_mib = round(memory_bytes() / MIB, 1)
