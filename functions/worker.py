"""The worker: a short-lived process that runs one function. The only loop.

It pulls, reads, hands due lanes to the function, settles, and leaves: when idle, at the end of its
life, above its memory cap, or when told to. While the function's dependency is down it holds what
it has and pulls nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import resource
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from functions.function import Function, Work
from functions.intake import Held, Intake
from functions.life import Summary, WorkerPolicy
from livefeed import subjects
from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.publish import Publisher
from livefeed.adapters.nats.pull import Message, Pull
from livefeed.breaker import Breaker
from livefeed.errors import (
    DeadLetterReason,
    LivefeedError,
    OutcomeUnknown,
    Unavailable,
    UpdateRefused,
)
from livefeed.headers import kept
from livefeed.limits import (
    ANNOUNCE_SECONDS,
    DELIVERIES_MAX,
    MIB,
    WORKER_MEMORY_BYTES_MAX,
    WORKER_SETTLE_SECONDS,
)
from livefeed.partition import alive, served_by
from livefeed.subjects import LANES, Lane
from livefeed.topology import ACK_WAIT_SECONDS, Consumer

logger = logging.getLogger(__name__)

PULL_MESSAGES: Final = 256
PULL_BYTES: Final = 2 * MIB
"""More than the largest message, or the server would refuse to send it."""
TICK_SECONDS: Final = 0.25
DEAD_LETTER_PAUSE_SECONDS: Final = 2.0
"""How long no dead letter is tried after one could not be stored."""
REFUSED_MAX: Final = 100
"""Messages that wait to be dead-lettered; above it nothing more is asked for."""


class Worker:
    """Runs one function until it is time to leave.

    Args:
        function: What to do with messages.
        connection: NATS.
        publisher: For dead letters and for the last acknowledgement of a batch.
        policy: When to leave.
        clock: Monotonic seconds.
        now_microseconds: Microseconds since 1970.
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
    ) -> None:
        self.id = f"{function.name}-{secrets.token_hex(6)}"
        self.summary = Summary(function.name, self.id)
        self._function = function
        self._connection = connection
        self._publisher = publisher
        self._policy = policy
        self._clock = clock
        self._now = now_microseconds
        self._intake = Intake(function.windows)
        self._pulls: dict[str, Pull] = {}
        self._heard: dict[str, float] = {}
        self._breaker = Breaker()
        self._wake = asyncio.Event()
        self._leave_reason: str | None = None
        self._active_at = self._started_at = clock()
        self._announced_at = self._ticked_at = -ANNOUNCE_SECONDS
        self._refused: deque[tuple[Message, UpdateRefused]] = deque()
        self._in_hand: dict[str, tuple[Lane, Message]] = {}
        """By stream and sequence, until it is settled: a redelivery meanwhile says nothing new."""
        self._kept_alive_at: dict[Lane, float] = dict.fromkeys(LANES, self._started_at)
        self._dead_letters_at = 0.0

    def leave(self, reason: str) -> None:
        """Stop taking, finish what is due, settle, return from `run`."""
        self._leave_reason = self._leave_reason or reason
        self._wake.set()

    async def run(self) -> Summary:
        """Work until it is time to leave."""
        subject = subjects.control_workers(self._function.name)
        self._connection.subscribe_direct(subject, self._on_announcement)
        self._connection.when_lost(self._on_lost)
        self._connection.when_regained(self._on_regained)
        alive = asyncio.create_task(self._keep_alive(), name="keep-alive")
        try:
            while self._leave_reason is None:
                await self._step()
            await self._drain()
        finally:
            alive.cancel()
        self._summarise()
        return self.summary

    async def _step(self) -> None:
        """Handle what is due, or wait for a message, a due time, or a tick."""
        now = self._clock()
        if now - self._ticked_at >= TICK_SECONDS:
            await self._tick(now)
        lane = self._intake.due(now)
        refused = bool(self._refused) and now >= self._dead_letters_at
        if refused:
            await self._dead_letter_one()
        if lane is not None and self._breaker.allows(now):
            await self._handle(self._take(lane), lane)
        elif not refused:
            await self._rest(now)

    def _take(self, lane: Lane) -> list[Held]:
        function = self._function
        return self._intake.lanes[lane].take(
            rows_max=function.rows_max, bytes_max=function.bytes_max
        )

    async def _rest(self, now: float) -> None:
        self._wake.clear()
        due_at = self._intake.next_due_at()
        if due_at is not None and self._breaker.state != "closed":
            due_at = self._breaker.retry_at()
        seconds = TICK_SECONDS if due_at is None else min(TICK_SECONDS, max(0.0, due_at - now))
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _tick(self, now: float) -> None:
        """Everything that is done a few times a second, whatever the load."""
        self._ticked_at = now
        if now - self._announced_at >= ANNOUNCE_SECONDS:
            self._announced_at = now
            self._announce(leaving=False)
        await self._assign(now)
        for pull in self._pulls.values():
            pull.ask()
        self._consider_leaving(now)
        # Other tasks run even when there is always something due.
        await asyncio.sleep(0)

    def _announce(self, *, leaving: bool) -> None:
        text = json.dumps({"worker": self.id, "leaving": leaving})
        self._connection.send(subjects.control_workers(self._function.name), text.encode())

    def _on_announcement(
        self, _subject: bytes, _reply: bytes, _headers: bytes, payload: bytes
    ) -> None:
        try:
            said = json.loads(payload)
            worker, leaving = str(said["worker"]), bool(said["leaving"])
        except (ValueError, KeyError, TypeError):
            return
        if leaving:
            self._heard.pop(worker, None)
        else:
            self._heard[worker] = self._clock()

    async def _assign(self, now: float) -> None:
        """Pull what this worker serves, and nothing else."""
        others = alive(self._heard, now)
        self._heard = {worker: at for worker, at in self._heard.items() if worker in others}
        wanted = {
            consumer.name: (lane, consumer)
            for lane, consumer in self._function.sources(served_by(self.id, others))
        }
        lost = [name for name in self._pulls if name not in wanted]
        await asyncio.gather(*(self._pulls.pop(name).stop() for name in lost))
        for name, (lane, consumer) in wanted.items():
            if name not in self._pulls:
                self._pulls[name] = self._pull(lane, consumer)
                self._pulls[name].start()

    def _pull(self, lane: Lane, consumer: Consumer) -> Pull:
        intake = self._intake.lanes[lane]

        def receive(message: Message) -> None:
            self._receive(message, lane)

        def wanted() -> bool:
            busy = self._breaker.state != "closed" or len(self._refused) > REFUSED_MAX
            return intake.has_room and not busy and not self._leave_reason

        return Pull(
            self._connection,
            consumer,
            batch=PULL_MESSAGES,
            batch_bytes=PULL_BYTES,
            on_message=receive,
            wanted=wanted,
            clock=self._clock,
        )

    def _receive(self, message: Message, lane: Lane) -> None:
        now = self._clock()
        self._active_at = now
        self._wake.set()
        if message.key in self._in_hand:
            return
        self._in_hand[message.key] = lane, message
        try:
            if message.deliveries >= DELIVERIES_MAX:
                detail = f"delivered {message.deliveries} times: it kills its workers"
                raise UpdateRefused("too_many_deliveries", detail)
            work = self._function.read(message)
        except UpdateRefused as refused:
            self._refused.append((message, refused))
            return
        except Exception as error:
            # Whatever it is, this message does it every time: put it aside with what it did.
            logger.exception("%s cannot read a message", self.id)
            detail = f"it cannot be read: {error!r}"
            self._refused.append((message, UpdateRefused("invalid_update", detail)))
            return
        age_seconds = (self._now() - work.accepted_at) / 1e6
        self._intake.lanes[lane].add(work, now=now, age_seconds=age_seconds)

    async def _handle(self, taken: list[Held], lane: Lane) -> None:
        works = [held.work for held in taken]
        try:
            await self._function.handle(works)
        except (Unavailable, OutcomeUnknown) as error:
            self._hold(taken, lane, error)
            return
        except UpdateRefused as refused:
            self._breaker.succeeded()
            await self._bisect(taken, lane, refused)
            return
        except BaseException:
            # Told to stop in the middle: they are still ours to hand over.
            self._intake.lanes[lane].put_back(taken)
            raise
        self._breaker.succeeded()
        self._active_at = self._clock()
        self.summary.calls += 1
        self.summary.handled += len(works)
        self.summary.rows += sum(work.rows for work in works)
        self.summary.lanes[lane] = self.summary.lanes.get(lane, 0) + len(works)
        await self._acknowledge(works)

    def _hold(self, taken: list[Held], lane: Lane, error: LivefeedError) -> None:
        """The dependency is down: keep the messages, try later, pull nothing meanwhile."""
        self._intake.lanes[lane].put_back(taken)
        self._breaker.failed(self._clock(), jitter=random.random())
        self.summary.retried += len(taken)
        logger.warning("%s holds %d messages: %s", self.id, len(self._intake), error)

    async def _bisect(self, taken: list[Held], lane: Lane, refused: UpdateRefused) -> None:
        """One of them can never be handled: halve until it is alone."""
        if len(taken) == 1:
            self._refused.append((taken[0].work.message, refused))
            return
        half = len(taken) // 2
        await self._handle(taken[:half], lane)
        await self._handle(taken[half:], lane)

    async def _acknowledge(self, works: list[Work]) -> None:
        for work in works:
            self._in_hand.pop(work.message.key, None)
        for work in works[:-1]:
            self._connection.send(work.message.reply, b"+ACK")
        # Acks of one connection are processed in order: the last one's answer speaks for all.
        try:
            await self._publisher.request(works[-1].message.reply, b"+ACK", seconds=2.0)
        except LivefeedError:
            # They will be delivered again, and change nothing.
            logger.debug("%s: acknowledgements may be lost", self.id)

    async def _dead_letter_one(self) -> None:
        """Put one message aside; when that fails, hand the others back and wait a while."""
        message, refused = self._refused.popleft()
        if not await self._dead_letter(message, refused):
            self._dead_letters_at = self._clock() + DEAD_LETTER_PAUSE_SECONDS
            self._return([message, *(waiting for waiting, _ in self._refused)])
            self._refused.clear()

    async def _dead_letter(self, message: Message, refused: UpdateRefused) -> bool:
        """Put a message aside with its origin; only then take it from the consumer."""
        reason: DeadLetterReason = refused.reason
        headers = {
            "Nats-Msg-Id": message.key,
            "Livefeed-Reason": reason,
            "Livefeed-Error": refused.detail[:512],
            "Livefeed-Subject": message.subject,
            "Livefeed-Stream": message.stream,
            "Livefeed-Sequence": str(message.sequence),
            **kept(message.header, stored_at=message.stored_at),
        }
        try:
            await self._publisher.publish(subjects.dead_letters(reason), message.payload, headers)
        except (Unavailable, OutcomeUnknown) as error:
            logger.warning("%s: a dead letter waits for redelivery: %s", self.id, error)
            return False
        self._in_hand.pop(message.key, None)
        self._connection.send(message.reply, b"+TERM " + reason.encode())
        self.summary.dead_lettered += 1
        return True

    def _return(self, messages: Iterable[Message]) -> None:
        """Have messages delivered again, to whoever asks."""
        for message in messages:
            self._in_hand.pop(message.key, None)
            self._connection.send(message.reply, b"-NAK")

    async def _keep_alive(self) -> None:
        """Tell the server that what is in hand is in good hands, also while a call runs."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = self._clock()
            for lane, kept_at in self._kept_alive_at.items():
                if now - kept_at >= ACK_WAIT_SECONDS[lane] / 3:
                    self._kept_alive_at[lane] = now
                    for held_in, message in self._in_hand.values():
                        if held_in == lane:
                            self._connection.send(message.reply, b"+WPI")

    def _consider_leaving(self, now: float) -> None:
        empty = not self._intake and not self._refused
        idle_seconds = TICK_SECONDS if self._policy.once else self._policy.idle_seconds
        if self._connection.closed_for_good.is_set():
            self.leave("nats connection closed")
        elif now - self._started_at >= self._policy.life_seconds:
            self.leave("end of life")
        elif empty and now - self._active_at >= idle_seconds:
            self.leave("idle")
        elif _memory_bytes() > WORKER_MEMORY_BYTES_MAX:
            self.leave("memory")

    async def _on_lost(self) -> None:
        for pull in self._pulls.values():
            pull.lost()

    async def _on_regained(self) -> None:
        self._wake.set()
        for pull in self._pulls.values():
            pull.ask()

    async def _drain(self) -> None:
        """Hand over: nobody waits for what this worker has in hand."""
        try:
            async with asyncio.timeout(WORKER_SETTLE_SECONDS - 1):
                self._announce(leaving=True)
                await asyncio.gather(*(pull.stop() for pull in self._pulls.values()))
                for lane, intake in self._intake.lanes.items():
                    while intake and self._breaker.state == "closed":
                        await self._handle(self._take(lane), lane)
                while self._refused:
                    await self._dead_letter_one()
        except TimeoutError:
            logger.warning("%s: not everything could be settled in time", self.id)
        self._return([message for _, message in self._in_hand.values()])

    def _summarise(self) -> None:
        self.summary.reason = self._leave_reason or ""
        self.summary.seconds = round(self._clock() - self._started_at, 3)
        self.summary.memory_mib = round(_memory_bytes() / MIB, 1)


def _memory_bytes() -> int:
    """Largest memory that this process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
