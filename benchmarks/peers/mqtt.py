"""MQTT 3.1.1: the few packets that a client of the benchmark needs; bytes in, values out."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 8, 9
CLEAN_SESSION: Final = 0x02


class Packet(NamedTuple):
    """One packet: the first byte's two halves, and what follows the length."""

    kind: int
    flags: int
    body: bytes


class Published(NamedTuple):
    """A message."""

    packet_id: int
    """0 for one that nobody acknowledges."""
    payload: bytes


class PacketParser:
    """Cuts a stream of bytes into packets."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that these bytes complete."""
        held = self._held + data if self._held else data
        found: list[Packet] = []
        start = 0
        while (bounds := _bounds(held, start)) is not None:
            body, stop = bounds
            found.append(Packet(held[start] >> 4, held[start] & 0x0F, held[body:stop]))
            start = stop
        self._held = held[start:]
        return found


def _bounds(held: bytes, start: int) -> tuple[int, int] | None:
    """Where a packet's body begins and ends; None while it is incomplete."""
    length = shift = 0
    for place in range(start + 1, min(start + 5, len(held))):
        length |= (held[place] & 0x7F) << shift
        shift += 7
        if held[place] < 0x80:
            stop = place + 1 + length
            return (place + 1, stop) if stop <= len(held) else None
    return None


def connect(client_id: str, *, clean: bool) -> bytes:
    """Ask for a session; a keepalive of 0 asks for no pings."""
    flags = CLEAN_SESSION if clean else 0
    return _packet(CONNECT << 4, _text("MQTT") + bytes([4, flags, 0, 0]) + _text(client_id))


def subscribe(topic: str, quality: int) -> bytes:
    """Ask for the messages of a topic."""
    return _packet(SUBSCRIBE << 4 | 2, struct.pack("!H", 1) + _text(topic) + bytes([quality]))


def publish(topic: str, payload: bytes, packet_id: int) -> bytes:
    """A message; it is acknowledged when it has an id."""
    number = struct.pack("!H", packet_id) if packet_id else b""
    flags = 2 if packet_id else 0
    return _packet(PUBLISH << 4 | flags, _text(topic) + number + payload)


def acknowledge(packet_id: int) -> bytes:
    """Say that a message is here."""
    return bytes([PUBACK << 4, 2]) + struct.pack("!H", packet_id)


def published(packet: Packet) -> Published:
    """What a PUBLISH says."""
    start = 2 + int.from_bytes(packet.body[:2], "big")
    if not packet.flags & 0x06:
        return Published(0, packet.body[start:])
    return Published(
        int.from_bytes(packet.body[start : start + 2], "big"), packet.body[start + 2 :]
    )


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("!H", len(encoded)) + encoded


def _packet(first: int, body: bytes) -> bytes:
    length, sizes = len(body), bytearray()
    while True:
        length, digit = length >> 7, length & 0x7F
        sizes.append(digit | 0x80 if length else digit)
        if not length:
            return bytes([first, *sizes]) + body
