"""The publishing side of a load, in a process of its own: a fixed schedule, whatever the answers.

A publisher that waited for slow answers would publish least when the servers are slowest, and the
latencies that it then does not see would be missing from the figures (coordinated omission).
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Final, Protocol

from benchmarks.load_process import Link
from benchmarks.measure import LatencyRecorder
from benchmarks.traffic import clock
from livefeed import subjects
from livefeed.adapters.nats.connection import close, connect
from livefeed.adapters.nats.publish import Publisher
from livefeed.errors import OutcomeUnknown, Unavailable
from livefeed.subjects import Lane

WINDOW: Final = 2_000
"""Publishes without an answer yet; above it the schedule slips, and the report says so."""
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
    """From the send to the answer, which is JetStream's where nothing else is said."""


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


class Post(Protocol):
    """Publishes one update; raises OutcomeUnknown or Unavailable."""

    async def __call__(self, number: int, *, due: int, recorded: bool) -> None:
        """Return when it is accepted."""
        ...


async def publish(link: Link, nats_url: str, traffic: Numbered) -> None:
    """The load: answers each Burst with a Published."""
    connection = await connect([nats_url], name="livefeed-bench-publisher")
    publisher = Publisher(connection)
    publisher.start()

    async def post(number: int, *, due: int, recorded: bool) -> None:
        payload = traffic.update(number, due=due, recorded=recorded)
        subject = subjects.updates(traffic.priority(number), "bench")
        await publisher.publish(subject, payload, {"Nats-Msg-Id": traffic.update_id(number)})

    try:
        while True:
            burst: Burst = await link.receive()
            link.send(await post_all(post, burst))
    finally:
        await close(connection)


async def post_all(post: Post, burst: Burst) -> Published:
    """Publish all of a burst on its schedule, and return when each has its answer."""
    return await _Run(post, burst).all()


class _Run:
    """One burst."""

    def __init__(self, post: Post, burst: Burst) -> None:
        self._post = post
        self._burst = burst
        self._window = asyncio.Semaphore(WINDOW)
        self._random = random.Random(burst.first)
        self._published = Published()

    async def all(self) -> Published:
        """Publish all of them, and return when each has its answer."""
        burst = self._burst
        start = clock() + int(LEAD_SECONDS * 1e9)
        async with asyncio.TaskGroup() as tasks:
            for place in range(burst.count):
                shift = self._random.random() / 2 if burst.uneven else 0.0
                due = start + int((place + shift) / burst.per_second * 1e9)
                await until(due)
                await self._window.acquire()
                tasks.create_task(self._one(burst.first + place, due))
        return self._published

    async def _one(self, number: int, due: int) -> None:
        published = self._published
        sent = clock()
        published.late.record((sent - due) / 1e9)
        try:
            await self._post(number, due=due, recorded=self._burst.recorded)
        except OutcomeUnknown:
            published.unknown.add(number)
        except Unavailable:
            published.refused.add(number)
        else:
            published.accepted += 1
            published.acknowledged.record((clock() - sent) / 1e9)
        finally:
            self._window.release()


async def until(due: int) -> None:
    """Return at a time or a little later, never before: a timer may be half a millisecond early."""
    while True:
        wait = due - clock()
        if wait <= 0:
            return
        await asyncio.sleep(wait / 1e9)
