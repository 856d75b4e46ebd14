"""A whole livefeed for one run: real servers and real processes in a folder of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import psutil

from benchmarks.measure import Usage, usage_below, usage_of, usage_of_postgres
from livefeed.adapters.embedded import NatsServer, PostgresReplica, PostgresServer
from livefeed.adapters.nats.connection import Connection, close, connect
from livefeed.adapters.nats.provision import provision
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.reads import read_heads
from livefeed.adapters.postgres.schema import migrate
from livefeed.adapters.process import Child, Launch
from livefeed.errors import Unavailable
from livefeed.limits import MIB
from livefeed.settings import Settings, load_settings

HOST: Final = "127.0.0.1"
READY_SECONDS_MAX: Final = 20.0
LEAVE_SECONDS: Final = 10.0
HEADS_AT_ONCE: Final = 1_000
READ_SECONDS_MAX: Final = 60.0
ENDED_POLL_SECONDS: Final = 0.02
PORTS: Final = range(15_000, 20_000)
"""Below those that the system gives to outgoing connections: a server that is killed and started
again would sometimes find such a port taken."""
SUMMARY: Final = '{"function":'
"""How the line begins that a worker writes when it leaves."""

Part = Literal["gateway", "worker", "pool", "nats", "postgres"]
"""What may be killed, stopped and started again."""


class Stack:
    """Starts everything but the pool on `async with`; at the end it is gone, with its data.

    Args:
        gateways: How many.
        replica: Whether PostgreSQL has one, which the gateways read from.
        settings: For all of its parts, on top of what it sets itself.

    Attributes:
        gateway_ports: Where clients connect.
        keep: Keep the folder, for its logs; set when the run itself fails.
    """

    def __init__(
        self,
        *,
        gateways: int = 1,
        replica: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.gateway_ports = [_server_port() for _ in range(gateways)]
        self.keep = False
        self.folder = Path(tempfile.mkdtemp(prefix="livefeed-bench-"))
        self._nats = NatsServer(
            self.folder / "nats", port=_server_port(), monitor_port=_server_port()
        )
        self._postgres = PostgresServer(self.folder / "postgres", port=_server_port())
        self._replica = (
            PostgresReplica(self._postgres, self.folder / "replica", _server_port())
            if replica
            else None
        )
        self._gateways: dict[int, Child] = {}
        """By their port."""
        self._pool: Child | None = None
        self._pool_settings: dict[str, Any] = {}
        self._settings: dict[str, Any] = {
            "nats_url": self._nats.url,
            "jwt_secret": secrets.token_urlsafe(32),
            "data": str(self.folder),
            # Nobody is sent away when a run ends.
            "drain_wait_seconds": 0,
            "drain_seconds": 0.2,
            **(settings or {}),
        }

    @property
    def nats_url(self) -> str:
        return self._nats.url

    @property
    def jwt_secret(self) -> str:
        return str(self._settings["jwt_secret"])

    @property
    def database_url(self) -> str:
        """Of the primary."""
        return self._postgres.url

    @property
    def has_replica(self) -> bool:
        return self._replica is not None

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(self._nats.start(), self._postgres.start())
            self._settings["database_url"] = self._postgres.url
            await asyncio.gather(migrate(self._postgres.url), self._provision())
            if self._replica is not None:
                await self._replica.start()
                self._settings["replica_urls"] = [self._replica.url]
            await asyncio.gather(*map(self._start_gateway, self.gateway_ports))
        except BaseException:
            await self._stop(keep=True)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None
    ) -> None:
        # Whoever interrupts a run does not want its logs.
        failed = kind is not None and issubclass(kind, Exception)
        await self._stop(keep=self.keep or failed)

    # Processes.

    async def start_pool(self, **settings: Any) -> None:
        """Start the pool, with these settings for it and for its workers."""
        self._pool_settings = settings
        self._pool = self._start("pool", self.folder / "pool.log", settings)

    async def stop_pool(self) -> None:
        """Have the pool and its workers leave."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.stop([(signal.SIGTERM, LEAVE_SECONDS)])

    def start_worker(self, function: str) -> Child:
        """Start one worker without a pool."""
        return self._start(f"worker {function}", self.folder / "worker.log", {})

    def workers_running(self) -> bool:
        """Whether the pool has a worker now."""
        return bool(self.workers())

    def workers(self, *, seconds_min: float = 0.0) -> list[int]:
        """The pids of the pool's workers that have run for so long; there may be none."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if self._pool is not None:
                latest = time.time() - seconds_min
                children = psutil.Process(self._pool.pid).children(recursive=True)
                return [
                    child.pid
                    for child in children
                    if child.create_time() <= latest and "worker" in child.cmdline()
                ]
        return []

    def worker_summaries(self) -> list[dict[str, Any]]:
        """What the pools' workers that have left said of themselves."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.folder / "pool.log").read_text(errors="replace").splitlines()
            return [json.loads(line) for line in lines if line.startswith(SUMMARY)]
        return []

    def usage(self) -> dict[str, Usage]:
        """What each role has used since it began; workers that have left are in it."""
        pools = [self._pool.pid] if self._pool else []
        replica = {"replica": usage_of_postgres(self._replica.pid)} if self._replica else {}
        return {
            "gateway": usage_of(gateway.pid for gateway in self._gateways.values()),
            "workers": usage_below(pools[0]) if pools else Usage(0.0, 0),
            "pool": usage_of(pools),
            "nats": usage_of([self._nats.pid]),
            "postgres": usage_of_postgres(self._postgres.pid),
            **replica,
        }

    def check(self) -> None:
        """Raise Unavailable when a part has died."""
        children = {"pool": self._pool} if self._pool else {}
        children |= {f"gateway {port}": child for port, child in self._gateways.items()}
        for name, child in children.items():
            if child.exit_code is not None:
                raise Unavailable(
                    name, f"it ended with {child.exit_code}; its log:\n{child.tail()}"
                )
        if not (self._nats.running and self._postgres.running):
            raise Unavailable("server", f"NATS or PostgreSQL has died; see {self.folder}")

    def kill(self, *, databases: bool = True) -> None:
        """Kill all processes at once, as a crash would; their data stays, for `start_again`."""
        # A pool that is killed takes nobody along: its workers would go on.
        workers = [psutil.Process(pid) for pid in self.workers()]
        for child in [*([self._pool] if self._pool else []), *self._gateways.values()]:
            child.kill()
        for server in [self._nats, *(self._databases() if databases else [])]:
            server.kill()
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        self._pool = None
        self._gateways.clear()

    async def start_again(self) -> None:
        """Start all but the pool on what `kill` left."""
        await asyncio.gather(self._nats.start(), self.start_databases())
        await asyncio.gather(*map(self._start_gateway, self.gateway_ports))

    async def stop_databases(self) -> None:
        """Stop the primary and its replica; their data stays."""
        await asyncio.gather(*(server.stop() for server in self._databases()))

    async def start_databases(self) -> None:
        """Start them again; what they used before is no more in `usage`."""
        for server in self._databases():
            await server.start()

    # Faults.

    def pids(self, part: Part) -> list[int]:
        """The processes of a part that run, each of which is one that may be killed alone."""
        if part == "worker":
            return self.workers()
        if part in ("nats", "postgres"):
            server = self._nats if part == "nats" else self._postgres
            return [server.pid] if server.running else []
        children = [self._pool] if part == "pool" else list(self._gateways.values())
        return [child.pid for child in children if child and child.exit_code is None]

    async def end(self, part: Part, pid: int, number: signal.Signals) -> None:
        """Send one of its processes a signal, and return when it is gone; SIGKILL after 10 s."""
        deadline = time.monotonic() + LEAVE_SECONDS
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            # Gone is what was waited for: a process whose other threads still write is not.
            while pid in self.pids(part):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(ENDED_POLL_SECONDS)

    async def revive(self) -> None:
        """Start again whatever has ended; workers are the pool's to start."""
        ended = [port for port, child in self._gateways.items() if child.exit_code is not None]
        # Both leave a server that runs as it is.
        await asyncio.gather(self._nats.start(), self._postgres.start())
        await asyncio.gather(*map(self._start_gateway, ended))
        if self._pool is not None and self._pool.exit_code is not None:
            await self.start_pool(**self._pool_settings)

    # Connections.

    async def connect(self, name: str) -> Connection:
        """A connection to its NATS server; the caller closes it."""
        return await connect([self._nats.url], name=name)

    async def stored(self, stream: str) -> int:
        """How many messages a stream has."""
        return int((await self._stream_state(stream)).messages)

    async def stored_ever(self, stream: str) -> int:
        """How many messages a stream ever had."""
        return int((await self._stream_state(stream)).last_seq)

    @contextlib.asynccontextmanager
    async def database(self, *, replica: bool = False) -> AsyncIterator[Pool]:
        """One connection to its PostgreSQL, or to the replica, to look at what is there."""
        server = self._replica if replica and self._replica else self._postgres
        pool = Pool(
            server.url,
            dependency="replica" if replica else "primary",
            connections_max=1,
            timeout_seconds=READ_SECONDS_MAX,
            application="livefeed-bench",
        )
        try:
            yield pool
        finally:
            await pool.close()

    async def heads(self, channels: Sequence[str]) -> dict[str, int]:
        """The heads of channels, read from PostgreSQL."""
        heads: dict[str, int] = {}
        async with self.database() as pool:
            for start in range(0, len(channels), HEADS_AT_ONCE):
                some = channels[start : start + HEADS_AT_ONCE]
                heads.update((await read_heads(pool, some)).heads)
        return heads

    # Inside.

    def _databases(self) -> list[PostgresServer | PostgresReplica]:
        """The primary first."""
        return [self._postgres, *([self._replica] if self._replica else [])]

    async def _stream_state(self, stream: str) -> Any:
        connection = await self.connect("livefeed-bench")
        try:
            return (await connection.jetstream().stream_info(stream)).state
        finally:
            await close(connection)

    async def _provision(self) -> None:
        connection = await self.connect("livefeed-bench")
        try:
            await provision(connection, replicas=1, bytes_max=4096 * MIB)
        finally:
            await close(connection)

    async def _start_gateway(self, port: int) -> None:
        ops_port = _server_port()
        log = self.folder / f"gateway-{port}.log"
        gateway = self._start("gateway", log, {"gateway_port": port, "ops_port": ops_port})
        self._gateways[port] = gateway
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not await _is_ready(ops_port):
            if gateway.exit_code is not None or time.monotonic() > deadline:
                raise Unavailable("gateway", f"it does not start; its log:\n{gateway.tail()}")
            await asyncio.sleep(0.02)

    def _start(self, command: str, log: Path, settings: dict[str, Any]) -> Child:
        argv = [sys.executable, "-m", "livefeed.cli", *command.split()]
        environment = _environment(self._settings | settings)
        return Child(argv, Launch(log=log, directory=self.folder, environment=environment))

    async def _stop(self, *, keep: bool) -> None:
        stops = [(signal.SIGTERM, LEAVE_SECONDS)]
        gateways = (gateway.stop(stops) for gateway in self._gateways.values())
        await asyncio.gather(self.stop_pool(), *gateways)
        # NATS takes half a second to stop in peace, and nobody will read its store.
        self._nats.kill()
        await self.stop_databases()
        if keep:
            print(f"livefeed: the logs of this run are in {self.folder}", file=sys.stderr)
        else:
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


def _server_port() -> int:
    """A port that nobody listens on."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port


def signing_settings(jwt_secret: str) -> Settings:
    """Settings to sign tokens with, whatever the environment says."""
    return load_settings(
        jwt_algorithm="HS256", jwt_secret=jwt_secret, jwt_audience=None, jwt_issuer=None
    )


def _environment(settings: dict[str, Any]) -> dict[str, str]:
    """The environment of a process: these settings, and none of those who run the benchmark."""
    kept = {
        name: value
        for name, value in os.environ.items()
        # Without compiled modules a start would be measured that no installation has.
        if not name.upper().startswith("LIVEFEED_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    # The command's own path, however it was given: `-m` in another folder finds the same code.
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    return kept | {
        f"LIVEFEED_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.items()
    }


async def _is_ready(ops_port: int) -> bool:
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(HOST, ops_port)
            try:
                writer.write(f"GET /readyz HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
