"""What the facts about NATS mean: the server, its durability, streams, consumers and dead letters.

Pure. The adapter fills in the facts; each function below says what they mean for one part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from livefeed.health import Check, Figure, Problem, State, conclude, count, not_checked
from livefeed.limits import MIB, NATS_PAYLOAD_BYTES_MAX
from livefeed.topology import CONSUMER_ACK_PENDING_MAX

NATS_VERSION_MIN: Final = (2, 12)
"""The first with atomic batches."""
STREAM_FULL: Final[tuple[tuple[float, State], ...]] = ((0.95, "unhealthy"), (0.70, "degraded"))
"""Shares of `max_bytes` from which a stream is called so."""
COPY_SILENT_SECONDS_MAX: Final = 3.0
"""The server itself calls a silent copy current for 10 s."""
LAG_MAX: Final = 5_000
"""Messages that may wait for a function."""

LOSING_FIELDS: Final = frozenset(
    {
        *("subjects", "retention", "storage", "discard", "max_age"),
        *("filter_subject", "filter_subjects", "ack_policy", "deliver_policy", "max_deliver"),
    }
)
"""Fields of a stream or consumer with which updates may be lost or never handled; other differences
cost speed or room."""

PROVISION: Final = "run `livefeed provision`"
SYNC_MEND: Final = (
    "set `sync_interval: always` in the block `jetstream { … }` of the server's configuration and "
    "restart it"
)
MONITOR_MEND: Final = (
    "set LIVEFEED_NATS_MONITOR_URL to the HTTP monitoring address of each server, separated by "
    "commas, such as http://127.0.0.1:8222"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFacts:
    """The NATS server that we are connected to."""

    server_id: str
    version: str
    jetstream: bool
    payload_bytes_max: int
    round_trip_milliseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoredServer:
    """What one NATS server tells about itself on its monitoring address."""

    server_id: str
    name: str
    jetstream: bool
    sync_always: bool
    sync_interval_nanoseconds: int
    cluster_size: int
    """Servers of its JetStream cluster; 1 for a single one."""


class StreamCopy(NamedTuple):
    """A stream's copy on another server than its leader's."""

    server: str
    current: bool
    silent_seconds: float
    """Since it was last heard of; it is, each second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """One stream as it is."""

    name: str
    messages: int
    bytes: int
    bytes_max: int
    refuses_when_full: bool
    acknowledges_before_writing: bool
    copies: tuple[StreamCopy, ...]
    """Those of the other servers; none with one copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerFacts:
    """One consumer as it is."""

    name: str
    stream: str
    pending: int
    ack_pending: int
    redelivered: int
    paused: bool

    @property
    def function(self) -> str:
        """The function that reads it; its name begins so."""
        return self.name.partition("-")[0]


class Difference(NamedTuple):
    """Where the server is not as the topology says; `detail` begins with the field's name."""

    name: str
    detail: str


def broker(facts: BrokerFacts) -> Check:
    """Whether the NATS server can do what livefeed needs."""
    problems = []
    wanted = ".".join(map(str, NATS_VERSION_MIN))
    if _version(facts.version) < NATS_VERSION_MIN:
        reason = f"NATS {facts.version} has no atomic batches, which every publisher needs"
        problems.append(Problem("unhealthy", reason, f"install NATS {wanted} or newer"))
    if not facts.jetstream:
        reason = "JetStream is not enabled for this account: nothing can be accepted"
        mend = "add a block `jetstream { … }` to the server's configuration, and enable the account"
        problems.append(Problem("unhealthy", reason, mend))
    if facts.payload_bytes_max < NATS_PAYLOAD_BYTES_MAX:
        reason = f"max_payload is {facts.payload_bytes_max}: larger updates cannot be published"
        mend = f"set `max_payload: {NATS_PAYLOAD_BYTES_MAX}` in the server's configuration"
        problems.append(Problem("unhealthy", reason, mend))
    figures: dict[str, Figure] = {
        "version": facts.version,
        "max_payload_bytes": facts.payload_bytes_max,
        "round_trip_ms": round(facts.round_trip_milliseconds, 2),
    }
    healthy = f"NATS {facts.version} with JetStream answers in {figures['round_trip_ms']} ms"
    return conclude("broker", problems, healthy=healthy, figures=figures)


def durability(
    servers: Sequence[MonitoredServer], unreachable: Sequence[str], *, broker_id: str | None
) -> Check:
    """Whether every server syncs before it acknowledges, as the servers themselves tell.

    Args:
        servers: Those that answered on a monitoring address.
        unreachable: For each address that did not, why.
        broker_id: The server that we are connected to; None when there is no connection.
    """
    if not servers and not unreachable:
        return not_checked("durability", "LIVEFEED_NATS_MONITOR_URL is not set", MONITOR_MEND)
    storing = {server.server_id: server for server in servers if server.jetstream}
    problems = [
        Problem(
            "unhealthy",
            "an acknowledged update can be lost on power failure: sync_interval is "
            f"{duration(server.sync_interval_nanoseconds)} on {server.name}",
            SYNC_MEND,
        )
        for server in storing.values()
        if not server.sync_always
    ]
    problems += [
        Problem("degraded", f"could not be checked: {reason}", MONITOR_MEND)
        for reason in unreachable or _unseen(storing, broker_id)
    ]
    figures = {"servers": len(storing), "sync_always": sum(s.sync_always for s in storing.values())}
    healthy = f"sync_interval is always on {count(len(storing), 'server')}: an ack means on disk"
    return conclude("durability", problems, healthy=healthy, figures=figures)


