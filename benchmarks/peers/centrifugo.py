"""Centrifugo, whose binary is used when it is on PATH: in memory, or with history in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.load_generator import TEXT
from benchmarks.peers.device import Send, Upgrade
from benchmarks.peers.http_publishing import HttpPublishing
from benchmarks.peers.peer import POWER_CUT, Missing, Program, ServerPeer, find_program, output_of
from benchmarks.peers.redis import REDIS_ACKNOWLEDGED, redis_program, redis_version
from livefeed.adapters.embedded import free_port

MEND: Final = "put its binary `centrifugo` on PATH"
CONNECT_ID, SUBSCRIBE_ID = 1, 2
PING: Final = b"{}"


class CentrifugoPeer(ServerPeer):
    """One centrifugo; durable, a Redis beside it."""

    name = "centrifugo"
    title = "Centrifugo"
    front = "centrifugo"
    acknowledged = REDIS_ACKNOWLEDGED
    acknowledged_fsync = POWER_CUT

    def __init__(self, folder: Path, *, durable: bool, fsync: bool = False) -> None:
        super().__init__(folder, durable=durable, fsync=fsync)
        self.redis_port = free_port()

    async def prepare(self) -> str:
        said = output_of(_binary(), "version").strip()
        return f"{said}, {redis_version()}" if self.durable else said

    def programs(self) -> list[Program]:
        name = "centrifugo-durable.json" if self.durable else "centrifugo.json"
        path = self.configure(name, port=self.port, redis_port=self.redis_port)
        own = Program("centrifugo", [_binary(), "--config", str(path)], self.port)
        return [redis_program(self, self.redis_port), own] if self.durable else [own]

    @property
    def dialect(self) -> CentrifugoDialect:
        return CentrifugoDialect(self.port, self.durable)

    @property
    def publishing(self) -> HttpPublishing:
        before, after = '{"channel":"{channel}","data":', "}"
        return HttpPublishing("centrifugo", self.port, "/api/publish", before=before, after=after)


@dataclass(frozen=True, slots=True)
class CentrifugoDialect:
    """Its JSON protocol; a frame has a line for each reply."""

    port: int
    durable: bool
    opcode: int = TEXT

    def device(self, user: str, channel: str) -> CentrifugoDevice:
        """A device that subscribes to one channel."""
        return CentrifugoDevice(channel, recovery=self.durable)


class _Publication(msgspec.Struct):
    data: msgspec.Raw
    offset: int = 0


class _Subscribed(msgspec.Struct):
    epoch: str = ""
    offset: int = 0
    publications: list[_Publication] = []


class _Push(msgspec.Struct):
    pub: _Publication | None = None


class _Reply(msgspec.Struct):
    id: int = 0
    error: dict[str, Any] | None = None
    subscribe: _Subscribed | None = None
    push: _Push | None = None


_decode = msgspec.json.Decoder(_Reply).decode


class CentrifugoDevice:
    """A client with one subscription."""

    __slots__ = ("_channel", "_epoch", "_offset", "_recovery", "ready")

    def __init__(self, channel: str, *, recovery: bool) -> None:
        self._channel = channel
        self._recovery = recovery
        self._epoch = ""
        self._offset = 0
        self.ready = False

    def upgrade(self) -> Upgrade:
        """Begin a connection."""
        self.ready = False
        return Upgrade("/connection/websocket")

    def opened(self, send: Send) -> None:
        """Connect; the subscription waits for the answer."""
        send(msgspec.json.encode({"id": CONNECT_ID, "connect": {}}))

    def take(self, frame: bytes, send: Send) -> Sequence[bytes]:
        """The messages of a frame."""
        messages: list[bytes] = []
        for line in frame.split(b"\n"):
            if line == PING:
                send(PING)
            elif line:
                self._take_reply(_decode(line), messages, send)
        return messages

    def _take_reply(self, reply: _Reply, messages: list[bytes], send: Send) -> None:
        if reply.error is not None:
            raise ConnectionError(f"centrifugo refused: {reply.error}")
        if reply.push is not None and reply.push.pub is not None:
            self._take_publication(reply.push.pub, messages)
        elif reply.id == CONNECT_ID:
            asked: dict[str, Any] = {"channel": self._channel}
            if self._recovery and self._epoch:
                asked |= {"recover": True, "epoch": self._epoch, "offset": self._offset}
            send(msgspec.json.encode({"id": SUBSCRIBE_ID, "subscribe": asked}))
        elif reply.subscribe is not None:
            for publication in reply.subscribe.publications:
                self._take_publication(publication, messages)
            self._epoch, self._offset = reply.subscribe.epoch, reply.subscribe.offset
            self.ready = True

    def _take_publication(self, one: _Publication, messages: list[bytes]) -> None:
        self._offset = one.offset
        messages.append(bytes(one.data))


def _binary() -> str:
    try:
        return find_program("centrifugo", "")
    except Missing:
        raise Missing(MEND) from None
