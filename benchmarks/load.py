"""A publisher and a crowd of clients on a stack, each in a process of its own."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self

from benchmarks.clients import (
    Await,
    Behave,
    ComeBack,
    Crowd,
    Cut,
    Judge,
    Manner,
    Taken,
    follow,
)
from benchmarks.load_process import LoadProcess
from benchmarks.measure import LatencyRecorder, Usage, busy_seconds, usage_of
from benchmarks.publisher import Burst, Published, publish
from benchmarks.report import merged
from benchmarks.stack import Stack
from benchmarks.traffic import Traffic
from livefeed.channel import channels_of, client_name
from livefeed.subjects import LANES, Lane

CLIENTS_A_PROCESS_MAX: Final = 12_000
CONNECT_SECONDS_MAX: Final = 180.0
BUSY_PERCENT_MAX: Final = 80
"""Of one core; a load process above it is itself what is slow."""
OTHERS_PERCENT_MAX: Final = 20
"""Of one core, used by programs that are no part of the run."""
LATE_SECONDS_MAX: Final = 0.1
"""A publisher later than this did not keep its schedule."""


@dataclass(slots=True)
class Outcome:
    """What became of a burst, on both sides."""

    published: Published
    latencies: dict[Lane, LatencyRecorder] = field(
        default_factory=lambda: {lane: LatencyRecorder() for lane in LANES}
    )
    deliveries: int = 0
    replayed: int = 0
    reconnects: int = 0
    resets: int = 0
    frames_a_second: int = 0
    """Most frames with updates that one client was sent within a second."""

    @property
    def latency(self) -> LatencyRecorder:
        """Of all lanes together."""
        latency = LatencyRecorder()
        for one in self.latencies.values():
            latency.merge(one)
        return latency

    def notes(self) -> list[str]:
        """What a reader of the latencies has to know of the publisher."""
        return late_notes(self.published)


def late_notes(published: Published) -> list[str]:
    """Says so when a publisher did not keep its schedule."""
    late = published.late
    if late.maximum <= LATE_SECONDS_MAX:
        return []
    return [
        f"the publisher fell behind its schedule by up to {late.maximum:.2f} s (p99 "
        f"{late.percentile(99) * 1e3:.0f} ms); latencies count from the schedule"
    ]


class Load:
    """Publishes and verifies; `async with` connects the clients.

    Args:
        stack: What is loaded.
        traffic: What is published.
        connections: How many clients; where there are more than users, some users have two.
        manners: How they behave, if not all of them read.

    Attributes:
        connect_seconds: From the first handshake until every client was caught up.
    """

    def __init__(
        self,
        stack: Stack,
        traffic: Traffic,
        *,
        connections: int,
        manners: tuple[Manner, ...] = (),
    ) -> None:
        self.connect_seconds = 0.0
        self._stack = stack
        self._traffic = traffic
        self._connections = connections
        self._manners = manners
        self._publisher: LoadProcess
        self._crowd: list[LoadProcess] = []
        self._next = 0
        self._unknown: set[int] = set()
        self._refused: set[int] = set()
        self._processes = AsyncExitStack()

    async def __aenter__(self) -> Self:
        traffic, stack = self._traffic, self._stack
        try:
            for first in range(0, self._connections, CLIENTS_A_PROCESS_MAX):
                stop = min(first + CLIENTS_A_PROCESS_MAX, self._connections)
                crowd = Crowd(
                    traffic, stack.gateway_ports, stack.jwt_secret, first, stop, self._manners
                )
                self._crowd.append(await self._start(LoadProcess(follow, crowd)))
            self.connect_seconds = max(await self._answers(CONNECT_SECONDS_MAX))
            self._publisher = await self._start(LoadProcess(publish, stack.nats_url, traffic))
        except BaseException:
            await self._processes.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._processes.aclose()

    def behave(self) -> None:
        """Have clients of bad manners read and look again."""
        self._tell(Behave())

    def cut(self) -> None:
        """End every connection at once; nobody comes back before `come_back`."""
        self._tell(Cut())

    async def come_back(self, *, spread_seconds: float, seconds_max: float) -> LatencyRecorder:
        """Have all clients connect again, and say how long each took until it was caught up."""
        self._tell(ComeBack(spread_seconds, seconds_max))
        latency = LatencyRecorder()
        for one in await self._answers(seconds_max + 10):
            latency.merge(one)
        return latency

    async def publish(
        self,
        count: int,
        *,
        per_second: float,
        recorded: bool = True,
        uneven: bool = False,
        arrive_seconds: float = 30.0,
    ) -> Outcome:
        """Publish so many updates, and wait until they have arrived everywhere, within a bound.

        With a bound of 0 nobody waits: nobody is there whom they could reach.
        """
        burst = Burst(self._next, count, per_second, recorded, uneven)
        self._next += count
        self._publisher.send(burst)
        published = await self._publisher.receive(timeout_seconds=count / per_second + 60)
        self._unknown |= published.unknown
        self._refused |= published.refused
        if arrive_seconds == 0:
            return Outcome(published)
        self._tell(Await(self._next, arrive_seconds))
        outcome = Outcome(published)
        taken: Taken
        for taken in await self._answers(arrive_seconds + 30):
            for lane, latency in taken.latencies.items():
                outcome.latencies[lane].merge(latency)
            outcome.deliveries += taken.deliveries
            outcome.replayed += taken.replayed
            outcome.reconnects += taken.reconnects
            outcome.resets += taken.resets
            outcome.frames_a_second = max(outcome.frames_a_second, taken.frames_a_second)
        return outcome

    async def judge(self) -> dict[str, int]:
        """The faults since the start by kind; the log's heads are read from PostgreSQL."""
        traffic = self._traffic
        users = [traffic.name(user) for user in range(min(traffic.users, self._connections))]
        channels = {user: channels_of(user, traffic.feed) for user in users}
        every = {channel for pair in channels.values() for channel in pair}
        found = await self._stack.heads(sorted(every))
        heads = {
            user: {client_name(channel): found[channel] for channel in pair}
            for user, pair in channels.items()
        }
        unknown, refused = frozenset(self._unknown), frozenset(self._refused)
        self._tell(Judge(self._next, unknown, refused, heads))
        faults = merged(await self._answers(60.0))
        self._stack.keep |= any(faults.values())
        return faults

    def usage(self) -> dict[str, Usage]:
        """What the load itself has used."""
        return {
            "publisher": usage_of([self._publisher.pid]),
            "clients": usage_of(process.pid for process in self._crowd),
        }

    async def _start(self, process: LoadProcess) -> LoadProcess:
        return await self._processes.enter_async_context(process)

    def _tell(self, command: Await | Behave | ComeBack | Cut | Judge) -> None:
        for process in self._crowd:
            process.send(command)

    async def _answers(self, seconds: float) -> list[Any]:
        waits = (process.receive(timeout_seconds=seconds) for process in self._crowd)
        return await asyncio.gather(*waits)


