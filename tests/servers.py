"""What all tests share: real servers in a clean state, the real processes on top, how to wait.

The fixtures are in conftest.py: `nats` and `database` are URLs of servers that live as long as the
session, `own_servers` may be killed, and `stack` and `own_stack` run livefeed on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload
from urllib.parse import urlsplit

import jwt
import psutil
import pytest

from livefeed import subjects
from livefeed.adapters.embedded import NatsServer, PostgresReplica, PostgresServer
from livefeed.adapters.nats.connection import Connection, close, connect
from livefeed.adapters.nats.lag import consumer_lag
from livefeed.adapters.nats.publish import PublishAck, Publisher
from livefeed.adapters.process import Child, Launch
from livefeed.errors import Unavailable
from livefeed.limits import MIB
from livefeed.subjects import Lane
from livefeed.topology import LANE_STREAM, UPDATES

if TYPE_CHECKING:
    from livefeed_client import FeedState, Item, LiveFeed, Snapshot

ROOT: Final = Path(__file__).resolve().parents[1]
STREAM_BYTES_MAX: Final = 256 * MIB
TAIL_LINES: Final = 60
PUBLISH_WINDOW: Final = 256
START_SECONDS_MAX: Final = 20.0
PORT_SHARES: Final = 10
"""Of how many processes of tests, side by side, each has ports of its own."""

Update = dict[str, Any]
Found = TypeVar("Found")


# Waiting, and what to do without a tool.


@overload
async def until(
    condition: Callable[[], Awaitable[Found]], *, seconds: float = 10.0, what: str
) -> Found: ...
@overload
async def until(condition: Callable[[], Found], *, seconds: float = 10.0, what: str) -> Found: ...
async def until(condition: Callable[[], Any], *, seconds: float = 10.0, what: str) -> Any:
    """Wait until a condition holds and return what it gave; fail with `what` after a limit."""
    deadline = time.monotonic() + seconds
    pause = 0.002
    while True:
        answer = condition()
        found = await answer if inspect.isawaitable(answer) else answer
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what} (the last look gave {found!r})")
        # Quick at first, for most waits are short; slower later, for looking costs CPU too.
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def require(found: Found | None, reason: str) -> Found:
    """Return a tool that was found; without it skip, or fail where every tier is required."""
    if found:
        return found
    if os.environ.get("LIVEFEED_REQUIRE_TIERS") == "all":
        pytest.fail(f"LIVEFEED_REQUIRE_TIERS=all, and {reason}")
    pytest.skip(reason)


def run_now(work: Coroutine[Any, Any, Found]) -> Found:
    """Run a coroutine where no loop runs, and leave the loop that pytest-asyncio has set alone."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(work)


