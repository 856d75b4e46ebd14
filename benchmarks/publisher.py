"""The publishing side of a load, in a process of its own: a fixed schedule, whatever the answers.

A publisher that waited for slow answers would publish least when the servers are slowest, and the
latencies that it then does not see would be missing from the figures (coordinated omission).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from benchmarks.load_process import Link
from benchmarks.measure import LatencyRecorder
from benchmarks.traffic import clock
from livefeed import subjects
from livefeed.adapters.nats.connection import close, connect
from livefeed.adapters.nats.publish import BATCH_MESSAGES_MAX, Outbound, Publisher
from livefeed.errors import OutcomeUnknown, Unavailable
from livefeed.subjects import Lane

WINDOW: Final = 2_000
"""Publishes without an answer yet; above it the schedule slips, and the report says so."""
AGAIN_SECONDS: Final = 0.2
"""From an attempt that was not accepted to the next one."""
LEAD_SECONDS: Final = 0.1
"""From the command to the first update."""


@dataclass(frozen=True, slots=True)
class Burst:
    """Publish these updates at this rate."""

    first: int
    count: int
    per_second: float
    recorded: bool
    uneven: bool = False
    """Not at equal intervals, so that nothing periodic in the servers is always met or missed."""
    gather_seconds: float = 0.0
    """What is due within such a time goes as one atomic batch, as `livefeed publish` does it with
    what comes fast; 0: each update by itself."""
    patience_seconds: float = 0.0
    """For how long an update that was not accepted is published again, under the same id."""


@dataclass(slots=True)
class Published:
    """What became of a burst."""

    accepted: int = 0
    unknown: set[int] = field(default_factory=set)
    """Numbers whose publish had no answer."""
    refused: set[int] = field(default_factory=set)
    late: LatencyRecorder = field(default_factory=LatencyRecorder)
    """From the scheduled time to the send."""
    acknowledged: LatencyRecorder = field(default_factory=LatencyRecorder)
    """From the first send of an update, or of a batch, to the answer that accepted it."""


class Numbered(Protocol):
    """Updates by number."""

    def update(self, number: int, *, due: int, recorded: bool) -> bytes:
        """An update's JSON."""
        ...

    def priority(self, number: int) -> Lane:
        """What it says of its priority."""
        ...

    def update_id(self, number: int) -> str:
        """Its id."""
        ...


class Due(NamedTuple):
    """One update, and when it has to be published, by the clock."""

    number: int
    due: int


class Post(Protocol):
    """Publishes one update; raises OutcomeUnknown or Unavailable."""

    async def __call__(self, number: int, *, due: int, recorded: bool) -> None:
        """Return when it is accepted."""
        ...


PostTogether = Callable[[Sequence[Due], bool], Awaitable[None]]
"""Publishes several, which are recorded or not, as one; raises as Post does."""


async def publish(link: Link, nats_url: str, traffic: Numbered) -> None:
    """The load: answers each Burst with a Published."""
    connection = await connect([nats_url], name="livefeed-bench-publisher")
    publisher = Publisher(connection)
    publisher.start()

    def message(number: int, due: int, *, recorded: bool) -> Outbound:
        payload = traffic.update(number, due=due, recorded=recorded)
        subject = subjects.updates(traffic.priority(number), "bench")
        return subject, payload, {"Nats-Msg-Id": traffic.update_id(number)}

    async def post(number: int, *, due: int, recorded: bool) -> None:
        await publisher.publish(*message(number, due, recorded=recorded))

    async def together(some: Sequence[Due], recorded: bool) -> None:
        await publisher.publish_batch([message(*one, recorded=recorded) for one in some])

    try:
        while True:
            burst: Burst = await link.receive()
            link.send(await post_all(post, burst, together))
    finally:
        await close(connection)


async def post_all(post: Post, burst: Burst, together: PostTogether | None = None) -> Published:
    """Publish all of a burst on its schedule, and return when each has its answer.

    Args:
        post: Publishes one update.
        burst: What, and when.
        together: Publishes several as one, where the burst gathers.
    """
    return await _Run(post, burst, together).all()


class _Run:
    """One burst."""

    def __init__(self, post: Post, burst: Burst, together: PostTogether | None) -> None:
        self._post = post
        self._together = together
        self._burst = burst
        self._window = asyncio.Semaphore(WINDOW)
        self._random = random.Random(burst.first)
        self._published = Published()

    async def all(self) -> Published:
        """Publish all of them, and return when each has its answer."""
        burst = self._burst
        start = clock() + int(LEAD_SECONDS * 1e9)
        gather = int(burst.gather_seconds * 1e9)
        gathered: list[Due] = []
        async with asyncio.TaskGroup() as tasks:
            for place in range(burst.count):
                shift = self._random.random() / 2 if burst.uneven else 0.0
                due = start + int((place + shift) / burst.per_second * 1e9)
                gathered.append(Due(burst.first + place, due))
                await self._window.acquire()
                full = len(gathered) == BATCH_MESSAGES_MAX or place == burst.count - 1
                if full or due - gathered[0].due >= gather:
                    await until(due)
                    tasks.create_task(self._some(gathered))
                    gathered = []
        return self._published

    async def _some(self, gathered: list[Due]) -> None:
        """Publish these, together if there are several."""
        sent = clock()
        for one in gathered:
            self._published.late.record((sent - one.due) / 1e9)
        if len(gathered) == 1 or not await self._as_one(gathered, sent):
            for one in gathered:
                await self._alone(one, sent)
        for _ in gathered:
            self._window.release()

    async def _as_one(self, gathered: list[Due], sent: int) -> bool:
        if self._together is None:
            return False
        try:
            await self._together(gathered, self._burst.recorded)
        except (OutcomeUnknown, Unavailable):
            # Alone, each gets an answer of its own, and counts once.
            return False
        self._accept(len(gathered), sent)
        return True

    async def _alone(self, one: Due, sent: int) -> None:
        patient_until = clock() + int(self._burst.patience_seconds * 1e9)
        stored = False
        while True:
            try:
                await self._post(one.number, due=one.due, recorded=self._burst.recorded)
            except OutcomeUnknown:
                stored = True
            except Unavailable:
                pass
            else:
                self._accept(1, sent)
                return
            if clock() >= patient_until:
                # Whatever was said later, an attempt without an answer may have stored it.
                failed = self._published.unknown if stored else self._published.refused
                failed.add(one.number)
                return
            await asyncio.sleep(AGAIN_SECONDS)

    def _accept(self, count: int, sent: int) -> None:
        self._published.accepted += count
        self._published.acknowledged.record((clock() - sent) / 1e9)


async def until(due: int) -> None:
    """Return at a time or a little later, never before: a timer may be half a millisecond early."""
    while True:
        wait = due - clock()
        if wait <= 0:
            return
        await asyncio.sleep(wait / 1e9)