def others_notes(percent: float) -> list[str]:
    """Says so when programs that are no part of the run used much of a core."""
    if percent <= OTHERS_PERCENT_MAX:
        return []
    return [f"other programs used {percent:.0f} % of a core: measure again"]


class Measured(Protocol):
    """Servers, or a load."""

    def usage(self) -> dict[str, Usage]:
        """What each of its roles has used since it began."""
        ...


class Meter:
    """Measures the CPU of every role, in percent of one core, from its making on.

    Args:
        stack: The servers.
        load: What loads them.
        processes: The pids of more load processes, by role.
    """

    def __init__(self, stack: Measured, load: Measured | None = None, **processes: int) -> None:
        self._stack = stack
        self._load = load
        self._processes = processes
        self._before = self._usage()
        self._busy = busy_seconds()
        self._began = time.perf_counter()

    def percent(self) -> dict[str, float]:
        """By role; `others` is what does not belong to this run."""
        seconds = time.perf_counter() - self._began
        used = {
            role: usage.cpu_seconds - self._before[role].cpu_seconds
            for role, usage in self._usage().items()
        }
        used["others"] = max(0.0, busy_seconds() - self._busy - sum(used.values()))
        return {role: round(100 * value / seconds, 2) for role, value in used.items()}

    def notes(self, percent: dict[str, float]) -> list[str]:
        """What a reader of the figures has to know of the CPU."""
        return [*self.load_notes(percent), *others_notes(percent["others"])]

    def load_notes(self, percent: dict[str, float]) -> list[str]:
        """Says so when a load process was short of CPU itself."""
        return [
            f"the load's {role} used {percent[role]:.0f} % of a core: latencies include its delay"
            for role in self._load_usage()
            if percent[role] > BUSY_PERCENT_MAX
        ]

    def _usage(self) -> dict[str, Usage]:
        own = {"scenario": usage_of([os.getpid()])}
        return {**self._stack.usage(), **self._load_usage(), **own}

    def _load_usage(self) -> dict[str, Usage]:
        more = {role: usage_of([pid]) for role, pid in self._processes.items()}
        return (self._load.usage() if self._load else {}) | more