def server_port() -> int:
    """Return a free port that no other test gets, in this process or in one beside it.

    Below those that the system gives to outgoing connections: a server that is killed and started
    again would sometimes find such a port taken.
    """
    while True:
        port = next(_ports)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _own_ports() -> Iterator[int]:
    """Yield the ports of this process in random order, again and again."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = range(20_000 + number % PORT_SHARES, 32_000, PORT_SHARES)
    return itertools.cycle(random.SystemRandom().sample(share, len(share)))


_ports = _own_ports()


# Updates.

_numbers = itertools.count(1)
_latest = datetime.min.replace(tzinfo=UTC)


def update(
    user: str | None = "alice",
    feed: str = "home",
    id: str = "p1",  # noqa: A002 - what the wire calls it
    *,
    kind: str = "new_content",
    audience: dict[str, Any] | None = None,
    content: dict[str, Any] | list[dict[str, Any]] | None = None,
    **fields: Any,
) -> Update:
    """Return a valid update, newer than every one before it; None for a field leaves it out.

    `content` defaults to the id and a text; other fields have their names on the wire (`updateId`,
    `version`, `timestamp`, `priority`, `metadata`).
    """
    number = next(_numbers)
    given = {
        "updateId": f"u{number}-{secrets.token_hex(4)}",
        "userId": user if audience is None else None,
        "audience": audience,
        "feedType": feed,
        "updateType": kind,
        "content": {"id": id, "text": f"text {number}"} if content is None else content,
        "timestamp": _later().isoformat().replace("+00:00", "Z"),
    }
    return {name: value for name, value in {**given, **fields}.items() if value is not None}


def _later() -> datetime:
    """Return the time, or a microsecond more than the last time where the clock is too coarse."""
    global _latest  # noqa: PLW0603 - one clock for all updates of the session
    _latest = max(datetime.now(UTC), _latest + timedelta(microseconds=1))
    return _latest


@dataclass
class OwnServers:
    """Servers of one test, migrated and provisioned, which it may kill, stop and start again."""

    nats: NatsServer
    postgres: PostgresServer
    replica: PostgresReplica | None = None

    async def start_replica(self) -> PostgresReplica:
        """Start a replica of the primary; it may be promoted."""
        directory = self.postgres.directory.with_name("replica")
        self.replica = PostgresReplica(self.postgres, directory, server_port())
        await self.replica.start()
        return self.replica

    def tails(self) -> Iterable[tuple[str, str]]:
        """The last lines of their logs, with a title each."""
        servers = [self.nats, self.postgres, *([self.replica] if self.replica else [])]
        return tails(server.log for server in servers)

    async def aclose(self) -> None:
        """End all of them."""
        # NATS takes half a second to stop in peace, and nobody will read its store.
        self.nats.kill()
        if self.replica is not None:
            await self.replica.stop()
        await self.postgres.stop()


@contextlib.asynccontextmanager
async def connected(urls: str) -> AsyncIterator[Connection]:
    """A connection of its own to NATS."""
    connection = await connect(urls.split(","), name="tests")
    try:
        yield connection
    finally:
        await close(connection)


@contextlib.contextmanager
def running_replica(primary: PostgresServer, directory: Path) -> Iterator[PostgresReplica]:
    """A streaming replica, where no loop runs, until the context ends."""
    server = PostgresReplica(primary, directory, server_port())
    run_now(server.start())
    yield server
    run_now(server.stop())


@contextlib.contextmanager
def frozen(server: PostgresServer | PostgresReplica) -> Iterator[None]:
    """Stop all processes of a PostgreSQL for a while: it hangs, and is not gone."""
    pid = int((server.data / "postmaster.pid").read_text(encoding="ascii").split()[0])
    postmaster = psutil.Process(pid)
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def tails(logs: Iterable[Path]) -> Iterable[tuple[str, str]]:
    """The last lines of some logs, with a title each."""
    for log in logs:
        if log.exists():
            lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
            yield f"the end of {log.name}", "\n".join(lines)


# The processes of livefeed.


class Process:
    """One `livefeed` command as a real process, which can be killed and started again."""

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        log: Path,
        ready: Callable[[Process], Awaitable[bool]],
    ) -> None:
        self.command = list(command)
        self.log = log
        self._environment = environment
        self._ready = ready
        self._child: Child | None = None
        port = environment.get("LIVEFEED_GATEWAY_PORT")
        self.url = f"http://127.0.0.1:{port}"
        """Where clients connect, if it is a gateway."""
        self.ops_url = f"http://127.0.0.1:{environment.get('LIVEFEED_OPS_PORT')}"

    @property
    def pid(self) -> int:
        return self._started().pid

    @property
    def exit_code(self) -> int | None:
        return self._started().exit_code

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.exit_code is None

    def output(self) -> str:
        """Read what it wrote since its last start."""
        return self._started().output()

    async def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it is ready."""
        argv = [sys.executable, "-m", "livefeed.cli", *self.command]
        launch = Launch(self.log, self.log.parent, environment=self._environment)
        self._child = Child(argv, launch)
        if wait:
            await self.ready()

    async def ready(self) -> None:
        """Wait until it is ready; fails at once when it has ended."""
        await until(self._is_ready, seconds=START_SECONDS_MAX, what=f"{self.command} is ready")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it as a crash would; returns when it is gone."""
        self._started().kill()

    async def stop(self, seconds: float = 15.0) -> int:
        """Ask it to leave, and return its exit code; it is killed after some seconds."""
        return await self._started().stop([(signal.SIGTERM, seconds)])

    async def wait(self, seconds: float = 30.0) -> int:
        """Wait until it ends by itself, and return its exit code."""
        async with asyncio.timeout(seconds):
            return await self._started().wait()

    async def _is_ready(self) -> bool:
        if self.exit_code is not None:
            pytest.fail(f"{self.command} ended with {self.exit_code}:\n{self.output()}")
        return await self._ready(self)

    def _started(self) -> Child:
        assert self._child is not None, f"{self.command} was not started"
        return self._child


class Follower:
    """A client that a task of its own reads: what came is in `frames`, what it means in `state`."""

    def __init__(self, client: LiveFeed) -> None:
        self.client = client
        self.frames: list[dict[str, Any]] = []
        self.error: BaseException | None = None
        """Why it was sent away for good."""
        self._task = asyncio.create_task(self._read(), name="follower")

    @property
    def state(self) -> FeedState:
        return self.client.state

    def items(self, feed: str) -> list[Item]:
        """What is shown in a feed, in feed order."""
        return self.state.items(feed)

    def ids(self, feed: str) -> list[str]:
        """The ids of what is shown in a feed, in feed order."""
        return [item.id for item in self.items(feed)]

    def frames_of(self, kind: str) -> list[dict[str, Any]]:
        """Every frame of one type."""
        return [frame for frame in self.frames if frame["type"] == kind]

    async def caught_up(self, *, seconds: float = 10.0) -> None:
        """Wait until the server has said once that this client has everything."""
        await until(
            lambda: self.error or self.frames_of("caught_up"), seconds=seconds, what="caught up"
        )
        assert self.error is None, self.error

    async def aclose(self) -> None:
        """Leave."""
        await self.client.aclose()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for frame in self.client:
                self.frames.append(frame)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test wants to see it
            self.error = error


class Stack:
    """livefeed for one test: settings, processes, a publisher, clients. Nothing is started yet.

    Args:
        directory: Where logs and data go; its name marks every process of this test.
        settings: Of livefeed, by name; may be changed until a process is started.
    """

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self.settings: dict[str, Any] = {
            "stream_bytes_max": STREAM_BYTES_MAX,
            "jwt_secret": secrets.token_hex(32),
            "drain_wait_seconds": 0,
            "drain_seconds": 0.2,
            "window_medium_seconds": 0.2,
            "window_low_seconds": 0.4,
            # What is read is what is there; the tests of caching say otherwise.
            "snapshot_fresh_seconds": 0,
            **settings,
        }
        self._modules = directory / "modules"
        self.processes: list[Process] = []
        self.gateways: list[Process] = []
        self._clients: list[Follower | LiveFeed] = []
        self._nats: tuple[Connection, Publisher] | None = None
        (directory / "logs").mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """Where clients connect: the first gateway."""
        return self.gateways[0].url

    @property
    def database_url(self) -> str:
        return str(self.settings["database_url"])

    def environment(self, **more: Any) -> dict[str, str]:
        """Return the environment of a process: these settings, and none of the developer's."""
        kept = {
            name: value
            for name, value in os.environ.items()
            # Hundreds of processes are started: without compiled modules each takes a fifth longer.
            if not name.upper().startswith("LIVEFEED_") and name != "PYTHONDONTWRITEBYTECODE"
        }
        values = {**self.settings, "data": str(self.directory / "data"), **more}
        named = {
            f"LIVEFEED_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
            for name, value in values.items()
            if value is not None
        }
        path = os.pathsep.join(map(str, [ROOT, ROOT / "clients" / "python", self._modules]))
        # Whatever else the caller's path names, such as a package that its environment lacks.
        path = os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH")]))
        return {**kept, **named, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}

    # Processes.

    async def start_gateway(self, *, wait: bool = True, **settings: Any) -> Process:
        """Start a gateway on ports of its own."""
        ports = {"gateway_port": server_port(), "ops_port": server_port()}
        gateway = self._process(["gateway"], _answers_ready, {**ports, **settings})
        self.gateways.append(gateway)
        await gateway.start(wait=wait)
        return gateway

    async def start_pool(self, *, wait: bool = True, **settings: Any) -> Process:
        """Start a pool, which starts workers when there is work."""
        pool = self._process(["pool"], self._reached_nats, settings)
        await pool.start(wait=wait)
        return pool

    async def start_worker(
        self, function: str, *arguments: str, wait: bool = True, **settings: Any
    ) -> Process:
        """Start one worker without a pool."""
        command = ["worker", function, *arguments]
        worker = self._process(command, self._reached_nats, settings)
        await worker.start(wait=wait)
        return worker

    async def command(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command of livefeed to its end, whatever its exit code."""
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "livefeed.cli", *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            cwd=self.directory,
            env=self.environment(),
            text=True,
            timeout=60,
        )

    def plug_in(self, source: str, **functions: str) -> None:
        """Put a module on the path of every process, and name its functions in the settings."""
        self._modules.mkdir(exist_ok=True)
        (self._modules / "feed_plugins.py").write_text(textwrap.dedent(source))
        for setting, function in functions.items():
            self.settings[setting] = f"feed_plugins:{function}"

    def worker_pids(self, function: str) -> list[int]:
        """Return the pids of this test's workers of a function, whoever started them."""
        return [
            process.pid
            for process in self._running()
            if {"worker", function} <= set(process.info["cmdline"] or [])
        ]

    def tails(self) -> Iterable[tuple[str, str]]:
        """The last lines of every log, with a title each."""
        return tails(sorted((self.directory / "logs").glob("*.log")))

    # Publishing and following.

    async def publish(
        self, updates: Iterable[Update], priority: Lane = "medium"
    ) -> list[PublishAck]:
        """Publish updates, and return JetStream's acknowledgements in the same order."""
        _, publisher = await self._connected()
        window = asyncio.Semaphore(PUBLISH_WINDOW)
        subject = subjects.updates(priority, "tests")

        async def publish(one: Update) -> PublishAck:
            headers = {"Nats-Msg-Id": one["updateId"]}
            async with window:
                return await publisher.publish(subject, json.dumps(one).encode(), headers)

        # All of them come to an end, also when one of them fails.
        done = await asyncio.gather(*map(publish, updates), return_exceptions=True)
        for failed in done:
            if isinstance(failed, BaseException):
                raise failed
        return [ack for ack in done if isinstance(ack, PublishAck)]

    async def nats(self) -> Connection:
        """Return a connection of the test's own, which outlives the server's restarts."""
        return (await self._connected())[0]

    async def settled(self, *, seconds: float = 30.0) -> None:
        """Wait until every message was handled: none is pending, none in a worker's hands."""
        await until(self._nothing_waits, seconds=seconds, what="all messages are handled")

    def token(self, user: str, feeds: Sequence[str] | None = None, **claims: Any) -> str:
        """Return a token of a user, valid for an hour; None for a claim leaves it out."""
        given: dict[str, Any] = {"sub": user, "exp": int(time.time()) + 3600, "feeds": feeds}
        given = {name: value for name, value in (given | claims).items() if value is not None}
        return jwt.encode(given, self.settings["jwt_secret"], algorithm="HS256")

    def connect(
        self,
        user: str,
        feeds: Sequence[str] = ("home",),
        *,
        gateway: Process | None = None,
        url: str | None = None,
        **options: Any,
    ) -> LiveFeed:
        """Return a client that the test itself iterates over; options go to `LiveFeed`."""
        from livefeed_client import LiveFeed, Timing  # noqa: PLC0415 - few tests need it

        options.setdefault("token", self.token(user))
        options.setdefault("timing", Timing(backoff_first=0.05, backoff_max=0.5))
        url = url or (self.url if gateway is None else gateway.url)
        client = LiveFeed(url, feeds=feeds, **options)
        self._clients.append(client)
        return client

    def follow(self, user: str, feeds: Sequence[str] = ("home",), **options: Any) -> Follower:
        """Return a client that is read by a task of its own; options as for `connect`."""
        follower = Follower(self.connect(user, feeds, **options))
        self._clients[-1] = follower
        return follower

    async def snapshot(self, user: str, feed: str = "home", **options: Any) -> Snapshot:
        """Read a feed over HTTP, all pages."""
        from livefeed_client import fetch_snapshot  # noqa: PLC0415 - few tests need it

        options.setdefault("token", self.token(user))
        url = options.pop("url", self.url)
        return await fetch_snapshot(url, feed=feed, **options)

    async def aclose(self) -> None:
        """End everything that this test started, at once."""
        await asyncio.gather(*(client.aclose() for client in self._clients))
        if self._nats is not None:
            with contextlib.suppress(OSError):  # the test may have killed its server
                await close(self._nats[0])
        for process in self.processes:
            if process.running:
                process.kill()
        # Workers outlive a pool that was killed, and would take the next test's messages.
        while left := self._running():
            for orphan in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    orphan.kill()
            psutil.wait_procs(left, timeout=5)

    def _process(
        self,
        command: Sequence[str],
        ready: Callable[[Process], Awaitable[bool]],
        settings: dict[str, Any],
    ) -> Process:
        log = self.directory / "logs" / f"{len(self.processes)}-{'-'.join(command)}.log"
        process = Process(command, self.environment(**settings), log, ready)
        self.processes.append(process)
        return process

    def _running(self) -> list[psutil.Process]:
        """Find every process that has this test's data directory in its environment."""
        mark = str(self.directory / "data")
        found = []
        for process in psutil.process_iter(["cmdline"]):
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get("LIVEFEED_DATA") == mark:
                    found.append(process)
        return found

    async def _connected(self) -> tuple[Connection, Publisher]:
        if self._nats is None:
            connection = await connect(self.settings["nats_url"].split(","), name="tests")
            publisher = Publisher(connection)
            publisher.start()
            self._nats = connection, publisher
        return self._nats

    async def _nothing_waits(self) -> bool:
        connection = await self.nats()
        try:
            # In this order: what leaves the first stream is in the second before it does. Twice:
            # a consumer hears of a new message a moment after its publisher does.
            for stream in (UPDATES, LANE_STREAM) * 2:
                if any((await consumer_lag(connection, stream)).values()):
                    return False
        except Unavailable:
            return False
        return True

    async def _reached_nats(self, process: Process) -> bool:
        ports = {urlsplit(url).port for url in self.settings["nats_url"].split(",")}
        return any(
            connection.status == psutil.CONN_ESTABLISHED and connection.raddr.port in ports
            for connection in psutil.Process(process.pid).net_connections("tcp")
        )


async def _answers_ready(gateway: Process) -> bool:
    return await http_status(f"{gateway.ops_url}/readyz") == 200


async def http_status(url: str) -> int:
    """Return the status of a GET, or 0 when nobody answers."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(f"GET {parts.path} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
                words = (await reader.readline()).split()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return 0
    return int(words[1]) if len(words) > 1 else 0
