"""nats-server's own WebSocket: core NATS, or a stream whose messages are published again.

Durable, there are two ways to have messages stored before they are delivered, and replayed: a
consumer for each client, or a stream that republishes what it stored to whoever is connected, and
direct gets of what was missed. The second one is measured: it keeps no state for a client and needs
no acknowledgements, so it is the cheaper one, and a client sees by itself when it missed something.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.load_generator import BINARY
from benchmarks.peers.device import Send, Upgrade
from benchmarks.peers.peer import POWER_CUT, Program, ServerPeer, output_of
from benchmarks.peers.sender import Publish
from livefeed.adapters.embedded import free_port
from livefeed.adapters.embedded.nats_server import find_nats_server
from livefeed.adapters.nats.connection import close, connect
from livefeed.adapters.nats.publish import Publisher
from livefeed.errors import Unavailable

STREAM: Final = "FEED"
STORED: Final = "feed"
"""Where messages are published, and stored if they are."""
LIVE: Final = "live"
"""Where a stream publishes them again."""
BATCH: Final = 500
END: Final = b"\r\n"
MISSED_SID: Final = b"2"
API_SECONDS_MAX: Final = 5.0


class NatsPeer(ServerPeer):
    """One nats-server."""

    name = "nats"
    title = "nats-server WebSocket"
    front = "nats"
    acknowledged = "a crash (fsync every 2 min)"
    acknowledged_fsync = POWER_CUT

    def __init__(self, folder: Path, *, durable: bool, fsync: bool = False) -> None:
        super().__init__(folder, durable=durable, fsync=fsync)
        self.websocket_port = free_port()

    async def prepare(self) -> str:
        return output_of(str(find_nats_server()), "--version").strip()

    def programs(self) -> list[Program]:
        name = "nats-durable.conf" if self.durable else "nats.conf"
        path = self.configure(
            name,
            port=self.port,
            websocket_port=self.websocket_port,
            sync_interval="always" if self.fsync else "2m",
        )
        argv = [str(find_nats_server()), "-c", str(path)]
        return [Program("nats", argv, self.websocket_port)]

    async def start(self) -> None:
        await super().start()
        if self.durable:
            await self._make_stream()

    @property
    def dialect(self) -> NatsDialect:
        return NatsDialect(self.websocket_port, self.durable)

    @property
    def publishing(self) -> NatsPublishing:
        return NatsPublishing(f"nats://127.0.0.1:{self.port}", self.durable)

    async def _make_stream(self) -> None:
        config = {
            "name": STREAM,
            "subjects": [f"{STORED}.>"],
            "storage": "file",
            "allow_direct": True,
            "republish": {"src": f"{STORED}.>", "dest": f"{LIVE}.>"},
        }
        connection = await connect([f"nats://127.0.0.1:{self.port}"], name="peers")
        try:
            payload = msgspec.json.encode(config)
            subject = f"$JS.API.STREAM.CREATE.{STREAM}"
            answer = await connection.request(subject, payload, timeout=API_SECONDS_MAX)
        finally:
            await close(connection)
        if "error" in (said := msgspec.json.decode(answer.data)):
            raise Unavailable("nats", f"no stream: {said['error']}")


@dataclass(frozen=True, slots=True)
class NatsPublishing:
    """Publishes over a connection that is not a WebSocket, as a back end would."""

    url: str
    durable: bool

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Publish]:
        """Connect."""
        connection = await connect([self.url], name="peers-publisher")
        publisher = Publisher(connection)
        publisher.start()

        async def store(channel: str, payload: bytes, message_id: str) -> None:
            await publisher.publish(f"{STORED}.{channel}", payload, {"Nats-Msg-Id": message_id})

        async def pass_on(channel: str, payload: bytes, _message_id: str) -> None:
            await connection.publish(f"{STORED}.{channel}", payload)
            await connection.flush()

        try:
            yield store if self.durable else pass_on
        finally:
            await close(connection)


@dataclass(frozen=True, slots=True)
class NatsDialect:
    """The protocol of NATS in binary frames."""

    port: int
    durable: bool
    opcode: int = BINARY

    def device(self, user: str, channel: str) -> NatsDevice:
        """A device that subscribes to one subject."""
        if self.durable:
            return ReplayingDevice(f"{LIVE}.{channel}", channel, f"_INBOX.{user}")
        return NatsDevice(f"{STORED}.{channel}")


@dataclass(frozen=True, slots=True)
class Delivered:
    """One message of the server."""

    sid: bytes
    headers: bytes
    payload: bytes


class NatsParser:
    """Cuts a stream of bytes into what the server says; `+OK`, INFO and errors are left out."""

    __slots__ = ("_held", "pinged", "ponged")

    def __init__(self) -> None:
        self._held = b""
        self.pinged = self.ponged = False

    def feed(self, data: bytes) -> list[Delivered]:
        """The messages that these bytes complete."""
        held = self._held + data if self._held else data
        found: list[Delivered] = []
        start = 0
        while (end := held.find(END, start)) >= 0:
            line, after = held[start:end], end + 2
            if line.startswith((b"MSG ", b"HMSG ")):
                words = line.split(b" ")
                after += int(words[-1]) + 2
                if after > len(held):
                    break
                body = held[end + 2 : after - 2]
                headers = int(words[-2]) if words[0] == b"HMSG" else 0
                found.append(Delivered(words[2], body[:headers], body[headers:]))
            elif line == b"PING":
                self.pinged = True
            elif line == b"PONG":
                self.ponged = True
            elif line.startswith(b"-ERR"):
                raise ConnectionError(line.decode())
            start = after
        self._held = held[start:]
        return found


class NatsDevice:
    """A subscription to one subject, at most once."""

    __slots__ = ("_parser", "_subject", "ready")

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._parser = NatsParser()
        self.ready = False

    def upgrade(self) -> Upgrade:
        """Begin a connection."""
        self.ready = False
        self._parser = NatsParser()
        return Upgrade("/")

    def opened(self, send: Send) -> None:
        """Subscribe; the answer to the ping says that it is done."""
        options = b'{"verbose":false,"pedantic":false,"headers":true,"no_responders":true}'
        send(b"CONNECT %b\r\nSUB %b 1\r\nPING\r\n" % (options, self._subject.encode()))

    def take(self, frame: bytes, send: Send) -> Sequence[bytes]:
        """The payloads of its messages."""
        delivered = self._parser.feed(frame)
        self._answer(send)
        return [one.payload for one in delivered]

    def _answer(self, send: Send) -> None:
        parser = self._parser
        if parser.pinged:
            parser.pinged = False
            send(b"PONG\r\n")
        if parser.ponged:
            self.ready = True


class ReplayingDevice(NatsDevice):
    """The same, of a stream's republished messages; what is missing is read from the stream."""

    __slots__ = ("_asking", "_channel", "_inbox", "_later", "_position", "_requests")

    def __init__(self, subject: str, channel: str, inbox: str) -> None:
        super().__init__(subject)
        self._channel = channel
        self._inbox = inbox
        self._requests = itertools.count()
        self._position = 0
        """Sequence in the stream of the last message of this channel that was shown."""
        self._asking = False
        self._later: list[Delivered] = []
        """What came live meanwhile."""

    def upgrade(self) -> Upgrade:
        """Begin a connection."""
        self._asking = False
        self._later = []
        return super().upgrade()

    def opened(self, send: Send) -> None:
        """Subscribe first, then ask for what was missed: nothing falls between the two."""
        super().opened(send)
        send(b"SUB %b.* %b\r\n" % (self._inbox.encode(), MISSED_SID))
        self._ask(send)

    def take(self, frame: bytes, send: Send) -> Sequence[bytes]:
        """The payloads of its messages, without gaps."""
        shown: list[bytes] = []
        for one in self._parser.feed(frame):
            if one.sid == MISSED_SID:
                self._take_missed(one, shown, send)
            else:
                self._take_live(one, shown, send)
        if self._parser.pinged:
            self._answer(send)
        return shown

    def _take_live(self, one: Delivered, shown: list[bytes], send: Send) -> None:
        if self._asking:
            self._later.append(one)
            return
        sequence = _number(one.headers, b"\r\nNats-Sequence: ")
        if sequence <= self._position:
            return
        if _number(one.headers, b"\r\nNats-Last-Sequence: ") > self._position:
            self._later.append(one)
            self._ask(send)
            return
        self._position = sequence
        shown.append(one.payload)

    def _take_missed(self, one: Delivered, shown: list[bytes], send: Send) -> None:
        if one.headers.startswith(b"NATS/1.0\r\n"):
            self._position = _number(one.headers, b"\r\nNats-Sequence: ")
            shown.append(one.payload)
            return
        # A status: the end of a batch, or that there is nothing.
        self._asking = False
        if one.headers.startswith(b"NATS/1.0 204") and _number(
            one.headers, b"\r\nNats-Num-Pending: "
        ):
            self._ask(send)
            return
        later, self._later = self._later, []
        for live in later:
            self._take_live(live, shown, send)
        self.ready = True

    def _ask(self, send: Send) -> None:
        self._asking = True
        asked = {
            "seq": self._position + 1,
            "next_by_subj": f"{STORED}.{self._channel}",
            "batch": BATCH,
        }
        payload = msgspec.json.encode(asked)
        head = (
            f"PUB $JS.API.DIRECT.GET.{STREAM} {self._inbox}.{next(self._requests)} {len(payload)}"
        )
        send(head.encode() + END + payload + END)


def _number(headers: bytes, name: bytes) -> int:
    """The number that a header has, or 0."""
    start = headers.find(name)
    if start < 0:
        return 0
    start += len(name)
    return int(headers[start : headers.find(END, start)])
