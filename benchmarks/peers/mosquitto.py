"""Mosquitto over WebSocket: QoS 0, or QoS 1 with persistent sessions.

A broker answers for a session that it keeps itself: a client that comes back under its name is sent
what it missed, and says nothing of where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.load_generator import BINARY
from benchmarks.peers import mqtt
from benchmarks.peers.device import Send, Upgrade
from benchmarks.peers.peer import Program, ServerPeer, find_program, output_of
from benchmarks.peers.sender import Publish
from benchmarks.stack import HOST
from livefeed.adapters.embedded import free_port
from livefeed.errors import OutcomeUnknown

PACKAGE: Final = "mosquitto"
PACKET_IDS: Final = 65_535
ACK_SECONDS_MAX: Final = 20.0


class MosquittoPeer(ServerPeer):
    """One mosquitto."""

    name = "mosquitto"
    title = "Mosquitto WebSocket"
    front = "mosquitto"
    acknowledged = "nothing until it is saved (every 30 min)"

    def __init__(self, folder: Path, *, durable: bool, fsync: bool = False) -> None:
        super().__init__(folder, durable=durable, fsync=fsync)
        self.websocket_port = free_port()

    async def prepare(self) -> str:
        said = output_of(find_program("mosquitto", PACKAGE), "-h").split("\n", 1)[0]
        return said.replace(" version", "").strip()

    def programs(self) -> list[Program]:
        name = "mosquitto-durable.conf" if self.durable else "mosquitto.conf"
        path = self.configure(name, port=self.port, websocket_port=self.websocket_port)
        argv = [find_program("mosquitto", PACKAGE), "-c", str(path)]
        return [Program("mosquitto", argv, self.websocket_port)]

    @property
    def dialect(self) -> MqttDialect:
        return MqttDialect(self.websocket_port, self.durable)

    @property
    def publishing(self) -> MqttPublishing:
        return MqttPublishing(self.port, self.durable)


@dataclass(frozen=True, slots=True)
class MqttDialect:
    """MQTT in binary frames."""

    port: int
    durable: bool
    opcode: int = BINARY

    def device(self, user: str, channel: str) -> MqttDevice:
        """A device that subscribes to one topic."""
        return MqttDevice(user, channel, durable=self.durable)


class MqttDevice:
    """A session with one subscription."""

    __slots__ = ("_client_id", "_durable", "_parser", "_topic", "ready")

    def __init__(self, client_id: str, topic: str, *, durable: bool) -> None:
        self._client_id = client_id
        self._topic = topic
        self._durable = durable
        self._parser = mqtt.PacketParser()
        self.ready = False

    def upgrade(self) -> Upgrade:
        """Begin a connection."""
        self.ready = False
        self._parser = mqtt.PacketParser()
        return Upgrade("/mqtt", "mqtt")

    def opened(self, send: Send) -> None:
        """Ask for the session, and for what it may have already."""
        send(mqtt.connect(self._client_id, clean=not self._durable))
        send(mqtt.subscribe(self._topic, 1 if self._durable else 0))

    def take(self, frame: bytes, send: Send) -> Sequence[bytes]:
        """The payloads of its messages, which are acknowledged where that is asked for."""
        payloads: list[bytes] = []
        for packet in self._parser.feed(frame):
            if packet.kind == mqtt.PUBLISH:
                message = mqtt.published(packet)
                payloads.append(message.payload)
                if message.packet_id:
                    send(mqtt.acknowledge(message.packet_id))
            elif packet.kind == mqtt.SUBACK:
                self.ready = True
        return payloads


@dataclass(frozen=True, slots=True)
class MqttPublishing:
    """Publishes over a plain connection."""

    port: int
    durable: bool

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Publish]:
        """Connect."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        writer.write(mqtt.connect("publisher", clean=True))
        acknowledgements = _Acknowledgements()
        reading = asyncio.create_task(acknowledgements.read(reader))

        async def hand_over(channel: str, payload: bytes, _message_id: str) -> None:
            packet_id, accepted = acknowledgements.expect()
            writer.write(mqtt.publish(channel, payload, packet_id))
            try:
                async with asyncio.timeout(ACK_SECONDS_MAX):
                    await accepted
            except TimeoutError:
                raise OutcomeUnknown("mosquitto did not acknowledge a message") from None

        async def pass_on(channel: str, payload: bytes, _message_id: str) -> None:
            writer.write(mqtt.publish(channel, payload, 0))
            await writer.drain()

        try:
            yield hand_over if self.durable else pass_on
        finally:
            reading.cancel()
            writer.transport.abort()


class _Acknowledgements:
    """The publisher's messages that were not acknowledged yet."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._last = 0

    def expect(self) -> tuple[int, asyncio.Future[None]]:
        """The id for a message, and what is done once it is acknowledged."""
        self._last = self._last % PACKET_IDS + 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[self._last] = future
        return self._last, future

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Read until the end."""
        parser = mqtt.PacketParser()
        while data := await reader.read(65536):
            for packet in parser.feed(data):
                if packet.kind == mqtt.PUBACK:
                    number = int.from_bytes(packet.body[:2], "big")
                    waiting = self._waiting.pop(number, None)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(None)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(OutcomeUnknown("mosquitto closed the connection"))
