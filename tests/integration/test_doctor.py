"""`livefeed doctor` on real servers: it names what is wrong, and what to do, within seconds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from livefeed.adapters.embedded import NatsServer
from livefeed.adapters.nats.connection import close, connect
from livefeed.adapters.nats.provision import provision
from livefeed.limits import MIB
from tests.redis_server import RedisServer
from tests.servers import STREAM_BYTES_MAX, Stack, server_port, update

SECONDS_MAX = 12.0
"""5 s for the checks, and what a busy computer takes to start a process."""

Checks = dict[str, dict[str, Any]]


class Examined:
    """What one run of `doctor --json` said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert not done.stderr, done.stderr
        said = json.loads(done.stdout)
        self.state: str = said["state"]
        self.checks: Checks = {check.pop("part"): check for check in said["checks"]}
        assert done.returncode == (1 if self.state == "unhealthy" else 0)

    def is_wrong(self) -> dict[str, str]:
        """The states that are not healthy, by part."""
        states = {part: check["state"] for part, check in self.checks.items()}
        return {part: state for part, state in states.items() if state != "healthy"}

    def says(self, part: str, reason: str, mend: str) -> None:
        """Assert that a check has a reason and a mend with these words."""
        check = self.checks[part]
        assert reason in check["reason"], check
        assert mend in check["mend"], check


async def examine(stack: Stack, **settings: Any) -> Examined:
    """Run `doctor --json` with some settings of its own."""
    return Examined(await run(stack, "--json", **settings))


async def run(stack: Stack, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "livefeed.cli", "doctor", *arguments],
        capture_output=True,
        check=False,
        cwd=stack.directory,
        env=stack.environment(**settings),
        text=True,
        timeout=30,
    )


