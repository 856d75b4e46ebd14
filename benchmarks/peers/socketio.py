"""Socket.IO, in Node.js and in Python: servers with one protocol.

They have a `publish` event, which the benchmark's publisher sends over a WebSocket of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.load_generator import HANDSHAKE_SECONDS_MAX, TEXT, Client, open_client
from benchmarks.peers.device import Send, Upgrade
from benchmarks.peers.install import HERE, npm_packages, python_packages
from benchmarks.peers.peer import POWER_CUT, Program, ServerPeer, find_program, output_of
from benchmarks.peers.redis import REDIS_ACKNOWLEDGED, redis_program, redis_version
from benchmarks.peers.sender import Publish
from benchmarks.stack import HOST
from livefeed.adapters.embedded import free_port
from livefeed.errors import OutcomeUnknown

PATH: Final = "/socket.io/?EIO=4&transport=websocket"
OPEN, PING, PONG = b"0", b"2", b"3"
CONNECT, REFUSED, EVENT, ACK = b"40", b"44", b"42", b"43"
MESSAGE: Final = b'42["message",'
ACK_SECONDS_MAX: Final = 20.0
NODE_PACKAGES: Final = "nodejs npm"


class SocketIoPeer(ServerPeer):
    """Socket.IO on Node.js; durable, with connection state recovery."""

    name = "socketio"
    title = "Socket.IO"
    front = "node"
    acknowledged = "nothing (memory)"

    def __init__(self, folder: Path, *, durable: bool, fsync: bool = False) -> None:
        super().__init__(folder, durable=durable, fsync=fsync)
        self._modules = Path()

    async def prepare(self) -> str:
        node = find_program("node", NODE_PACKAGES)
        self._modules = await npm_packages(HERE / "socketio")
        package = (self._modules / "socket.io" / "package.json").read_bytes()
        version = msgspec.json.decode(package)["version"]
        native = "with" if (self._modules / "bufferutil" / "prebuilds").is_dir() else "without"
        return f"{version}, node {output_of(node, '--version').strip()}, {native} bufferutil"

    def programs(self) -> list[Program]:
        return [self._node(*(["recovery"] if self.durable else []))]

    @property
    def dialect(self) -> SocketIoDialect:
        return SocketIoDialect(self.port, recovery=self.durable)

    @property
    def publishing(self) -> SocketIoPublishing:
        return SocketIoPublishing(self.port)

    def _node(self, *arguments: str) -> Program:
        script = str(HERE / "socketio" / "server.cjs")
        argv = [find_program("node", NODE_PACKAGES), script, str(self.port), *arguments]
        environment = {**os.environ, "NODE_PATH": str(self._modules), "NODE_ENV": "production"}
        return Program("node", argv, self.port, environment=environment)


class RedisSocketIoPeer(SocketIoPeer):
    """The same with its Redis Streams adapter, which stores what it sends and who was there."""

    name = "socketio-redis"
    title = "Socket.IO, Redis Streams"
    volatile = False
    acknowledged = REDIS_ACKNOWLEDGED
    acknowledged_fsync = POWER_CUT

    def __init__(self, folder: Path, *, durable: bool, fsync: bool = False) -> None:
        super().__init__(folder, durable=durable, fsync=fsync)
        self.redis_port = free_port()

    async def prepare(self) -> str:
        return f"{await super().prepare()}, {redis_version()}"

    def programs(self) -> list[Program]:
        redis = redis_program(self, self.redis_port)
        return [redis, self._node("recovery", str(self.redis_port))]


class PythonSocketIoPeer(ServerPeer):
    """python-socketio on uvicorn; it has nothing that is durable."""

    name = "python-socketio"
    title = "python-socketio"
    front = "python"
    acknowledged = "nothing (memory)"

    def __init__(self, folder: Path, *, durable: bool, fsync: bool = False) -> None:
        super().__init__(folder, durable=durable, fsync=fsync)
        self._python = Path()

    async def prepare(self) -> str:
        self._python = await python_packages("python")
        lock = (HERE / "python" / "requirements.txt").read_text(encoding="utf-8")
        versions = dict(re.findall(r"^([\w-]+)==([\w.]+)", lock, re.MULTILINE))
        return ", ".join(f"{name} {versions[name]}" for name in ("python-socketio", "uvicorn"))

    def programs(self) -> list[Program]:
        # -I: what is installed beside us must not be found instead of what it locks.
        argv = [str(self._python), "-I", str(HERE / "python" / "server.py"), str(self.port)]
        return [Program("python", argv, self.port)]

    @property
    def dialect(self) -> SocketIoDialect:
        return SocketIoDialect(self.port, recovery=False)

    @property
    def publishing(self) -> SocketIoPublishing:
        return SocketIoPublishing(self.port)


@dataclass(frozen=True, slots=True)
class SocketIoDialect:
    """Socket.IO's fifth protocol in text frames."""

    port: int
    recovery: bool
    opcode: int = TEXT

    def device(self, user: str, channel: str) -> SocketIoDevice:
        """A device that is in one room."""
        return SocketIoDevice(channel, recovery=self.recovery)


