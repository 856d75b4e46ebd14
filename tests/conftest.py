"""The fixtures: servers that live as long as the session, in a clean state for each test.

Function-scoped ones: `nats` and `database` (URLs), `stack` (livefeed on these two), `replica_url`,
`nats_cluster`, `own_servers` and `own_stack` (servers that a test may kill), `redis_server` (it may
be killed too).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Final

import asyncpg
import hypothesis
import pytest

from livefeed.adapters.cache import redis_cache
from livefeed.adapters.embedded import (
    NatsCluster,
    NatsServer,
    PostgresReplica,
    PostgresServer,
)
from livefeed.adapters.nats.connection import close, connect
from livefeed.adapters.nats.provision import provision
from livefeed.adapters.postgres.schema import migrate
from livefeed.topology import DEAD_LETTERS, LANE_STREAM, UPDATES
from tests.redis_server import RedisServer
from tests.servers import (
    STREAM_BYTES_MAX,
    OwnServers,
    Stack,
    run_now,
    running_replica,
    server_port,
    until,
)

TEMPLATE: Final = "livefeed_template"
LOGGED: Final = pytest.StashKey[list[Stack | OwnServers | RedisServer]]()

# A test on real servers takes as long as they take; the limit of a whole test is pytest's.
hypothesis.settings.register_profile(
    "livefeed",
    deadline=None,
    print_blob=True,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
hypothesis.settings.load_profile("livefeed")


def pytest_configure() -> None:
    """Forget the developer's own stack: no test may reach it."""
    for name in [name for name in os.environ if name.upper().startswith("LIVEFEED_")]:
        if name != "LIVEFEED_REQUIRE_TIERS":
            del os.environ[name]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what waits for minutes; behind it the order is as random as it was."""
    items.sort(key=lambda item: item.get_closest_marker("waits") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what the processes of the test logged last."""
    report = yield
    if report.failed:
        for logged in item.stash.get(LOGGED, []):
            report.sections += logged.tails()
    return report


# Servers of the session.


