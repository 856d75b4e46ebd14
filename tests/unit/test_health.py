"""What doctor says about facts: tables of facts, and the state, reason and mend they call for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from livefeed import broker_health, database_health, health, redis_health
from livefeed.broker_health import (
    BrokerFacts,
    ConsumerFacts,
    Difference,
    MonitoredServer,
    StreamCopy,
    StreamFacts,
)
from livefeed.database_health import DatabaseFacts, ReplayFacts
from livefeed.health import Check, FunctionFacts, GatewayFacts, Problem, State
from livefeed.limits import MIB, NATS_PAYLOAD_BYTES_MAX
from livefeed.redis_health import RedisFacts
from livefeed.topology import CONSUMER_ACK_PENDING_MAX

BROKER = BrokerFacts(
    server_id="N1",
    version="2.15.1",
    jetstream=True,
    payload_bytes_max=NATS_PAYLOAD_BYTES_MAX,
    round_trip_milliseconds=0.5,
)
SERVER = MonitoredServer(
    server_id="N1",
    name="n1",
    jetstream=True,
    sync_always=True,
    sync_interval_nanoseconds=120 * 10**9,
    cluster_size=1,
)
STREAM = StreamFacts(
    name="FEED_UPDATES",
    messages=5,
    bytes=10 * MIB,
    bytes_max=100 * MIB,
    refuses_when_full=True,
    acknowledges_before_writing=False,
    copies=(StreamCopy("n3", True, 0.9),),
)
CONSUMER = ConsumerFacts(
    name="deliver-high-3",
    stream="FEED_LANES",
    pending=0,
    ack_pending=0,
    redelivered=0,
    paused=False,
)
PRIMARY = DatabaseFacts(
    version="18.1",
    version_number=180001,
    in_recovery=False,
    read_only=False,
    fsync=True,
    full_page_writes=True,
    synchronous_commit="on",
    connections=10,
    connections_max=97,
    revision="0002",
    epoch="e1",
    epoch_timeline=1,
    timeline=1,
    position=1000,
)
REPLICA = replace(PRIMARY, in_recovery=True, read_only=True, timeline=None)
REPLAY = ReplayFacts(bytes_behind=0, seconds_behind=0.0, paused=False, streams=True)


def assert_says(check: Check, state: State, reason: str, mend: str) -> None:
    assert (check.state, check.mend is None) == (state, state == "healthy"), check
    assert reason in check.reason
    assert mend in (check.mend or "")


def test_a_report_is_as_good_as_its_worst_check() -> None:
    """The overall state is the worst one, and checks stand in the order of the parts."""
    checks = [Check("gateway", "degraded", "r"), Check("broker", "healthy", "r")]
    report = health.report_of(checks)
    assert (report.state, [c.part for c in report.checks]) == ("degraded", ["broker", "gateway"])
    assert health.report_of([*checks, Check("epoch", "unhealthy", "r")]).state == "unhealthy"
    assert health.report_of([]).state == "healthy"


def test_a_check_names_its_worst_problems_first_and_counts_the_rest() -> None:
    """However much is wrong, a check is a few sentences, and each mend is said once."""
    problems = [Problem("degraded", f"d{n}", "do") for n in range(50)]
    problems.append(Problem("unhealthy", "u", "do that"))
    check = health.conclude("streams", problems, healthy="")
    assert check.state == "unhealthy"
    assert check.reason == "u; d0; d1; and 48 more"
    assert check.mend == "do that; do"


def test_what_is_behind_a_part_that_is_away_could_not_be_checked() -> None:
    """One server that is away makes one part unhealthy: of the rest nothing is known."""
    first, *behind = health.unavailable(["broker", "streams"], "refused", "start it")
    assert_says(first, "unhealthy", "refused", "start it")
    assert_says(behind[0], "degraded", "could not be checked: the broker is away", "see broker")


@pytest.mark.parametrize(
    ("different", "state", "reason", "mend"),
    [
        ({}, "healthy", "NATS 2.15.1", ""),
        ({"version": "2.12.0"}, "healthy", "2.12.0", ""),
        ({"version": "3.0.0-dev"}, "healthy", "3.0.0-dev", ""),
        ({"version": "2.11.9"}, "unhealthy", "atomic batches", "NATS 2.12 or newer"),
        ({"version": ""}, "unhealthy", "atomic batches", "NATS 2.12 or newer"),
        ({"jetstream": False}, "unhealthy", "JetStream is not enabled", "jetstream {"),
        ({"payload_bytes_max": MIB - 1}, "unhealthy", "1048575", "max_payload: 1048576"),
    ],
)
def test_broker(different: dict[str, Any], state: State, reason: str, mend: str) -> None:
    """The server has to know atomic batches, JetStream, and messages of the budget's size."""
    assert_says(broker_health.broker(replace(BROKER, **different)), state, reason, mend)


