"""What both comparisons share: peers that take turns, each with servers of its own; their cost."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from benchmarks.load import Meter, others_notes
from benchmarks.load_process import LoadFailed
from benchmarks.peers import PEERS
from benchmarks.peers.livefeed import LivefeedPeer
from benchmarks.peers.message import FAULTS
from benchmarks.peers.peer import Missing, Peer
from benchmarks.peers.trial import Rate, Trial
from benchmarks.report import Goal, Report, merged
from benchmarks.units import RATIO
from livefeed.errors import Unavailable

LIVEFEED: Final = LivefeedPeer.name
FAILURES: Final = (Unavailable, LoadFailed, TimeoutError, OSError)
"""What a peer may end with. livefeed's end the run."""
WHY_CHARACTERS_MAX: Final = 160


@dataclass(frozen=True, slots=True)
class Comparison:
    """What every peer is given.

    Attributes:
        names: Of the peers.
        fsync: Whether what a peer accepts has to be on the disk first.
        settings: Of livefeed, where they are not its defaults.
        say: Told whose turn it is.
    """

    names: Sequence[str]
    rounds: int
    seed: int
    payload_bytes: int
    fsync: bool
    settings: Mapping[str, Any]
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a load cost a peer."""

    cpu_us: Mapping[str, float]
    """By role, for each message that a client has read."""
    p50_ms: float
    p99_ms: float
    others_percent: float
    """CPU of programs that were no part of the run."""
    notes: Sequence[str]

    @property
    def whole_us(self) -> float:
        """Of all roles."""
        return sum(self.cpu_us.values())


Turn = TypeVar("Turn")
Measure = Callable[[Peer, int], Awaitable[Turn]]
"""Measures a peer that runs; the number is a seed."""


@dataclass(slots=True)
class Results(Generic[Turn]):
    """What the turns of the peers were like, and why others had none."""

    table: str
    names: list[str]
    """Of the peers, in the order of the table."""
    turns: dict[str, list[Turn]]
    """By peer; those that could be measured."""
    absent: dict[str, str]
    """By peer, in two words: `not installed` or `failed`."""
    notes: list[str]

    def add_costs(
        self,
        report: Report,
        cost: Callable[[Turn], Cost],
        goal: Callable[[str], Goal | None],
    ) -> None:
        """Add what each peer costs, livefeed's ratio to it, and what one has to know of both."""
        costs = {
            name: statistics.median(cost(turn).whole_us for turn in turns)
            for name, turns in self.turns.items()
        }
        for name, value in costs.items():
            unit = "µs" if name == LIVEFEED else "µs (peer)"
            report.add(f"{self.table}_cpu_us_{_key(name)}", round(value, 2), unit)
        for name, value in costs.items():
            if name != LIVEFEED and LIVEFEED in costs and value:
                ratio = round(costs[LIVEFEED] / value, 3)
                report.add(f"{self.table}_ratio_{_key(name)}", ratio, RATIO, goal(name))
        every = {name: list(map(cost, turns)) for name, turns in self.turns.items()}
        others = max((one.others_percent for mine in every.values() for one in mine), default=0.0)
        own = [
            f"{PEERS[name].title}: {note}"
            for name, mine in every.items()
            for one in mine
            for note in one.notes
        ]
        new = [*dict.fromkeys(own), *others_notes(others), *self.notes]
        report.notes += [f"{self.table}: {note}" for note in new]


def cost_cells(costs: Sequence[Cost]) -> tuple[str, ...]:
    """The medians: CPU of all, CPU by role, and the latencies."""
    roles = {role: statistics.median(one.cpu_us[role] for one in costs) for role in costs[0].cpu_us}
    return (
        f"{statistics.median(one.whole_us for one in costs):.1f}",
        ", ".join(f"{role} {value:.1f}" for role, value in roles.items()),
        f"{statistics.median(one.p50_ms for one in costs):.1f}",
        f"{statistics.median(one.p99_ms for one in costs):.1f}",
    )


def exactness(faults: Mapping[str, int]) -> str:
    """In words: exact, or what was wrong of how many."""
    wrong = [f"{faults[kind]:,} {kind}" for kind in FAULTS if faults[kind]]
    return f"{', '.join(wrong)} of {faults['expected']:,}" if wrong else "exact"


async def take_turns(
    table: str, asked: Comparison, measure: Measure[Turn], *, durable: bool
) -> Results[Turn]:
    """Have every peer that is there measured once a round; livefeed's failure is raised."""
    names = [name for name in asked.names if durable or PEERS[name].volatile]
    results: Results[Turn] = Results(table, names, {}, {}, [])
    for name in names:
        try:
            version = await PEERS[name](Path(), durable=durable).prepare()
        except Missing as missing:
            results.absent[name] = "not installed"
            results.notes.append(f"{PEERS[name].title} is not installed: {missing}")
        else:
            results.turns[name] = []
            results.notes.append(f"{PEERS[name].title}: {version}")
    there = list(results.turns)
    for number in range(asked.rounds):
        # Each round begins with another, so that none is always the first.
        for name in there[number % len(there) :] + there[: number % len(there)]:
            if name in results.absent:
                continue
            asked.say(f"{table}, round {number + 1} of {asked.rounds}: {PEERS[name].title}")
            try:
                async with _running(name, asked, durable=durable) as peer:
                    results.turns[name].append(await measure(peer, asked.seed + number))
            except FAILURES as error:
                if name == LIVEFEED:
                    raise
                results.absent[name] = "failed"
                results.turns.pop(name)
                results.notes.append(f"{PEERS[name].title} failed: {_why(error)}")
    return results


async def under_load(peer: Peer, trial: Trial, count: int, rate: Rate) -> Cost:
    """Publish so many messages, wait until they are there, and say what that cost."""
    meter, before = Meter(peer, trial), peer.usage()
    outcome = await trial.publish(count, rate)
    after, used = peer.usage(), meter.read()
    peer.check()
    messages = max(1, outcome.deliveries)
    notes = [*outcome.notes(), *used.load_notes()]
    published = outcome.published
    if unsure := len(published.unknown) + len(published.refused):
        notes.append(
            f"{unsure:,} messages were refused, or not acknowledged: they are not expected"
        )
    if outcome.reconnects:
        notes.append(f"{outcome.reconnects:,} connections were lost and made again")
    return Cost(
        {
            role: (usage.cpu_seconds - before[role].cpu_seconds) / messages * 1e6
            for role, usage in after.items()
        },
        outcome.latency.percentile(50) * 1e3,
        outcome.latency.percentile(99) * 1e3,
        used.percent["others"],
        notes,
    )


@contextlib.asynccontextmanager
async def _running(name: str, asked: Comparison, *, durable: bool) -> AsyncIterator[Peer]:
    """A peer that runs, in a folder that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="livefeed-bench-") as folder:
        path, fsync = Path(folder), asked.fsync
        peer: Peer = (
            LivefeedPeer(path, durable=durable, settings=asked.settings)
            if name == LIVEFEED
            else PEERS[name](path, durable=durable, fsync=fsync)
        )
        await peer.prepare()
        try:
            await peer.start()
            yield peer
        finally:
            await peer.close()


def add_faults(report: Report, faults: Sequence[Mapping[str, int]]) -> None:
    """Add livefeed's own faults, which make a run not ok."""
    every = merged([report.faults, *faults])
    report.faults = {kind: every.get(kind, 0) for kind in FAULTS}


def _why(error: Exception) -> str:
    last = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return last[:WHY_CHARACTERS_MAX]


def _key(name: str) -> str:
    return name.replace("-", "_")
