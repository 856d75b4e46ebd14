"""One message for one user, stored before it is delivered: what it costs, and what it survives."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.peers import PEERS
from benchmarks.peers.peer import Peer
from benchmarks.peers.sender import Sabotage
from benchmarks.peers.trial import Rate, Trial
from benchmarks.peers.turns import (
    LIVEFEED,
    Comparison,
    Cost,
    Results,
    add_faults,
    cost_cells,
    exactness,
    take_turns,
    under_load,
)
from benchmarks.report import Goal, Report, Table, merged
from benchmarks.traffic import Traffic
from livefeed.errors import Unavailable

NAME: Final = "durable"
AHEAD: Final = Goal("≤", 1.0)
COLUMNS: Final = (
    *("peer", "CPU µs a delivery", "by process", "p50 ms", "p99 ms", "messages"),
    *("missed while cut", "servers killed", "what is accepted survives"),
)
COME_BACK_SECONDS_MAX: Final = 30.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    users: int
    per_second: float
    seconds: float
    missed: int
    arrive_seconds: float
    sabotage: Sabotage


@dataclass(frozen=True, slots=True)
class OneByOne(Traffic):
    """Every user in turn: each has been told something before the connections are cut."""

    def user(self, number: int) -> int:
        """Whose a message is."""
        return number % self.users


@dataclass(frozen=True, slots=True)
class Absence:
    """What became of the messages that were published while nobody was connected."""

    faults: dict[str, int]
    seconds: float
    """From the return until everything was there, or until nothing more was waited for."""
    unready: int = 0
    """Clients that were not served again by then."""

    @property
    def exact(self) -> bool:
        """Whether each came once."""
        return not self.unready and exactness(self.faults) == "exact"


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of one peer."""

    cost: Cost
    faults: dict[str, int]
    """While all were connected."""
    cut: Absence
    kill: Absence


async def compare(asked: Comparison, sizes: Sizes, report: Report) -> None:
    """Measure the peers in turns; adds figures, goals, the table and livefeed's faults."""

    async def measure(peer: Peer, seed: int) -> Turn:
        traffic = OneByOne(seed=seed, users=sizes.users)
        payload_bytes, sabotage = asked.payload_bytes, sizes.sabotage
        async with Trial(peer, traffic, payload_bytes=payload_bytes, sabotage=sabotage) as trial:
            rate = Rate(sizes.per_second, sizes.arrive_seconds)
            await trial.publish(sizes.users, rate, recorded=False)
            cost = await under_load(peer, trial, round(sizes.seconds * sizes.per_second), rate)
            faults = await trial.judge()
            cut = await _away(peer, trial, sizes, kill=False)
            return Turn(cost, faults, cut, await _away(peer, trial, sizes, kill=True))

    results = await take_turns(NAME, asked, measure, durable=True)

    def goal(name: str) -> Goal | None:
        # Who loses what it accepted does less, and is no rival for what that costs.
        return (
            AHEAD if all(one.cut.exact and one.kill.exact for one in results.turns[name]) else None
        )

    results.add_costs(report, lambda turn: turn.cost, goal)
    own = results.turns.get(LIVEFEED, [])
    if own:
        seconds = max(turn.kill.seconds for turn in own)
        report.add("restart_replayed_seconds", round(seconds, 2), "s")
    report.tables.append(_table(results, asked, sizes))
    absences = [one.faults for turn in own for one in (turn.cut, turn.kill)]
    add_faults(report, [*(turn.faults for turn in own), *absences])


async def _away(peer: Peer, trial: Trial, sizes: Sizes, *, kill: bool) -> Absence:
    """Publish to users who are away, and have them come back.

    With `kill` they are away because the servers were killed, which are killed again when they have
    accepted everything: neither who is served nor what is stored may be in their memory alone.
    """
    trial.stay_away(cut=not kill)
    if kill:
        await _restart(peer)
        await trial.reopen()
    await trial.publish(sizes.missed, Rate(sizes.per_second, 0.0), recorded=False)
    if kill:
        await _restart(peer)
    began = time.perf_counter()
    unready = await trial.come_back(COME_BACK_SECONDS_MAX)
    await trial.arrived(peer.redelivery_seconds)
    seconds = time.perf_counter() - began
    return Absence(await trial.judge(), seconds, unready)


async def _restart(peer: Peer) -> None:
    peer.kill()
    # What lived on would have kept what it should have stored.
    alive = [role for role, usage in peer.usage().items() if usage.rss_bytes]
    if alive:
        raise Unavailable(peer.title, f"{', '.join(alive)} lives on after it was killed")
    await peer.start()


def _table(results: Results[Turn], asked: Comparison, sizes: Sizes) -> Table:
    title = (
        f"durable: {sizes.per_second:g} messages of {asked.payload_bytes} bytes a second, each for "
        f"one of {sizes.users:,} users; {sizes.missed:,} of them while all are away; "
        f"medians of {asked.rounds}"
    )
    table = Table(title, COLUMNS)
    for name in results.names:
        kind = PEERS[name]
        if name in results.absent:
            table.add(kind.title, results.absent[name])
            continue
        turns = results.turns[name]
        table.add(
            kind.title,
            *cost_cells([turn.cost for turn in turns]),
            exactness(merged(turn.faults for turn in turns)),
            replayed([turn.cut for turn in turns], nothing="no replay"),
            replayed([turn.kill for turn in turns], nothing="lost at restart"),
            (asked.fsync and kind.acknowledged_fsync) or kind.acknowledged,
        )
    return table


def replayed(absences: Sequence[Absence], *, nothing: str) -> str:
    """In words, what came of what was missed."""
    unready = max(one.unready for one in absences)
    if unready:
        return f"{unready:,} clients not back in {COME_BACK_SECONDS_MAX:g} s"
    faults = merged(one.faults for one in absences)
    none_came = faults["lost"] == faults["expected"]
    if none_came and not faults["doubled"] and not faults["foreign"]:
        return nothing
    return exactness(faults)