UNSAFE = replace(SERVER, server_id="N2", name="n2", sync_always=False)
OF_THREE = [replace(SERVER, server_id=f"N{n}", cluster_size=3) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("servers", "unreachable", "state", "reason"),
    [
        ([SERVER], [], "healthy", "always on 1 server"),
        (OF_THREE, [], "healthy", "always on 3 servers"),
        ([], [], "degraded", "LIVEFEED_NATS_MONITOR_URL is not set"),
        ([], ["m:1 is unavailable: refused"], "degraded", "could not be checked: m:1"),
        ([SERVER], ["m:2 is unavailable"], "degraded", "could not be checked: m:2"),
        (OF_THREE[:2], [], "degraded", "1 of the cluster's 3 servers not seen"),
        ([OF_THREE[0]] * 3, [], "degraded", "2 of the cluster's 3 servers not seen"),
        ([replace(SERVER, server_id="N9")], [], "degraded", "not the one of LIVEFEED_NATS_URL"),
        ([replace(SERVER, jetstream=False)], [], "degraded", "has no JetStream"),
        ([SERVER, UNSAFE], ["m:3 is away"], "unhealthy", "sync_interval is 2m0s on n2"),
    ],
)
def test_durability(
    servers: list[MonitoredServer], unreachable: list[str], state: State, reason: str
) -> None:
    """It is healthy only when every server that stores was seen to sync before it acknowledges."""
    check = broker_health.durability(servers, unreachable, broker_id="N1")
    mend = {"healthy": "", "degraded": "LIVEFEED_NATS_MONITOR_URL"}
    assert_says(check, state, reason, mend.get(state, "sync_interval: always"))
    if state == "unhealthy":
        assert check.reason.startswith("an acknowledged update can be lost on power failure: ")


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (120 * 10**9, "2m0s"),
        (10**10, "10s"),
        (10**8, "0.1s"),
        (3_661 * 10**9, "1h1m1s"),
    ],
)
def test_duration(nanoseconds: int, text: str) -> None:
    """Durations are written as in the server's configuration."""
    assert broker_health.duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("different", "state", "reason", "mend"),
    [
        ({}, "healthy", "fullest at 10%", ""),
        ({"bytes": 69 * MIB}, "healthy", "fullest at 69%", ""),
        ({"bytes": 70 * MIB}, "degraded", "70% full (70 of 100 MiB)", "LIVEFEED_STREAM_BYTES_MAX"),
        ({"bytes": 96 * MIB}, "unhealthy", "refuses publishes", "LIVEFEED_STREAM_BYTES_MAX"),
        (
            {"bytes": 99 * MIB, "refuses_when_full": False},
            "degraded",
            "deletes its oldest",
            "raise",
        ),
        ({"acknowledges_before_writing": True}, "unhealthy", "persist_mode", "persist_mode"),
        ({"copies": (StreamCopy("n2", True, 3.1),)}, "degraded", "FEED_UPDATES on n2", "start n2"),
        ({"copies": (StreamCopy("n2", False, 0),)}, "degraded", "FEED_UPDATES on n2", "caught up"),
    ],
)
def test_streams(different: dict[str, Any], state: State, reason: str, mend: str) -> None:
    """Streams need room, and copies that are current."""
    check = broker_health.streams([replace(STREAM, **different)], [])
    assert_says(check, state, reason, mend)


@pytest.mark.parametrize(
    ("detail", "state", "reason"),
    [
        ("the stream is missing", "unhealthy", "the stream is missing: X"),
        ("the consumer is missing", "unhealthy", "the consumer is missing: X"),
        ("max_deliver is 5, not -1", "unhealthy", "X was changed: max_deliver is 5, not -1"),
        ("discard is old, not new", "unhealthy", "X was changed: discard"),
        ("num_replicas is 1, not 3", "degraded", "X was changed: num_replicas"),
        ("max_bytes is 1, not 2", "degraded", "X was changed: max_bytes"),
    ],
)
def test_differences(detail: str, state: State, reason: str) -> None:
    """What is missing or may lose updates is unhealthy, other differences are not."""
    for judge in (broker_health.streams, broker_health.consumers):
        check = judge([], [Difference("X", detail)])
        assert_says(check, state, reason, "run `livefeed provision`")


