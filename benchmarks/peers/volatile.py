"""One message to every connection, kept nowhere: what the peers do best."""

from __future__ import annotations

import statistics
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
from livefeed.limits import KIB

NAME: Final = "volatile"
AHEAD: Final = Goal("≤", 1.0)
GOALS: Final = {
    "nats": AHEAD,
    "socketio": AHEAD,
    "python-socketio": AHEAD,
    "nchan": Goal("≤", 1.1),
}
COLUMNS: Final = (
    *("peer", "CPU µs a message", "by process", "p50 ms", "p99 ms"),
    *("RSS KiB a connection", "messages"),
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    connections: int
    messages: int
    per_second: float
    warm_up: int
    arrive_seconds: float
    sabotage: Sabotage


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of one peer."""

    cost: Cost
    rss_kib: float
    faults: dict[str, int]


async def compare(asked: Comparison, sizes: Sizes, report: Report) -> None:
    """Measure the peers in turns; adds figures, goals, the table and livefeed's faults."""

    async def measure(peer: Peer, seed: int) -> Turn:
        traffic = Traffic(seed=seed, users=sizes.connections, topic=True)
        empty = peer.usage()[peer.front].rss_bytes
        payload_bytes, sabotage = asked.payload_bytes, sizes.sabotage
        async with Trial(peer, traffic, payload_bytes=payload_bytes, sabotage=sabotage) as trial:
            rate = Rate(sizes.per_second, sizes.arrive_seconds)
            await trial.publish(sizes.warm_up, rate, recorded=False)
            rss_bytes = peer.usage()[peer.front].rss_bytes - empty
            cost = await under_load(peer, trial, sizes.messages, rate)
            return Turn(cost, rss_bytes / sizes.connections / KIB, await trial.judge())

    results = await take_turns(NAME, asked, measure, durable=False)
    results.add_costs(report, lambda turn: turn.cost, GOALS.get)
    report.tables.append(_table(results, asked, sizes))
    add_faults(report, [turn.faults for turn in results.turns.get(LIVEFEED, [])])


def _table(results: Results[Turn], asked: Comparison, sizes: Sizes) -> Table:
    title = (
        f"volatile: one message of {asked.payload_bytes} bytes to each of {sizes.connections:,} "
        f"connections, {sizes.per_second:g} a second; medians of {asked.rounds}"
    )
    table = Table(title, COLUMNS)
    for name in results.names:
        if name in results.absent:
            table.add(PEERS[name].title, results.absent[name])
            continue
        turns = results.turns[name]
        table.add(
            PEERS[name].title,
            *cost_cells([turn.cost for turn in turns]),
            f"{statistics.median(turn.rss_kib for turn in turns):.1f}",
            exactness(merged(turn.faults for turn in turns)),
        )
    return table
