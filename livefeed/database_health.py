"""What the facts about Postgres mean: the primary, its schema and epoch, and the replica.

Pure. The adapter fills in the facts; each function below says what they mean for one part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from livefeed.health import Check, Figure, Problem, conclude

POSTGRES_VERSION_MIN: Final = 15
CONNECTIONS_SHARE_MAX: Final = 0.9
"""The share of the primary's connections that may be taken."""
CONNECTIONS_MEND: Final = "raise max_connections, or lower LIVEFEED_DATABASE_POOL_CONNECTIONS"
REPLICA_SECONDS_MAX: Final = 10.0
"""How far a replica may be behind before doctor speaks of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """One Postgres server as a session of ours sees it."""

    version: str
    version_number: int
    in_recovery: bool
    read_only: bool
    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    connections: int
    connections_max: int
    """What is left for us, without those that are reserved."""
    revision: str | None
    epoch: str | None
    epoch_timeline: int | None
    timeline: int | None
    """None while in recovery."""
    position: int | None
    """Bytes of write-ahead log written, or replayed by a replica."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayFacts:
    """How far a replica is behind the primary's position of a moment before."""

    bytes_behind: int | None
    """None when the primary's position is not known."""
    seconds_behind: float
    paused: bool
    streams: bool
    """Whether it receives from a server now."""


def primary(facts: DatabaseFacts, *, connections_wanted: int) -> Check:
    """Whether the primary takes writes and keeps them.

    Args:
        facts: The server.
        connections_wanted: What the processes that we know of may open together.
    """
    problems = []
    if facts.version_number < POSTGRES_VERSION_MIN * 10_000:
        reason = f"PostgreSQL {facts.version} is too old"
        mend = f"install PostgreSQL {POSTGRES_VERSION_MIN} or newer"
        problems.append(Problem("unhealthy", reason, mend))
    if facts.in_recovery:
        reason = "it is a replica: nothing can be written"
        problems.append(Problem("unhealthy", reason, "set LIVEFEED_DATABASE_URL to the primary"))
    elif facts.read_only:
        reason = "sessions are read-only: nothing can be written"
        mend = "set `default_transaction_read_only = off` for the role, the database and the server"
        problems.append(Problem("unhealthy", reason, mend))
    problems += _unsafe_settings(facts) + _connections(facts, connections_wanted)
    figures: dict[str, Figure] = {
        "version": facts.version,
        "connections": facts.connections,
        "connections_max": facts.connections_max,
        "connections_wanted": connections_wanted,
    }
    taken = f"{facts.connections} of {facts.connections_max} connections"
    healthy = f"PostgreSQL {facts.version} takes writes and syncs them; {taken}"
    return conclude("primary", problems, healthy=healthy, figures=figures)


def _unsafe_settings(facts: DatabaseFacts) -> list[Problem]:
    off = {
        "fsync": not facts.fsync,
        "full_page_writes": not facts.full_page_writes,
        "synchronous_commit": facts.synchronous_commit == "off",
    }
    return [
        Problem(
            "unhealthy",
            f"an acknowledged update can be lost on power failure: {name} is off",
            f"set `{name} = on` in postgresql.conf and reload it",
        )
        for name, is_off in off.items()
        if is_off
    ]


def _connections(facts: DatabaseFacts, wanted: int) -> list[Problem]:
    if facts.connections > CONNECTIONS_SHARE_MAX * facts.connections_max:
        reason = f"{facts.connections} of {facts.connections_max} connections are taken"
        return [Problem("degraded", reason, CONNECTIONS_MEND)]
    return too_few_connections(wanted=wanted, there_are=facts.connections_max)


def too_few_connections(*, wanted: int, there_are: int) -> list[Problem]:
    """What is wrong when the pools may open more connections than a server has."""
    if wanted <= there_are:
        return []
    reason = f"the pools may open {wanted} connections, there are {there_are}"
    return [Problem("degraded", reason, CONNECTIONS_MEND)]


def primary_connections(
    *, gateways: int, worker_processes: int, pool_connections: int, has_replicas: bool
) -> int:
    """What all processes of one computer may open to the primary together.

    Args:
        gateways: Processes of the gateway.
        worker_processes: Most workers of each function, for high and again for the other lanes.
        pool_connections: Of each process.
        has_replicas: Whether gateways look where the primary is, each with one connection more.
    """
    # Beside the workers: the pool that starts them, and retain or a command.
    others = 2 * 2 * worker_processes + 2
    return (gateways + others) * pool_connections + (gateways if has_replicas else 0)


