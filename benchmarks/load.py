"""A publisher and a crowd of clients on a stack, each in a process of its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self

from benchmarks.clients import follow
from benchmarks.crowd import (
    Await,
    Away,
    Behave,
    Churn,
    ComeBack,
    Crowd,
    Cut,
    Judge,
    Manner,
    Taken,
)
from benchmarks.load_process import LoadProcess
from benchmarks.measure import LatencyRecorder, Usage, busy_seconds, usage_of
from benchmarks.publisher import Burst, Published, publish
from benchmarks.report import Report, merged
from benchmarks.stack import Stack
from benchmarks.traffic import Traffic
from benchmarks.units import CORE, LOAD_CORE
from livefeed.channel import channels_of, client_name
from livefeed.limits import MIB
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
    slots: dict[tuple[Lane, int], LatencyRecorder] = field(default_factory=dict)
    """Latencies by lane and by the period in which the update was due."""
    slot_seconds: float = 1.0
    """How long a period is."""
    deliveries: int = 0
    replayed: int = 0
    reconnects: int = 0
    resets: int = 0
    frames_a_second: int = 0
    """Most frames with updates that one client was sent within a second."""
    away: list[Away] = field(default_factory=list)
    """Of all clients."""

    @property
    def latencies(self) -> dict[Lane, LatencyRecorder]:
        """By lane, also of lanes that nothing came in."""
        latencies = {lane: LatencyRecorder() for lane in LANES}
        for (lane, _), one in self.slots.items():
            latencies[lane].merge(one)
        return latencies

    @property
    def latency(self) -> LatencyRecorder:
        """Of all lanes together."""
        return together(self.slots.values())

    @property
    def timeline(self) -> list[tuple[float, LatencyRecorder]]:
        """By the seconds from the first period to that in which the update was due."""
        return self._timeline(LANES)

    def timeline_of(self, lane: Lane) -> list[tuple[float, LatencyRecorder]]:
        """The same for one lane."""
        return self._timeline((lane,))

    def _timeline(self, lanes: Sequence[Lane]) -> list[tuple[float, LatencyRecorder]]:
        periods: dict[int, LatencyRecorder] = {}
        for (lane, period), one in self.slots.items():
            if lane in lanes:
                periods.setdefault(period, LatencyRecorder()).merge(one)
        first = min((period for _, period in self.slots), default=0)
        return [((n - first) * self.slot_seconds, periods[n]) for n in sorted(periods)]

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
        slot_seconds: How long the periods are by which latencies are told apart.

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
        slot_seconds: float = 1.0,
    ) -> None:
        self.connect_seconds = 0.0
        self._stack = stack
        self._traffic = traffic
        self._connections = connections
        self._manners = manners
        self._slot_seconds = slot_seconds
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
                    traffic,
                    stack.gateway_ports,
                    stack.jwt_secret,
                    first,
                    stop,
                    self._manners,
                    self._slot_seconds,
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

    def churn(self, per_second: float) -> None:
        """From now on cut so many random connections a second; 0 ends it."""
        self._tell(Churn(per_second / len(self._crowd)))

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
        gather_seconds: float = 0.0,
        patience_seconds: float = 0.0,
    ) -> Outcome:
        """Publish so many updates, and wait until they have arrived everywhere, within a bound.

        Args:
            count: How many.
            per_second: On which schedule, whatever the answers.
            recorded: Whether their latencies count.
            uneven: Not at equal intervals.
            arrive_seconds: The bound; with 0 nobody waits: nobody is there whom they could reach.
            gather_seconds: What is due within such a time goes as one atomic batch.
            patience_seconds: For how long what was not accepted is published again.
        """
        burst = Burst(
            self._next, count, per_second, recorded, uneven, gather_seconds, patience_seconds
        )
        self._next += count
        self._publisher.send(burst)
        seconds_max = count / per_second + patience_seconds + 60
        published = await self._publisher.receive(timeout_seconds=seconds_max)
        self._unknown |= published.unknown
        self._refused |= published.refused
        if arrive_seconds == 0:
            return Outcome(published)
        self._tell(Await(self._next, arrive_seconds))
        outcome = Outcome(published, slot_seconds=self._slot_seconds)
        taken: Taken
        for taken in await self._answers(arrive_seconds + 30):
            for slot, latency in taken.latencies.items():
                outcome.slots.setdefault(slot, LatencyRecorder()).merge(latency)
            outcome.deliveries += taken.deliveries
            outcome.replayed += taken.replayed
            outcome.reconnects += taken.reconnects
            outcome.resets += taken.resets
            outcome.away += taken.away
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

    def pids(self) -> dict[str, list[int]]:
        """Its own processes, by role."""
        return {
            "publisher": [self._publisher.pid],
            "clients": [process.pid for process in self._crowd],
        }

    async def _start(self, process: LoadProcess) -> LoadProcess:
        return await self._processes.enter_async_context(process)

    def _tell(self, command: Await | Behave | Churn | ComeBack | Cut | Judge) -> None:
        for process in self._crowd:
            process.send(command)

    async def _answers(self, seconds: float) -> list[Any]:
        waits = (process.receive(timeout_seconds=seconds) for process in self._crowd)
        return await asyncio.gather(*waits)


class Servers(Protocol):
    """What is measured."""

    def usage(self) -> dict[str, Usage]:
        """What each of its roles has used since it began."""
        ...


class Loading(Protocol):
    """What loads them."""

    def pids(self) -> dict[str, list[int]]:
        """Its own processes, by role."""
        ...


@dataclass(frozen=True, slots=True)
class Used:
    """What every role used over a time.

    Attributes:
        cpu_seconds: CPU by role of the servers.
        percent: CPU by role, in percent of one core; `others` is what does not belong to the run.
        rss_mib: Resident memory by role of the servers, at the end.
        busiest: CPU of the busiest process of each role of the load, in percent of one core.
    """

    cpu_seconds: dict[str, float]
    percent: dict[str, float]
    rss_mib: dict[str, float]
    busiest: dict[str, float]

    def add_to(self, report: Report, suffix: str = "") -> None:
        """Add the figures, and what a reader of the others has to know."""
        for role, value in self.percent.items():
            unit = CORE if role in self.rss_mib else LOAD_CORE
            report.add(f"cpu_percent_{role}{suffix}", value, unit)
        for role, value in self.rss_mib.items():
            if value:
                report.add(f"rss_mib_{role}{suffix}", value, "MiB")
        report.notes += [note for note in self.notes() if note not in report.notes]

    def notes(self) -> list[str]:
        """Whether the load itself, or what else ran, was in the way."""
        return [*self.load_notes(), *others_notes(self.percent["others"])]

    def load_notes(self) -> list[str]:
        """Whether the load itself was in the way."""
        return [
            f"the load generator may have been the bottleneck: a process of its {role} used "
            f"{value:.0f} % of a core, and latencies include its delay"
            for role, value in self.busiest.items()
            if value > BUSY_PERCENT_MAX
        ]


def others_notes(percent: float) -> list[str]:
    """Says so when programs that are no part of the run used much of a core."""
    if percent <= OTHERS_PERCENT_MAX:
        return []
    return [f"other programs used {percent:.0f} % of a core: measure again"]


class Meter:
    """Measures the CPU of every role, in percent of one core, from its making on.

    Args:
        stack: The servers.
        loads: What loads them.
        processes: The pids of more load processes, by role.
        servers: The pids of servers that are not of the stack, by the role that each has instead.
    """

    def __init__(
        self,
        stack: Servers,
        *loads: Loading,
        processes: Mapping[str, int] | None = None,
        servers: Mapping[str, int] | None = None,
    ) -> None:
        self._stack = stack
        self._guests = servers or {}
        self._load = {role: [pid] for role, pid in (processes or {}).items()}
        for load in loads:
            for role, pids in load.pids().items():
                self._load.setdefault(role, []).extend(pids)
        self._load["scenario"] = [os.getpid()]
        self._before = {role: one.cpu_seconds for role, one in self._servers().items()}
        self._load_before = self._load_seconds()
        self._busy = busy_seconds()
        self._began = time.perf_counter()

    def read(self) -> Used:
        """What was used until now, and what memory is taken now."""
        seconds = time.perf_counter() - self._began
        servers = self._servers()
        cpu = {role: one.cpu_seconds - self._before[role] for role, one in servers.items()}
        load = self._load_seconds()
        each = {
            role: [load[pid] - self._load_before[pid] for pid in pids]
            for role, pids in self._load.items()
        }
        used = cpu | {role: sum(values) for role, values in each.items()}
        used["others"] = max(0.0, busy_seconds() - self._busy - sum(used.values()))
        return Used(
            cpu,
            {role: _percent(value, seconds) for role, value in used.items()},
            {role: round(one.rss_bytes / MIB, 1) for role, one in servers.items()},
            {role: _percent(max(values), seconds) for role, values in each.items() if values},
        )

    def _servers(self) -> dict[str, Usage]:
        guests = {role: usage_of([pid]) for role, pid in self._guests.items()}
        return self._stack.usage() | guests

    def _load_seconds(self) -> dict[int, float]:
        pids = [pid for some in self._load.values() for pid in some]
        return {pid: usage_of([pid]).cpu_seconds for pid in pids}


def together(latencies: Iterable[LatencyRecorder]) -> LatencyRecorder:
    """All of them in one."""
    sum_ = LatencyRecorder()
    for one in latencies:
        sum_.merge(one)
    return sum_


def _percent(cpu_seconds: float, seconds: float) -> float:
    return round(100 * cpu_seconds / seconds, 2)
