"""A million updates while workers are killed, exact; then the same million again, for nothing."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from benchmarks.comparison import compare, heads
from benchmarks.corpus import PAST_SECONDS, Corpus
from benchmarks.drain import drain, lag
from benchmarks.flood import Flood, Flooded, flood
from benchmarks.load import Meter
from benchmarks.load_process import LoadProcess
from benchmarks.reference import Reference
from benchmarks.report import Goal, Report, merged
from benchmarks.scenario import SHORT_WINDOWS, Options, Scenario
from benchmarks.stack import Stack
from benchmarks.units import PER_SECOND
from benchmarks.watch import Count, Counted, JudgeViews, Watch, watch
from livefeed.adapters.nats.connection import close
from livefeed.channel import user_channel
from livefeed.topology import UPDATES

NAME: Final = "million"
NOTHING: Final = Goal("=", 0)
ARRIVE_SECONDS_MAX: Final = 30.0
"""From a drained stack to clients that are at their heads: a lost push waits for a head check."""
LOOK_SECONDS: Final = 0.2
VICTIM_SECONDS_MIN: Final = 1.0
"""A younger worker is spared: if each died before its first message, nothing would ever be done."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is published, and how often a worker dies."""

    updates: int = 1_000_000
    users: int = 50_000
    items: int = 12
    clients: int = 200
    """Of as many users."""
    processes: int = 1
    """Workers of each function at most."""
    kill_seconds: float = 3.0
    kills_max: int = 10_000
    """Each kill has what a worker held come again later: a short run ends with the last of it."""
    seconds_max: float = 1800.0
    """A part that takes longer fails."""


QUICK: Final = Sizes(
    updates=20_000, users=1_000, clients=100, kill_seconds=1.0, kills_max=5, seconds_max=180
)


async def run(options: Options) -> Report:
    """Publish twice, and look at the log and at clients after each time."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    corpus = Corpus(
        options.seed, sizes.users, sizes.items, 1, int(time.time()) - PAST_SECONDS, NAME
    )
    options.say("starting the servers")
    settings = options.settings(sizes, quick=SHORT_WINDOWS)
    async with Stack(settings=settings) as stack, AsyncExitStack() as processes:
        await stack.start_pool(worker_processes_max=sizes.processes)
        publisher = LoadProcess(flood, stack.nats_url, corpus)
        port = stack.gateway_ports[0]
        watcher = LoadProcess(watch, Watch(corpus, sizes.clients, port, stack.jwt_secret))
        for process in (publisher, watcher):
            await processes.enter_async_context(process)
        await watcher.receive()
        one = _Run(stack, corpus, sizes, options, publisher, watcher)
        loads = {"publisher": publisher.pid, "clients": watcher.pid}
        meter = Meter(stack, processes=loads)
        await one.first()
        meter.read().add_to(one.report)
        await one.again()
        stack.keep |= not one.report.ok
    one.report.add("processes", sizes.processes)
    return one.report


class _Run:
    """One run on a stack."""

    def __init__(
        self,
        stack: Stack,
        corpus: Corpus,
        sizes: Sizes,
        options: Options,
        publisher: LoadProcess,
        watcher: LoadProcess,
    ) -> None:
        self.report = Report(NAME)
        self._stack = stack
        self._corpus = corpus
        self._sizes = sizes
        self._options = options
        self._publisher = publisher
        self._watcher = watcher
        self._random = random.Random(options.seed)
        self._reference = Reference(corpus, range(sizes.updates))

    async def first(self) -> None:
        """Publish while workers die; the log and the clients have to be exact."""
        sizes, report = self._sizes, self.report
        self._options.say(f"publishing {sizes.updates:,} updates while workers are killed")
        began = time.perf_counter()
        flooded, kills = await asyncio.gather(self._publish(again=False), self._kill())
        await drain(self._stack, seconds_max=sizes.seconds_max)
        seconds = time.perf_counter() - began
        report.add("seconds", round(seconds, 2), "s")
        report.add("updates_per_second", round(sizes.updates / seconds), PER_SECOND)
        report.add("published_per_second", round(sizes.updates / flooded.seconds), PER_SECOND)
        report.add("kills", kills)
        self._options.say("comparing the log with the model")
        await compare(self._stack, self._reference, report)
        self._options.say("comparing the clients with the model")
        await self._judge()

    async def again(self) -> None:
        """Publish the same bytes as if they were new; nothing may come of it."""
        sizes, report = self._sizes, self.report
        before, counted = await self._heads(), await self._count()
        self._options.say(f"publishing the same {sizes.updates:,} again")
        began = time.perf_counter()
        await self._publish(again=True)
        await drain(self._stack, seconds_max=sizes.seconds_max)
        report.add("seconds_again", round(time.perf_counter() - began, 2), "s")
        after, recounted = await self._heads(), await self._count()
        moved = len(before.items() ^ after.items())
        report.add("heads_moved_again", moved, "", NOTHING)
        frames = recounted.frames - counted.frames
        report.add("frames_again", frames, "", NOTHING)
        wrong = {"inexact": moved, "doubled": recounted.updates - counted.updates}
        report.faults = merged([report.faults, wrong])
        await self._judge()

    async def _publish(self, *, again: bool) -> Flooded:
        self._publisher.send(Flood(0, self._sizes.updates, again))
        answer: Flooded = await self._publisher.receive(timeout_seconds=self._sizes.seconds_max)
        return answer

    async def _kill(self) -> int:
        """Kill a random worker now and then until every update is in the lanes; says how many."""
        kills = 0
        connection = await self._stack.connect("livefeed-bench")
        try:
            await asyncio.sleep(self._sizes.kill_seconds)
            while kills < self._sizes.kills_max and await lag(connection, UPDATES):
                if workers := self._stack.workers(seconds_min=VICTIM_SECONDS_MIN):
                    os.kill(self._random.choice(workers), signal.SIGKILL)
                    kills += 1
                await asyncio.sleep(self._sizes.kill_seconds)
        finally:
            await close(connection)
        return kills

    async def _judge(self) -> None:
        """Compare what the clients hold, once they are where the log is."""
        found = await self._heads()
        users = [self._corpus.user(number) for number in range(self._sizes.clients)]
        channels = {user: user_channel(user, self._corpus.feed) for user in users}
        at = {user: found.get(channel, (0, 0))[0] for user, channel in channels.items()}
        for _ in range(round(ARRIVE_SECONDS_MAX / LOOK_SECONDS)):
            if (await self._count()).positions == at:
                break
            await asyncio.sleep(LOOK_SECONDS)
        wanted = {
            user: {
                place: standing.order
                for place, standing in self._reference.standings(channel).items()
            }
            for user, channel in channels.items()
        }
        self._watcher.send(JudgeViews(wanted, at))
        self.report.faults = merged([self.report.faults, await self._watcher.receive()])

    async def _count(self) -> Counted:
        self._watcher.send(Count())
        counted: Counted = await self._watcher.receive()
        return counted

    async def _heads(self) -> Mapping[str, tuple[int, int]]:
        async with self._stack.database() as pool:
            return await heads(pool)


SCENARIO: Final = Scenario(
    NAME, "A million updates while workers are killed; then the same again, for nothing.", run
)