@pytest.fixture
async def lazy_nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A provisioned server that acknowledges before it syncs."""
    server = NatsServer(
        tmp_path / "lazy",
        port=server_port(),
        monitor_port=server_port(),
        name="lazy",
        sync_interval="2m",
    )
    await server.start()
    connection = await connect([server.url], name="tests")
    try:
        await provision(connection, replicas=1, bytes_max=STREAM_BYTES_MAX)
        await close(connection)
        yield server
    finally:
        server.kill()


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_whole_stack_is_healthy(stack: Stack) -> None:
    """Everything is healthy, workers are heard, and a person reads the same in aligned lines."""
    gateway, _ = await asyncio.gather(stack.start_gateway(), stack.start_pool())
    await stack.publish([update()])
    await stack.settled()
    ops_port = int(gateway.ops_url.rpartition(":")[2])
    found, printed = await asyncio.gather(
        examine(stack, ops_port=ops_port), run(stack, ops_port=ops_port)
    )
    assert (found.state, found.is_wrong()) == ("healthy", {})
    figures = {part: check["figures"] for part, check in found.checks.items()}
    assert figures["workers"]["prioritize_workers"] == figures["workers"]["deliver_workers"] == 1
    assert figures["durability"] == {"servers": 1, "sync_always": 1}
    assert figures["streams"]["FEED_UPDATES_messages"] == 1
    assert figures["primary"]["connections"] >= 1
    lines = printed.stdout.splitlines()
    assert printed.returncode == 0
    assert lines[-1] == "livefeed is healthy"
    assert all(line.startswith("healthy    ") for line in lines[:-1])
    assert "\x1b" not in printed.stdout, "no colours where no person looks"


async def test_nats_that_does_not_sync_is_named(stack: Stack, lazy_nats: NatsServer) -> None:
    """The setting is read from the server itself; unread, or of another server, proves nothing."""
    given = {"nats_url": lazy_nats.url, "ops_port": server_port()}
    both = f"{stack.settings['nats_monitor_url']},{lazy_nats.monitor_url}"
    lazy, unknown, other = await asyncio.gather(
        examine(stack, **given, nats_monitor_url=both),
        examine(stack, **given, nats_monitor_url=None),
        examine(stack, **given),
    )
    assert lazy.checks["durability"]["state"] == "unhealthy"
    reason = "lost on power failure: sync_interval is 2m0s on lazy"
    lazy.says("durability", reason, "sync_interval: always")
    assert unknown.checks["durability"]["state"] == "degraded"
    unknown.says("durability", "could not be checked", "LIVEFEED_NATS_MONITOR_URL")
    assert other.checks["durability"]["state"] == "degraded"
    other.says("durability", "not the one of LIVEFEED_NATS_URL", "LIVEFEED_NATS_MONITOR_URL")


async def test_what_is_not_as_provisioned_is_named(stack: Stack) -> None:
    """A changed consumer, a missing stream, updates that nobody takes, no gateway."""
    jetstream = (await stack.nats()).jetstream()
    info = await jetstream.consumer_info("FEED_LANES", "deliver-high-3")
    await jetstream.add_consumer("FEED_LANES", info.config.evolve(max_deliver=5))
    await jetstream.delete_consumer("FEED_UPDATES", "prioritize-low")
    await jetstream.delete_stream("FEED_DLQ")
    await stack.publish([update(), update()])
    found = await examine(stack, ops_port=server_port())
    wrong = ["streams", "consumers", "workers", "gateway"]
    assert found.is_wrong() == dict.fromkeys(wrong, "unhealthy") | {"dead_letters": "degraded"}
    found.says("streams", "the stream is missing: FEED_DLQ", "livefeed provision")
    found.says("consumers", "the consumer is missing: prioritize-low", "livefeed provision")
    reason = "deliver-high-3 was changed: max_deliver is 5, not -1"
    found.says("consumers", reason, "livefeed provision")
    found.says("workers", "nothing takes updates: 2 messages wait for prior", "livefeed pool")
    found.says("gateway", "nothing answers on 127.0.0.1:", "livefeed gateway")


async def test_a_log_that_is_not_ready_is_named(stack: Stack) -> None:
    """No schema, a timeline that moved on, commits that are not waited for, dead letters."""
    name = stack.database_url.rpartition("/")[2]
    await execute(
        stack.database_url,
        "update feed_epoch set timeline = 7",
        "drop table alembic_version",
        f"alter database {name} set synchronous_commit = off",
        f"alter database {name} set default_transaction_read_only = on",
    )
    await (await stack.nats()).jetstream().publish("feed.dlq.invalid_json", b"{")
    found = await examine(stack, ops_port=server_port())
    wrong = ["primary", "schema", "epoch", "gateway"]
    assert found.is_wrong() == dict.fromkeys(wrong, "unhealthy") | {"dead_letters": "degraded"}
    found.says("schema", "there is no schema", "livefeed migrate")
    found.says("epoch", "the epoch is of timeline 7, the server is on 1", "livefeed pool")
    found.says("primary", "power failure: synchronous_commit is off", "synchronous_commit = on")
    found.says("primary", "nothing can be written", "default_transaction_read_only")
    found.says("dead_letters", "1 update could not be handled: invalid_json 1", "FEED_DLQ")


async def test_a_replica_that_does_not_replay_is_named(stack: Stack, replica_url: str) -> None:
    """One that follows is healthy; one whose replay is paused is behind by so many bytes."""
    following = await examine(stack, replica_urls=[replica_url])
    assert following.checks["replica"]["state"] == "healthy", following.checks["replica"]
    await execute(replica_url, "select pg_wal_replay_pause()")
    try:
        await execute(stack.database_url, "create table later as select generate_series(1, 1000)")
        paused = await examine(stack, replica_urls=[replica_url])
    finally:
        await execute(replica_url, "select pg_wal_replay_resume()")
    assert paused.checks["replica"]["state"] == "degraded"
    paused.says("replica", "its replay is paused", "pg_wal_replay_resume")
    assert paused.checks["replica"]["figures"]["replay_lag_bytes"] > 0


async def test_a_redis_is_looked_at(stack: Stack, redis_server: RedisServer) -> None:
    """Its memory and what it does when that is full; away or locked, it is no reason to stop."""
    async with redis_server.client() as redis:
        await redis.config_set("maxmemory", str(64 * MIB))
        await redis.config_set("maxmemory-policy", "allkeys-lru")
        good = await examine(stack, redis_url=redis_server.url)
        await redis.config_set("maxmemory-policy", "noeviction")
        full = await examine(stack, redis_url=redis_server.url)
        await redis.config_set("requirepass", "open")
        wrong_url = redis_server.url.replace("//", "//:hush@")
        wrong = await examine(stack, redis_url=wrong_url)
    redis_server.kill()
    away = await examine(stack, redis_url=wrong_url)
    assert good.checks["redis"]["state"] == "healthy", good.checks["redis"]
    assert good.checks["redis"]["figures"]["max_bytes"] == 64 * MIB
    full.says("redis", "its policy is noeviction", "maxmemory-policy allkeys-lru")
    wrong.says("redis", "it does not take the user and password", "LIVEFEED_REDIS_URL")
    away.says("redis", "Connection refused", "LIVEFEED_REDIS_URL")
    for found in (full, wrong, away):
        assert found.checks["redis"]["state"] == "degraded"
        assert "hush" not in json.dumps(found.checks)


async def test_too_few_connections_are_named(stack: Stack, replica_url: str) -> None:
    """For each server what all processes may open; of several replicas each has its name."""
    nowhere = f"127.0.0.1:{server_port()}"
    away = f"postgresql://livefeed:hush@{nowhere}/livefeed"
    done = await run(stack, replica_urls=[replica_url, away], database_pool_connections=200)
    lines = done.stdout.splitlines()
    wrong = [line for line in lines if " replica " in line or " primary " in line]
    assert "may open 1401 connections, there are 197" in wrong[0]
    name = replica_url.rpartition("@")[2].partition("/")[0]
    assert f"{name}: the pools may open 201 connections, there are 197" in wrong[1]
    assert wrong[2].startswith("unhealthy")
    assert f"{nowhere}: replica is unavailable" in wrong[2]
    assert done.stdout.count("lower LIVEFEED_DATABASE_POOL_CONNECTIONS") == 2
    assert "hush" not in done.stdout


async def test_servers_that_are_away_are_named(stack: Stack) -> None:
    """Nobody listens, or the password is wrong: a sentence each, and no secret in it."""
    nowhere = f"127.0.0.1:{server_port()}"
    right, _, host = stack.database_url.partition("@")
    no_nats, no_postgres = await asyncio.gather(
        examine(
            stack,
            nats_url=f"nats://u:hush@{nowhere}",
            nats_monitor_url=f"http://{nowhere}",
            replica_urls=[f"{right}hush@{host}"],
        ),
        examine(stack, database_url=f"postgresql://livefeed:hush@{nowhere}/livefeed"),
    )
    assert no_nats.checks["broker"]["state"] == "unhealthy"
    no_nats.says("broker", "nats is unavailable", "LIVEFEED_NATS_URL")
    no_nats.says("durability", f"could not be checked: {nowhere}", "LIVEFEED_NATS_MONITOR_URL")
    no_nats.says("streams", "could not be checked: the broker is away", "see broker")
    no_nats.says("replica", "InvalidPasswordError", "LIVEFEED_REPLICA_URLS")
    assert no_nats.checks["primary"]["state"] == "healthy"
    assert no_postgres.checks["primary"]["state"] == "unhealthy"
    no_postgres.says("primary", "primary is unavailable", "LIVEFEED_DATABASE_URL")
    no_postgres.says("schema", "could not be checked: the primary is away", "see primary")
    assert no_postgres.checks["broker"]["state"] == "healthy"
    for found in (no_nats, no_postgres):
        assert "hush" not in json.dumps(found.checks)


async def test_servers_that_never_answer_do_not_hold_it_up(stack: Stack) -> None:
    """A server that accepts and says nothing, or anything else than it should, is a finding too."""
    noisy = await asyncio.start_server(_babble, "127.0.0.1", 0)
    # The kernel accepts for it.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = [server.getsockname()[1] for server in (silent, noisy.sockets[0])]
        began_at = time.monotonic()
        try:
            found = await asyncio.gather(
                *(examine(stack, **_everything_at(port)) for port in ports)
            )
        finally:
            noisy.close()
        assert time.monotonic() - began_at < SECONDS_MAX
    for one in found:
        assert one.is_wrong().keys() == one.checks.keys()
        assert {p for p, state in one.is_wrong().items() if state == "unhealthy"} == {
            *("broker", "primary", "replica", "gateway")
        }


def _everything_at(port: int) -> dict[str, Any]:
    postgres = f"postgresql://livefeed@127.0.0.1:{port}/livefeed"
    return {
        "nats_url": f"nats://127.0.0.1:{port}",
        "nats_monitor_url": f"http://127.0.0.1:{port}",
        "database_url": postgres,
        "replica_urls": [postgres],
        "redis_url": f"redis://127.0.0.1:{port}",
        "ops_port": port,
    }


async def _babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.0 200 maybe\r\n\r\n<html>\r\n")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