class SocketIoDevice:
    """A socket in the default namespace."""

    __slots__ = ("_last", "_recovery", "_room", "_session", "ready")

    def __init__(self, room: str, *, recovery: bool) -> None:
        self._room = room
        self._recovery = recovery
        self._session = ""
        """The private id of the session, where the server gives one."""
        self._last = ""
        """The id of the last message in it."""
        self.ready = False

    def upgrade(self) -> Upgrade:
        """Begin a connection."""
        self.ready = False
        return Upgrade(PATH)

    def opened(self, _send: Send) -> None:
        """The server speaks first."""

    def take(self, frame: bytes, send: Send) -> Sequence[bytes]:
        """The message of a frame, if it is one."""
        if frame.startswith(MESSAGE):
            if not self._recovery:
                return (frame[len(MESSAGE) : -1],)
            # [name, message, id]: the id is a short string at the end.
            end = frame.rindex(b',"')
            self._last = frame[end + 2 : -2].decode()
            return (frame[len(MESSAGE) : end],)
        if frame == PING:
            send(PONG)
        elif frame.startswith(CONNECT):
            self._session = msgspec.json.decode(frame[2:]).get("pid", "")
            self.ready = True
        elif frame.startswith(OPEN):
            asked = {"room": self._room}
            if self._session and self._last:
                asked |= {"pid": self._session, "offset": self._last}
            send(CONNECT + msgspec.json.encode(asked))
        elif frame.startswith(REFUSED):
            raise ConnectionError(frame.decode())
        return ()


@dataclass(frozen=True, slots=True)
class SocketIoPublishing:
    """Publishes by an event over one socket; the server acknowledges it."""

    port: int

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Publish]:
        """Connect."""
        waiting: dict[bytes, asyncio.Future[None]] = {}
        connected = asyncio.Event()
        numbers = itertools.count()

        def on_frame(client: Client, frame: bytes) -> None:
            if frame.startswith(ACK):
                future = waiting.pop(frame[2 : frame.index(b"[")], None)
                if future is not None:
                    future.set_result(None)
            elif frame == PING:
                client.send(PONG)
            elif frame.startswith(CONNECT):
                connected.set()
            elif frame.startswith(OPEN):
                client.send(CONNECT + b"{}")

        def on_closed(_client: Client) -> None:
            for future in waiting.values():
                future.set_exception(OutcomeUnknown("the server closed the connection"))

        client = Client(on_frame, host=HOST, port=self.port, path=PATH, subprotocol="")
        await open_client(client, HOST, self.port, None, seconds=HANDSHAKE_SECONDS_MAX)
        client.on_closed = on_closed
        async with asyncio.timeout(ACK_SECONDS_MAX):
            await connected.wait()

        async def publish(channel: str, payload: bytes, _message_id: str) -> None:
            number = b"%d" % next(numbers)
            future = waiting[number] = asyncio.get_running_loop().create_future()
            client.send(EVENT + number + b'["publish","%b",%b]' % (channel.encode(), payload))
            try:
                async with asyncio.timeout(ACK_SECONDS_MAX):
                    await future
            except TimeoutError:
                waiting.pop(number, None)
                raise OutcomeUnknown("the server did not acknowledge a message") from None

        try:
            yield publish
        finally:
            client.on_closed = None
            client.cut()