@pytest.mark.parametrize(
    ("different", "state", "reason", "mend"),
    [
        ({"pending": 4000, "ack_pending": 1000}, "healthy", "5000 messages waiting", ""),
        ({"pending": 4000, "ack_pending": 1001}, "degraded", "deliver is behind: 5001", "pool"),
        (
            {"ack_pending": CONSUMER_ACK_PENDING_MAX},
            "degraded",
            "gives out nothing more",
            "holds its workers up",
        ),
        ({"paused": True}, "degraded", "is paused", "resume FEED_LANES deliver-high-3"),
    ],
)
def test_consumers(different: dict[str, Any], state: State, reason: str, mend: str) -> None:
    """A consumer must neither be far behind, nor stuck, nor paused."""
    check = broker_health.consumers([replace(CONSUMER, **different)], [])
    assert_says(check, state, reason, mend)


def test_lag_is_of_a_function_not_of_a_consumer() -> None:
    """Many consumers that are each a little behind are one function that is far behind."""
    found = [replace(CONSUMER, name=f"deliver-low-{n}", pending=400) for n in range(16)]
    check = broker_health.consumers(found, [])
    assert_says(check, "degraded", "deliver is behind: 6400", "LIVEFEED_WORKER_PROCESSES_MAX")
    assert check.figures["deliver_lag"] == 6400


def test_dead_letters_are_counted_by_reason() -> None:
    """Each dead letter is an update that somebody has to look at."""
    assert broker_health.dead_letters({}).state == "healthy"
    check = broker_health.dead_letters({"too_large": 1, "invalid_json": 3})
    assert_says(check, "degraded", "4 updates could not be handled: invalid_json 3", "FEED_DLQ")
    assert check.figures == {"count": 4, "too_large": 1, "invalid_json": 3}


@pytest.mark.parametrize(
    ("count", "lags", "state", "reason"),
    [
        (0, (0, 0, 0), "healthy", "asleep"),
        (2, (9, 9, 9), "healthy", "deliver 2"),
        (0, (9, 9, 9), "unhealthy", "9 messages wait for deliver"),
        (0, (5, 9, 20), "unhealthy", "nothing takes updates: 20"),
        # Somebody takes them, only too busy to be heard, or just started.
        (0, (20, 9, 5), "healthy", ""),
        (0, (0, 3, 3), "healthy", ""),
        (0, (3, 3, 0), "healthy", ""),
        (0, (), "healthy", ""),
    ],
)
def test_workers(count: int, lags: tuple[int, ...], state: State, reason: str) -> None:
    """Nobody at work is well while nothing waits, and is not when something waited all the time."""
    check = health.workers([FunctionFacts(function="deliver", workers=count, lags=lags)])
    assert_says(check, state, reason, "livefeed pool" if state == "unhealthy" else "")


UP = GatewayFacts(address="a:1", answers=True, ready=True, reason="")
DRAINING = GatewayFacts(address="a:2", answers=True, ready=False, reason="draining")
AWAY = GatewayFacts(address="a:3", answers=False, ready=False, reason="refused")


@pytest.mark.parametrize(
    ("found", "state", "reason", "mend"),
    [
        ([UP], "healthy", "ready on a:1", ""),
        ([UP, AWAY], "degraded", "nothing answers on a:3: refused", "start `livefeed gateway`"),
        ([UP, DRAINING], "degraded", "a:2 is not ready: draining", "log"),
        ([DRAINING], "unhealthy", "draining", "log"),
        ([AWAY], "unhealthy", "nothing answers on a:3", "start `livefeed gateway`"),
    ],
)
def test_gateway(found: list[GatewayFacts], state: State, reason: str, mend: str) -> None:
    """As long as one gateway is ready, clients are served."""
    assert_says(health.gateway(found), state, reason, mend)


@pytest.mark.parametrize(
    ("different", "state", "reason", "mend"),
    [
        ({}, "healthy", "10 of 97 connections", ""),
        ({"version_number": 140013}, "unhealthy", "too old", "PostgreSQL 15 or newer"),
        ({"version_number": 150000}, "healthy", "", ""),
        ({"in_recovery": True}, "unhealthy", "it is a replica", "LIVEFEED_DATABASE_URL"),
        ({"read_only": True}, "unhealthy", "read-only", "default_transaction_read_only"),
        ({"fsync": False}, "unhealthy", "lost on power failure: fsync is off", "fsync = on"),
        ({"full_page_writes": False}, "unhealthy", "full_page_writes is off", "= on"),
        ({"synchronous_commit": "off"}, "unhealthy", "synchronous_commit is off", "= on"),
        ({"synchronous_commit": "local"}, "healthy", "", ""),
        ({"connections": 90}, "degraded", "90 of 97 connections are taken", "max_connections"),
        ({"connections_max": 23}, "degraded", "may open 24 connections, there are 23", "POOL"),
    ],
)
def test_primary(different: dict[str, Any], state: State, reason: str, mend: str) -> None:
    """The primary takes writes, keeps what it committed, and has connections for all."""
    check = database_health.primary(replace(PRIMARY, **different), connections_wanted=24)
    assert_says(check, state, reason, mend)


