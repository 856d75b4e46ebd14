"""livefeed itself, by the same clients and the same publisher as its peers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.clients import TOKEN_SECONDS
from benchmarks.load_generator import SUBPROTOCOL, TEXT
from benchmarks.measure import Usage
from benchmarks.peers.device import Send, Upgrade
from benchmarks.peers.message import EVERYONE
from benchmarks.peers.peer import POWER_CUT, Peer, output_of
from benchmarks.peers.sender import Publish
from benchmarks.stack import Stack, signing_settings
from livefeed import subjects
from livefeed.adapters.embedded.nats_server import find_nats_server
from livefeed.adapters.embedded.postgres_server import find_programs
from livefeed.adapters.nats.connection import close, connect
from livefeed.adapters.nats.publish import Publisher
from livefeed.adapters.tokens import sign

FEED: Final = "home"


class LivefeedPeer(Peer):
    """A whole stack: NATS, a pool with its workers, PostgreSQL, a gateway."""

    name = "livefeed"
    title = "livefeed"
    front = "gateway"
    acknowledged = POWER_CUT
    # What a killed worker had in hand comes again when its time for it is over, which is 5 s; and a
    # pool that starts anew on a busy computer needs some more.
    redelivery_seconds = 60.0

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool,
        fsync: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(folder, durable=durable, fsync=fsync)
        self._settings = settings or {}
        self._stack: Stack | None = None

    async def prepare(self) -> str:
        nats = output_of(str(find_nats_server()), "--version").strip()
        postgres = output_of(str(find_programs() / "postgres"), "--version").strip()
        return f"{nats}, {postgres}"

    async def start(self) -> None:
        if self._stack is None:
            stack = Stack(settings=self._settings)
            await stack.__aenter__()
            self._stack = stack
        else:
            await self._stack.start_again()
        await self._stack.start_pool()

    def kill(self) -> None:
        if self._stack is not None:
            self._stack.kill()

    async def close(self) -> None:
        if self._stack is not None:
            stack, self._stack = self._stack, None
            # Nobody waits for anything any more; but a killed PostgreSQL leaves shared memory.
            stack.kill(databases=False)
            await stack.__aexit__(None, None, None)

    def usage(self) -> dict[str, Usage]:
        return self._running.usage()

    def check(self) -> None:
        self._running.check()

    @property
    def dialect(self) -> LivefeedDialect:
        return LivefeedDialect(self._running.gateway_ports[0], self._running.jwt_secret)

    @property
    def publishing(self) -> LivefeedPublishing:
        return LivefeedPublishing(self._running.nats_url)

    @property
    def _running(self) -> Stack:
        assert self._stack is not None, "it was not started yet"
        return self._stack


@dataclass(frozen=True, slots=True)
class LivefeedPublishing:
    """Publishes updates of high priority on JetStream."""

    nats_url: str

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Publish]:
        """Connect."""
        connection = await connect([self.nats_url], name="peers-publisher")
        publisher = Publisher(connection)
        publisher.start()

        async def publish(channel: str, payload: bytes, message_id: str) -> None:
            whom = {"audience": {"feed": True}} if channel == EVERYONE else {"userId": channel}
            update = {
                "updateId": message_id,
                **whom,
                "feedType": FEED,
                "updateType": "new_content",
                "content": msgspec.Raw(payload),
                "priority": "high",
                "timestamp": datetime.now(UTC).isoformat(),
            }
            subject, headers = subjects.updates("high", "bench"), {"Nats-Msg-Id": message_id}
            await publisher.publish(subject, msgspec.json.encode(update), headers)

        try:
            yield publish
        finally:
            await close(connection)


@dataclass(frozen=True, slots=True)
class LivefeedDialect:
    """The protocol of docs/protocol.md."""

    port: int
    jwt_secret: str
    opcode: int = TEXT

    def device(self, user: str, channel: str) -> LivefeedDevice:
        """A device of a user on a feed; its channels are those of every user."""
        return LivefeedDevice(user, self.jwt_secret)


class _Update(msgspec.Struct, gc=False):
    content: msgspec.Raw


class _Frame(msgspec.Struct):
    type: str
    updates: list[_Update] = []
    cursor: dict[str, int] = {}
    epoch: str = ""


_decode = msgspec.json.Decoder(_Frame).decode


class LivefeedDevice:
    """A client that holds a cursor."""

    __slots__ = ("_epoch", "_jwt_secret", "_positions", "_user", "ready")

    def __init__(self, user: str, jwt_secret: str) -> None:
        self._user = user
        self._jwt_secret = jwt_secret
        self._epoch = ""
        self._positions: dict[str, int] = {}
        self.ready = False

    def upgrade(self) -> Upgrade:
        """Begin a connection."""
        self.ready = False
        claims = {"sub": self._user, "exp": int(time.time()) + TOKEN_SECONDS}
        token = sign(signing_settings(self._jwt_secret), claims)
        # With a cursor the feeds come in the subscription, or everything would be sent again.
        path = "/v1/ws" if self._epoch else f"/v1/ws?feeds={FEED}"
        return Upgrade(path, SUBPROTOCOL, token)

    def opened(self, _send: Send) -> None:
        """The server speaks first."""

    def take(self, frame: bytes, send: Send) -> Sequence[bytes]:
        """The contents of its updates."""
        read = _decode(frame)
        self._positions.update(read.cursor)
        if read.type == "caught_up":
            self.ready = True
        elif read.type == "connection_established":
            if self._epoch:
                send(msgspec.json.encode(self._subscribe()))
            self._epoch = self._epoch or read.epoch
        return [bytes(update.content) for update in read.updates]

    def _subscribe(self) -> dict[str, Any]:
        cursor = {"epoch": self._epoch, "positions": self._positions}
        return {"type": "subscribe", "feeds": [FEED], "cursor": cursor}