def replica_connections(*, gateways: int, pool_connections: int) -> int:
    """What the gateways of one computer may open to a replica; nobody else reads one."""
    return gateways * (pool_connections + 1)


def schema(facts: DatabaseFacts, *, latest: str) -> Check:
    """Whether the schema is this version's."""
    problems = []
    if facts.revision is None:
        problems.append(Problem("unhealthy", "there is no schema", "run `livefeed migrate`"))
    elif facts.revision < latest:
        reason = f"the schema is at {facts.revision}, this version wants {latest}"
        problems.append(Problem("unhealthy", reason, "run `livefeed migrate`"))
    elif facts.revision > latest:
        # Migrations only add until every process is new, so the old ones still serve.
        reason = f"the schema is at {facts.revision}, newer than this version's {latest}"
        problems.append(Problem("degraded", reason, "install the newer livefeed here too"))
    figures: dict[str, Figure] = {"revision": facts.revision or "", "latest": latest}
    return conclude("schema", problems, healthy=f"at {latest}, the latest", figures=figures)


def epoch(facts: DatabaseFacts) -> Check:
    """Whether the log has an identity, and it is of this server's history."""
    problems = []
    if facts.epoch is None:
        reason = "the log has no epoch: no client can be served"
        mend = "run `livefeed migrate`; a log whose feed_epoch was emptied has to be restored"
        problems.append(Problem("unhealthy", reason, mend))
    elif facts.timeline is not None and facts.timeline != facts.epoch_timeline:
        reason = (
            f"the epoch is of timeline {facts.epoch_timeline}, the server is on {facts.timeline}: "
            "it was promoted or restored, and clients trust positions of a log that is gone"
        )
        mend = "restart `livefeed pool`: a new connection to the primary renews the epoch"
        problems.append(Problem("unhealthy", reason, mend))
    figures: dict[str, Figure] = {"epoch": facts.epoch or "", "timeline": facts.timeline or 0}
    healthy = f"{facts.epoch}, of timeline {facts.epoch_timeline}"
    return conclude("epoch", problems, healthy=healthy, figures=figures)


def replica(
    facts: DatabaseFacts,
    replay: ReplayFacts,
    *,
    epoch_wanted: str | None,
    connections_wanted: int,
) -> Check:
    """Whether the replica follows this primary, closely.

    Args:
        facts: The replica.
        replay: How far it is behind.
        epoch_wanted: The primary's epoch; None when that is not known.
        connections_wanted: What the gateways that we know of may open together.
    """
    problems = _connections(facts, connections_wanted)
    if not facts.in_recovery:
        reason = "it takes writes: it was promoted, and follows nobody"
        mend = "set LIVEFEED_DATABASE_URL to it, or make it a replica again"
        problems.append(Problem("unhealthy", reason, mend))
    else:
        problems += _replay(replay)
    if epoch_wanted is not None and facts.epoch != epoch_wanted:
        reason = "its epoch is not the primary's: it is far behind, or another log"
        mend = "name a replica of the primary in LIVEFEED_REPLICA_URLS"
        problems.append(Problem("degraded", reason, mend))
    seconds = round(replay.seconds_behind, 1)
    figures: dict[str, Figure] = {"version": facts.version, "replay_lag_seconds": seconds}
    if replay.bytes_behind is not None:
        figures["replay_lag_bytes"] = replay.bytes_behind
    healthy = f"PostgreSQL {facts.version} follows the primary, {seconds:g} s behind"
    return conclude("replica", problems, healthy=healthy, figures=figures)


def _replay(replay: ReplayFacts) -> list[Problem]:
    problems = []
    reads = "catch-up reads go to the primary"
    if replay.paused:
        reason = f"its replay is paused: {reads}"
        problems.append(Problem("degraded", reason, "run `select pg_wal_replay_resume()` on it"))
    if not replay.streams:
        mend = "see its log: primary_conninfo, the replication slot, and the network to the primary"
        problems.append(Problem("degraded", f"it receives nothing from the primary: {reads}", mend))
    if replay.bytes_behind is None:
        mend = "see primary"
        problems.append(Problem("degraded", "its lag could not be checked", mend))
    elif replay.seconds_behind >= REPLICA_SECONDS_MAX:
        reason = (
            f"it is {replay.seconds_behind:.0f} s ({replay.bytes_behind} bytes) behind: {reads}"
        )
        mend = "see what slows its replay: long queries on it, its disk, the network"
        problems.append(Problem("degraded", reason, mend))
    return problems
