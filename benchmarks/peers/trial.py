"""One peer under load: its servers, its clients and its publisher, in processes of their own."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final, Self

from benchmarks.load import CLIENTS_A_PROCESS_MAX, late_notes
from benchmarks.load_process import LoadProcess
from benchmarks.measure import LatencyRecorder
from benchmarks.peers.audience import (
    CONNECT_SECONDS_MAX,
    Await,
    Back,
    ComeBack,
    Judge,
    Seats,
    StayAway,
    Taken,
    attend,
)
from benchmarks.peers.peer import Peer
from benchmarks.peers.sender import Letters, Reopen, Sabotage, send
from benchmarks.publisher import Burst, Published
from benchmarks.report import merged
from benchmarks.traffic import Traffic
from livefeed.errors import Unavailable

ANSWER_SECONDS: Final = 30.0
"""What an answer of a load process may take beside what it waits for."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How messages are published."""

    per_second: float
    arrive_seconds: float
    """The longest wait until all of them are everywhere; with 0 nobody waits."""


@dataclass(slots=True)
class Outcome:
    """What became of a burst, on both sides."""

    published: Published
    latency: LatencyRecorder = field(default_factory=LatencyRecorder)
    deliveries: int = 0
    reconnects: int = 0

    def notes(self) -> list[str]:
        """What a reader of the latencies has to know of the publisher."""
        return late_notes(self.published)


class Trial:
    """Publishes and verifies; `async with` connects the clients of a peer that runs.

    Args:
        peer: What is loaded.
        traffic: What is published; each of its users has one device.
        payload_bytes: Of each message.
        sabotage: What goes wrong on purpose.
    """

    def __init__(
        self, peer: Peer, traffic: Traffic, *, payload_bytes: int, sabotage: Sabotage = ""
    ) -> None:
        self._peer = peer
        self._traffic = traffic
        self._letters = Letters(peer.publishing, traffic, payload_bytes, sabotage)
        self._publisher: LoadProcess
        self._audience: list[LoadProcess] = []
        self._next = 0
        self._unknown: set[int] = set()
        self._refused: set[int] = set()
        self._processes = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            self._publisher = await self._start(LoadProcess(send, self._letters))
            users = self._traffic.users
            for first in range(0, users, CLIENTS_A_PROCESS_MAX):
                stop = min(first + CLIENTS_A_PROCESS_MAX, users)
                seats = Seats(self._peer.dialect, self._traffic, first, stop)
                self._audience.append(await self._start(LoadProcess(attend, seats)))
            await self._all_ready(2 * CONNECT_SECONDS_MAX)
            await self._publisher.receive()
        except BaseException:
            await self._processes.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._processes.aclose()

    async def publish(self, count: int, rate: Rate, *, recorded: bool = True) -> Outcome:
        """Publish so many messages, and wait until all have arrived, within a bound."""
        self._publisher.send(Burst(self._next, count, rate.per_second, recorded))
        self._next += count
        seconds_max = count / rate.per_second + 2 * ANSWER_SECONDS
        outcome = Outcome(await self._publisher.receive(timeout_seconds=seconds_max))
        self._unknown |= outcome.published.unknown
        self._refused |= outcome.published.refused
        if rate.arrive_seconds:
            await self._arrive(outcome, rate.arrive_seconds)
        return outcome

    async def arrived(self, seconds: float) -> Outcome:
        """Wait until all that was published has arrived, within a bound."""
        outcome = Outcome(Published())
        await self._arrive(outcome, seconds)
        return outcome

    def stay_away(self, *, cut: bool) -> None:
        """Have nobody connect again before `come_back`; with `cut`, end all connections at once."""
        self._tell(StayAway(cut))

    async def reopen(self) -> None:
        """Connect the publisher again, to servers that were started again."""
        self._publisher.send(Reopen())
        await self._publisher.receive()

    async def come_back(self, seconds_max: float) -> int:
        """Connect all again; how many are not told what comes when the time is up."""
        self._tell(ComeBack(seconds_max))
        return sum(back.unready for back in await self._backs(seconds_max + CONNECT_SECONDS_MAX))

    async def judge(self) -> dict[str, int]:
        """The faults since the last time by kind, and `expected`, what there had to be."""
        self._tell(Judge(self._next, frozenset(self._unknown), frozenset(self._refused)))
        return merged(await self._answers(ANSWER_SECONDS))

    def pids(self) -> dict[str, list[int]]:
        """Its own processes, by role."""
        return {
            "publisher": [self._publisher.pid],
            "clients": [process.pid for process in self._audience],
        }

    async def _arrive(self, outcome: Outcome, seconds: float) -> None:
        self._tell(Await(self._next, seconds))
        taken: Taken
        for taken in await self._answers(seconds + ANSWER_SECONDS):
            outcome.latency.merge(taken.latency)
            outcome.deliveries += taken.deliveries
            outcome.reconnects += taken.reconnects

    async def _all_ready(self, seconds: float) -> None:
        for back in await self._backs(seconds):
            if back.unready:
                text = f"{back.unready:,} clients are not told what comes. {back.reason}"
                raise Unavailable(self._peer.title, text)

    async def _backs(self, seconds: float) -> list[Back]:
        return await self._answers(seconds)

    async def _start(self, process: LoadProcess) -> LoadProcess:
        return await self._processes.enter_async_context(process)

    def _tell(self, command: Await | ComeBack | Judge | StayAway) -> None:
        for process in self._audience:
            process.send(command)

    async def _answers(self, seconds: float) -> list[Any]:
        waits = (process.receive(timeout_seconds=seconds) for process in self._audience)
        return await asyncio.gather(*waits)