@pytest.mark.parametrize(
    ("revision", "state", "reason"),
    [
        ("0002", "healthy", "at 0002"),
        ("0001", "unhealthy", "at 0001, this version wants 0002"),
        (None, "unhealthy", "there is no schema"),
        ("0003", "degraded", "at 0003, newer than"),
    ],
)
def test_schema(revision: str | None, state: State, reason: str) -> None:
    """An older schema is migrated; a newer one still serves, for migrations only add."""
    check = database_health.schema(replace(PRIMARY, revision=revision), latest="0002")
    mends = {"healthy": "", "unhealthy": "livefeed migrate", "degraded": "newer livefeed"}
    assert_says(check, state, reason, mends[state])


@pytest.mark.parametrize(
    ("different", "state", "reason"),
    [
        ({}, "healthy", "e1, of timeline 1"),
        ({"epoch": None, "epoch_timeline": None}, "unhealthy", "no epoch"),
        ({"timeline": 2}, "unhealthy", "the epoch is of timeline 1, the server is on 2"),
        ({"timeline": None}, "healthy", ""),
    ],
)
def test_epoch(different: dict[str, Any], state: State, reason: str) -> None:
    """The epoch is there, and given on the timeline that the server is on."""
    check = database_health.epoch(replace(PRIMARY, **different))
    assert_says(check, state, reason, "" if state == "healthy" else "livefeed")


def test_what_pools_may_open() -> None:
    """A feed source has a pool of its own on each server, in each gateway process."""
    primary = {"worker_processes": 1, "pool_connections": 8, "has_replicas": True}
    assert database_health.primary_connections(gateways=2, has_source=False, **primary) == 66
    assert database_health.primary_connections(gateways=2, has_source=True, **primary) == 82
    replica = {"gateways": 2, "pool_connections": 8}
    assert database_health.replica_connections(has_source=False, **replica) == 18
    assert database_health.replica_connections(has_source=True, **replica) == 34


@pytest.mark.parametrize(
    ("facts", "replay", "state", "reason"),
    [
        ({}, {}, "healthy", "0 s behind"),
        ({}, {"bytes_behind": 800, "seconds_behind": 9.9}, "healthy", "9.9 s behind"),
        ({}, {"bytes_behind": 800, "seconds_behind": 10.0}, "degraded", "10 s (800 bytes) behind"),
        ({}, {"paused": True}, "degraded", "replay is paused"),
        ({}, {"streams": False}, "degraded", "receives nothing"),
        ({}, {"bytes_behind": None}, "degraded", "lag could not be checked"),
        ({"epoch": "e0"}, {}, "degraded", "its epoch is not the primary's"),
        ({"in_recovery": False}, {}, "unhealthy", "it was promoted"),
    ],
)
def test_replica(facts: dict[str, Any], replay: dict[str, Any], state: State, reason: str) -> None:
    """A replica follows this primary, closely; one that does not costs the primary its reads."""
    check = database_health.replica(
        replace(REPLICA, **facts),
        replace(REPLAY, **replay),
        epoch_wanted="e1",
        connections_wanted=9,
    )
    assert_says(check, state, reason, "")


REDIS = RedisFacts(
    version="7.0.15",
    is_replica=False,
    policy="allkeys-lru",
    bytes_max=256 * MIB,
    bytes_used=12 * MIB,
    evicted=3,
)


@pytest.mark.parametrize(
    ("different", "state", "reason", "mend"),
    [
        ({}, "healthy", "Redis 7.0.15 takes pages; 12 of 256 MiB, allkeys-lru", ""),
        ({"policy": "volatile-ttl"}, "healthy", "256 MiB, volatile-ttl", ""),
        ({"policy": "noeviction"}, "degraded", "no page that is made is shared", "allkeys-lru"),
        ({"bytes_max": 0}, "degraded", "grows until the system ends it", "set `maxmemory`"),
        (
            {"bytes_max": 0, "policy": "noeviction"},
            "degraded",
            "its policy is noeviction",
            "set `maxmemory` and `maxmemory-policy allkeys-lru`",
        ),
        ({"is_replica": True}, "degraded", "nothing can be written", "LIVEFEED_REDIS_URL"),
        ({"version": "5.0.7"}, "degraded", "Redis 5.0.7 is older", "Redis 6 or newer"),
        ({"version": ""}, "degraded", "older than what was tested", "Redis 6 or newer"),
    ],
)
def test_redis(different: dict[str, Any], state: State, reason: str, mend: str) -> None:
    """A cache that is full, or that may grow for ever, is no reason to stop."""
    check = redis_health.redis(replace(REDIS, **different))
    assert (check.part, check.state) == ("redis", state)
    assert reason in check.reason
    assert mend in (check.mend or "")
    assert check.figures["evicted"] == 3
