"""livefeed beside its peers, in the same run: a topic's fan-out, and one user's stored messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, get_args

from benchmarks.peers import PEERS, durable, volatile
from benchmarks.peers.sender import Sabotage
from benchmarks.peers.turns import Comparison
from benchmarks.report import Report
from benchmarks.scenario import Options, Scenario, WrongSize

NAME: Final = "peers"
TABLES: Final = (volatile.NAME, durable.NAME)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured, and of what."""

    only: str = ",".join(PEERS)
    """Names of peers."""
    tables: str = ",".join(TABLES)
    rounds: int = 3
    payload_bytes: int = 340
    fsync: str = "default"
    """`always`: what NATS and Redis accept is on the disk first, as it is with livefeed."""
    connections: int = 10_000
    messages: int = 30
    per_second: float = 2.0
    """To all connections, each. The slowest peer is not done with one when the next comes."""
    warm_up: int = 4
    users: int = 2_000
    durable_per_second: float = 1_000.0
    """To all users together."""
    durable_seconds: float = 10.0
    missed: int = 4_000
    """To all users together while they are away, and again before all servers are killed."""
    arrive_seconds: float = 30.0
    """The longest wait for what was published to users who are connected."""
    sabotage: str = ""
    """`drop`, `double` or `misdirect` one message, so that one sees whether it is noticed."""


QUICK: Final = Sizes(
    rounds=1,
    connections=500,
    messages=16,
    per_second=8.0,
    warm_up=4,
    users=200,
    durable_per_second=400.0,
    durable_seconds=2.0,
    missed=200,
    arrive_seconds=10.0,
)


async def run(options: Options) -> Report:
    """Measure whoever is there, in turns."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    names, tables = _words("only", sizes.only, PEERS), _words("tables", sizes.tables, TABLES)
    if sizes.sabotage not in get_args(Sabotage):
        raise WrongSize(f"sabotage={sizes.sabotage}: {', '.join(filter(None, get_args(Sabotage)))}")
    sabotage: Sabotage = sizes.sabotage  # type: ignore[assignment]  # one of them, as was seen
    asked = Comparison(
        names,
        sizes.rounds,
        options.seed,
        sizes.payload_bytes,
        _words("fsync", sizes.fsync, ("default", "always")) == ["always"],
        options.settings(sizes),
        options.say,
    )
    report = Report(NAME)
    if volatile.NAME in tables:
        fan_out = volatile.Sizes(
            sizes.connections,
            sizes.messages,
            sizes.per_second,
            sizes.warm_up,
            sizes.arrive_seconds,
            sabotage,
        )
        await volatile.compare(asked, fan_out, report)
    if durable.NAME in tables:
        personal = durable.Sizes(
            sizes.users,
            sizes.durable_per_second,
            sizes.durable_seconds,
            sizes.missed,
            sizes.arrive_seconds,
            sabotage,
        )
        await durable.compare(asked, personal, report)
    report.add("payload_bytes", sizes.payload_bytes)
    report.add("seed", options.seed)
    return report


def _words(size: str, text: str, known: object) -> list[str]:
    """The words of a list, all of which must be known; raises WrongSize."""
    words = [word for word in text.split(",") if word]
    for word in words:
        if word not in known:  # type: ignore[operator]
            raise WrongSize(f"{size}={text}: there is no {word}")
    return words


SCENARIO: Final = Scenario(
    NAME, "livefeed and its peers in one run: fan-out, stored messages, what survives.", run
)