def _unseen(storing: Mapping[str, MonitoredServer], broker_id: str | None) -> list[str]:
    """Why what was seen may not be all that stores."""
    if not storing:
        return ["the server that is monitored has no JetStream"]
    cluster_size = max(server.cluster_size for server in storing.values())
    if len(storing) < cluster_size:
        return [f"{cluster_size - len(storing)} of the cluster's {cluster_size} servers not seen"]
    if broker_id is not None and broker_id not in storing:
        return ["the server that is monitored is not the one of LIVEFEED_NATS_URL"]
    return []


def streams(found: Sequence[StreamFacts], differences: Sequence[Difference]) -> Check:
    """Whether the streams are there, as they should be, with room left."""
    problems = [_difference(difference) for difference in differences]
    for stream in found:
        problems += _fill(stream)
        if stream.acknowledges_before_writing:
            reason = f"{stream.name} acknowledges before it writes: persist_mode is async"
            mend = "replace the stream by one without `persist_mode`, then run `livefeed provision`"
            problems.append(Problem("unhealthy", reason, mend))
        for copy in stream.copies:
            if not copy.current or copy.silent_seconds > COPY_SILENT_SECONDS_MAX:
                reason = f"the copy of {stream.name} on {copy.server} is not current"
                mend = f"start {copy.server}, or wait until it has caught up"
                problems.append(Problem("degraded", reason, mend))
    figures: dict[str, Figure] = {}
    for stream in found:
        figures[f"{stream.name}_messages"] = stream.messages
        figures[f"{stream.name}_full"] = round(stream.bytes / max(1, stream.bytes_max), 4)
    fullest = max((stream.bytes / max(1, stream.bytes_max) for stream in found), default=0.0)
    healthy = f"{count(len(found), 'stream')} as provisioned, the fullest at {fullest:.0%}"
    return conclude("streams", problems, healthy=healthy, figures=figures)


def _fill(stream: StreamFacts) -> list[Problem]:
    share = stream.bytes / max(1, stream.bytes_max)
    for threshold, state in STREAM_FULL:
        if share < threshold:
            continue
        of = f"{stream.bytes / MIB:.0f} of {stream.bytes_max / MIB:.0f} MiB"
        full = f"{stream.name} is {share:.0%} full ({of})"
        mend = "raise LIVEFEED_STREAM_BYTES_MAX and run `livefeed provision`"
        if stream.refuses_when_full:
            return [Problem(state, f"{full}: a full one refuses publishes", mend)]
        return [Problem("degraded", f"{full}: a full one deletes its oldest messages", mend)]
    return []


def consumers(found: Sequence[ConsumerFacts], differences: Sequence[Difference]) -> Check:
    """Whether the consumers are there, as they should be, and not far behind."""
    problems = [_difference(difference) for difference in differences]
    lags: Counter[str] = Counter()
    for consumer in found:
        lags[consumer.function] += consumer.pending + consumer.ack_pending
        if consumer.ack_pending >= CONSUMER_ACK_PENDING_MAX:
            reason = (
                f"{consumer.name} gives out nothing more: {consumer.ack_pending} messages, its "
                "most, wait for acknowledgement"
            )
            mend = "see what holds its workers up: their log, and primary"
            problems.append(Problem("degraded", reason, mend))
        if consumer.paused:
            mend = f"`nats consumer resume {consumer.stream} {consumer.name}`"
            problems.append(Problem("degraded", f"{consumer.name} is paused", mend))
    for function, lag in lags.items():
        if lag > LAG_MAX:
            reason = f"{function} is behind: {lag} messages wait for it"
            mend = "raise LIVEFEED_WORKER_PROCESSES_MAX, or start `livefeed pool` on more hosts"
            problems.append(Problem("degraded", reason, mend))
    figures: dict[str, Figure] = {f"{function}_lag": lag for function, lag in lags.items()}
    figures["ack_pending"] = sum(consumer.ack_pending for consumer in found)
    figures["redelivered"] = sum(consumer.redelivered for consumer in found)
    healthy = f"{count(len(found), 'consumer')} as provisioned, {lags.total()} messages waiting"
    return conclude("consumers", problems, healthy=healthy, figures=figures)


def _difference(difference: Difference) -> Problem:
    """A missing thing, or a field that differs."""
    if "is missing" in difference.detail:
        return Problem("unhealthy", f"{difference.detail}: {difference.name}", PROVISION)
    losing = difference.detail.partition(" ")[0] in LOSING_FIELDS
    state: State = "unhealthy" if losing else "degraded"
    return Problem(state, f"{difference.name} was changed: {difference.detail}", PROVISION)


def dead_letters(counts: Mapping[str, int]) -> Check:
    """Whether updates were put aside.

    Args:
        counts: By reason.
    """
    total = sum(counts.values())
    by_reason = ", ".join(f"{reason} {number}" for reason, number in sorted(counts.items()))
    mend = "look at them with `nats stream view FEED_DLQ`, and purge it once they are understood"
    reason = f"{count(total, 'update')} could not be handled: {by_reason}"
    problems = [Problem("degraded", reason, mend)] if total else []
    figures: dict[str, Figure] = {"count": total, **counts}
    return conclude("dead_letters", problems, healthy="none", figures=figures)


def duration(nanoseconds: int) -> str:
    """A duration as NATS writes it, such as `2m0s`."""
    seconds = nanoseconds / 1e9
    if seconds < 60:
        return f"{seconds:g}s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s"


def _version(text: str) -> tuple[int, ...]:
    """The leading numbers of a version, which may go on with a label."""
    numbers = []
    for word in text.lstrip("v").replace("-", ".").split("."):
        if not word.isdigit():
            break
        numbers.append(int(word))
    return tuple(numbers)