@pytest.fixture(scope="session")
def session_directory() -> Iterator[Path]:
    """Where the servers of this session have their data.

    Not below pytest's own folder, which every pytest that starts closes to other users: as root
    PostgreSQL is one.
    """
    with tempfile.TemporaryDirectory(prefix="livefeed-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def session_nats(session_directory: Path) -> Iterator[NatsServer]:
    """The NATS server that tests share one after the other; ask for `nats`."""
    server = NatsServer(session_directory / "nats", port=server_port(), monitor_port=server_port())
    run_now(server.start())
    yield server
    server.kill()


@pytest.fixture(scope="session")
def session_postgres(session_directory: Path) -> Iterator[PostgresServer]:
    """The primary that tests share; ask for `database`."""
    server = PostgresServer(session_directory / "postgres", port=server_port())
    try:
        run_now(server.start())
        run_now(_make_template(server))
        yield server
    finally:
        run_now(server.stop())


@pytest.fixture(scope="session")
def session_replica(
    session_postgres: PostgresServer, session_directory: Path
) -> Iterator[PostgresReplica]:
    """A replica of the shared primary; ask for `replica_url`."""
    with running_replica(session_postgres, session_directory / "replica") as server:
        yield server


@pytest.fixture(scope="session")
def session_cluster(session_directory: Path) -> Iterator[list[NatsServer]]:
    """Three NATS servers that tests share; ask for `nats_cluster`."""
    routes = [server_port() for _ in range(3)]
    urls = tuple(f"nats://127.0.0.1:{port}" for port in routes)
    servers = [
        NatsServer(
            session_directory / f"cluster-{number}",
            port=server_port(),
            monitor_port=server_port(),
            name=f"n{number}",
            cluster=NatsCluster("livefeed", route, urls),
        )
        for number, route in enumerate(routes)
    ]
    yield servers
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def pristine(session_directory: Path) -> OwnServers:
    """Servers, migrated and provisioned and stopped, of which `own_servers` are copies."""
    servers = _own_servers(session_directory / "pristine")
    run_now(_prepare(servers))
    return servers


# What a test asks for.


@pytest.fixture
async def nats(session_nats: NatsServer) -> str:
    """The URL of a NATS server that is provisioned and empty."""
    await clean_nats(session_nats.url)
    return session_nats.url


@pytest.fixture
async def database(session_postgres: PostgresServer) -> AsyncIterator[str]:
    """The URL of a migrated, empty database."""
    async with cloned_database(session_postgres) as url:
        yield url


@pytest.fixture
async def replica_url(
    session_postgres: PostgresServer, session_replica: PostgresReplica, database: str
) -> str:
    """The URL of the same database on a streaming replica."""
    await replayed(session_postgres, session_replica)
    return database_url(session_replica, database.rpartition("/")[2])


@pytest.fixture
async def nats_cluster(session_cluster: list[NatsServer]) -> list[NatsServer]:
    """Three NATS servers, all of them up, with streams of three copies, provisioned and empty."""
    for server in session_cluster:
        await server.start()
    for server in session_cluster:
        await until(server.healthy, seconds=20, what=f"{server.name} is healthy")
    await clean_nats(",".join(server.url for server in session_cluster), replicas=3)
    return session_cluster


@pytest.fixture
async def own_servers(
    request: pytest.FixtureRequest, pristine: OwnServers, session_directory: Path
) -> AsyncIterator[OwnServers]:
    """A NATS server and a primary of this test alone, to be killed and started again."""
    own = Path(tempfile.mkdtemp(dir=session_directory))
    servers = _own_servers(own)
    request.node.stash.setdefault(LOGGED, []).append(servers)
    shutil.copytree(pristine.nats.directory, servers.nats.directory)
    shutil.copytree(pristine.postgres.directory, servers.postgres.directory)
    try:
        await servers.nats.start()
        await servers.postgres.start()
        yield servers
    finally:
        await servers.aclose()
        await asyncio.to_thread(shutil.rmtree, own, ignore_errors=True)


@pytest.fixture
async def redis_server(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[RedisServer]:
    """An empty Redis of this test alone, to be killed and started again."""
    server = RedisServer(tmp_path / "redis")
    request.node.stash.setdefault(LOGGED, []).append(server)
    try:
        await server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have calls of the cache in Redis last: most tests are not about how busy a computer is."""
    monkeypatch.setattr(redis_cache, "CACHE_GET_SECONDS_MAX", 10.0)
    monkeypatch.setattr(redis_cache, "CACHE_SET_SECONDS_MAX", 10.0)


@pytest.fixture
async def stack(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    session_nats: NatsServer,
    nats: str,
    database: str,
) -> AsyncIterator[Stack]:
    """livefeed on the shared servers, nothing started yet."""
    async with _stack(request, tmp_path, session_nats, nats, database) as stack:
        yield stack


@pytest.fixture
async def own_stack(
    request: pytest.FixtureRequest, tmp_path: Path, own_servers: OwnServers
) -> AsyncIterator[Stack]:
    """livefeed on `own_servers`, nothing started yet."""
    server = own_servers.nats
    async with _stack(request, tmp_path, server, server.url, own_servers.postgres.url) as stack:
        yield stack


@contextlib.asynccontextmanager
async def _stack(
    request: pytest.FixtureRequest, tmp_path: Path, server: NatsServer, nats: str, database: str
) -> AsyncIterator[Stack]:
    stack = Stack(
        tmp_path, nats_url=nats, nats_monitor_url=server.monitor_url, database_url=database
    )
    request.node.stash.setdefault(LOGGED, []).append(stack)
    try:
        yield stack
    finally:
        await stack.aclose()


# Clean state.


async def clean_nats(urls: str, *, replicas: int = 1) -> None:
    """Make a server as if it had just been provisioned, in a few milliseconds."""
    connection = await connect(urls.split(","), name="tests")
    try:
        jetstream = connection.jetstream()
        for info in await jetstream.streams_info():
            name, used = str(info.config.name), info.state.last_seq > 0
            # A purge keeps the ids that were seen, so streams with ids are made anew. The lanes
            # have none, but 48 consumers: a purge takes what was in a worker's hands too.
            if name == LANE_STREAM:
                await jetstream.purge_stream(name)
            elif used or name not in {UPDATES, DEAD_LETTERS}:
                await jetstream.delete_stream(name)
        await provision(connection, replicas=replicas, bytes_max=STREAM_BYTES_MAX)
    finally:
        await close(connection)


async def _make_template(server: PostgresServer) -> None:
    """Make the migrated database that the databases of tests are copies of."""
    await server.sql(f"create database {TEMPLATE}")
    await migrate(database_url(server, TEMPLATE))
    await server.sql(f"alter database {TEMPLATE} is_template true allow_connections false")


@contextlib.asynccontextmanager
async def cloned_database(server: PostgresServer) -> AsyncIterator[str]:
    """A migrated, empty database for a while."""
    name = f"test_{secrets.token_hex(6)}"
    async with admin(server) as connection:
        # Copied through the log: half the time of file_copy, which has to make two checkpoints.
        await connection.execute(f"create database {name} template {TEMPLATE} strategy wal_log")
    try:
        yield database_url(server, name)
    finally:
        async with admin(server) as connection:
            await connection.execute(f"drop database {name} with (force)")


@contextlib.asynccontextmanager
async def admin(server: PostgresServer | PostgresReplica) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database that no test uses."""
    connection = await asyncpg.connect(database_url(server, "postgres"), timeout=10)
    try:
        yield connection
    finally:
        await connection.close()


def database_url(server: PostgresServer | PostgresReplica, name: str) -> str:
    """Return the URL of a database of a server."""
    return f"{server.url.rpartition('/')[0]}/{name}"


async def replayed(primary: PostgresServer, replica: PostgresReplica) -> None:
    """Wait until a replica has all that its primary has now."""
    async with admin(primary) as connection:
        position = await connection.fetchval("select pg_current_wal_lsn()::text")
    async with admin(replica) as connection:
        query = "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
        await until(
            lambda: connection.fetchval(query, position),
            seconds=20,
            what=f"the replica has replayed {position}",
        )


def _own_servers(directory: Path) -> OwnServers:
    return OwnServers(
        NatsServer(directory / "nats", port=server_port(), monitor_port=server_port()),
        PostgresServer(directory / "postgres", port=server_port()),
    )


async def _prepare(servers: OwnServers) -> None:
    try:
        await servers.nats.start()
        await servers.postgres.start()
        await clean_nats(servers.nats.url)
        await migrate(servers.postgres.url)
        await servers.nats.stop()
    finally:
        await servers.aclose()
