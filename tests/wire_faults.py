"""Faults of WebSocket frames and of handshakes, each with the answer that it gets.

The tables of docs/protocol.md say the same; `tests/unit/test_docs.py` compares them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from livefeed.limits import INBOUND_FRAME_BYTES_MAX

KEY: Final = base64.b64encode(b"sixteen bytes 16").decode()
CONT, TEXT, BINARY, CLOSE, PING = 0x0, 0x1, 0x2, 0x8, 0x9
FIN: Final = 0x80
ERROR: Final = "error frame"
BAD: Final = b"\xff\xfe"


def frame(first: int, payload: bytes = b"", *, length: bytes | None = None) -> bytes:
    """A client's frame, masked with zeros; `length` replaces its length field."""
    if length is None:
        size = len(payload)
        if size < 126:
            length = bytes([size])
        else:
            length = b"\x7e" + struct.pack("!H", size)
            if size >= 1 << 16:
                length = b"\x7f" + struct.pack("!Q", size)
    return bytes([first, 0x80 | length[0]]) + length[1:] + bytes(4) + payload


def closing(code: int, reason: bytes = b"") -> bytes:
    """A close frame."""
    return frame(FIN | CLOSE, struct.pack("!H", code) + reason)


@dataclass(frozen=True)
class FrameFault:
    """What a client sends after the handshake, and the answer."""

    name: str
    answer: str
    """`1002` and the like is a close code, `error frame` an `error` that leaves it open."""
    sends: tuple[bytes, ...]
    """Each on a connection of its own."""
    stock: bool = True
    """Whether stock uvicorn answers the same."""
    pieces: int = 0
    """Bytes sent at once, where it matters."""


BIG: Final = 2 * INBOUND_FRAME_BYTES_MAX
FRAMES: Final = [
    FrameFault("not masked", "1002", (b"\x81\x02hi",)),
    FrameFault("RSV1", "1002", (frame(FIN | 0x40 | TEXT, b"{}"),)),
    FrameFault("RSV2", "1002", (frame(FIN | 0x20 | TEXT, b"{}"),)),
    FrameFault("RSV3", "1002", (frame(FIN | 0x10 | TEXT, b"{}"),)),
    FrameFault("opcodes 3 to 7", "1002", tuple(frame(FIN | code) for code in range(3, 8))),
    FrameFault("opcodes 11 to 15", "1002", tuple(frame(FIN | code) for code in range(11, 16))),
    FrameFault("a control frame of 126 bytes", "1002", (frame(FIN | PING, bytes(126)),)),
    FrameFault("a fragmented control frame", "1002", (frame(PING, b"x"),)),
    FrameFault("a continuation of nothing", "1002", (frame(FIN | CONT, b"x"),)),
    FrameFault("a message inside a message", "1002", (frame(TEXT, b"{") + frame(FIN | TEXT),)),
    FrameFault("bytes that are not UTF-8", "1007", (frame(FIN | TEXT, BAD),)),
    FrameFault(
        "the same, split over fragments", "1007", (frame(TEXT, b"\xe2\x82") + frame(FIN, b"x"),)
    ),
    FrameFault(
        "overlong UTF-8, a surrogate",
        "1007",
        (frame(FIN | TEXT, b"\xc0\xaf"), frame(FIN | TEXT, b"\xed\xa0\x80")),
    ),
    FrameFault("a close frame of 1 byte", "1002", (frame(FIN | CLOSE, b"x"),)),
    FrameFault(
        "close codes 999, 1004 to 1006, 1015, 5000",
        "1002",
        tuple(map(closing, (999, 1004, 1005, 1006, 1015, 5000))),
    ),
    FrameFault("a close reason that is not UTF-8", "1007", (closing(1000, BAD),)),
    FrameFault(
        "a length with its top bit set", "1009", (frame(FIN | TEXT, length=b"\x7f" + b"\xff" * 8),)
    ),
    FrameFault(
        "a length of 2^62",
        "1009",
        (frame(FIN | TEXT, length=b"\x7f" + struct.pack("!Q", 1 << 62)),),
    ),
    FrameFault(
        "a length in more bytes than it needs",
        ERROR,
        (frame(FIN | TEXT, b"{}", length=b"\x7e\x00\x02"),),
    ),
    FrameFault(
        "frames after a close frame", "1000", (closing(1000) + frame(FIN | TEXT, b"{}") * 3,)
    ),
    FrameFault("binary", ERROR, (frame(FIN | BINARY, b"{}"),)),
    FrameFault("an empty message", ERROR, (frame(FIN | TEXT),)),
    FrameFault(
        "a million empty fragments", "1009", (frame(TEXT) + frame(CONT) * 1_000_000,), stock=False
    ),
    FrameFault(
        "pings without end, pongs not read",
        "1008",
        (frame(FIN | PING, b"x" * 125) * 8_000,),
        stock=False,
    ),
    FrameFault("one byte at a time", ERROR, (frame(FIN | TEXT, b"{}"),), pieces=1),
    FrameFault("a message of 32 KiB and a byte", "1009", (frame(FIN | TEXT, bytes(BIG + 1)),)),
    FrameFault("the bit of compression", "1002", (frame(FIN | 0x40 | TEXT, b"\xaa\x00"),)),
]


@dataclass(frozen=True)
class HandshakeFault:
    """What a client sends instead of a right handshake, and the answer."""

    name: str
    answer: str
    """A status; `closed` is no answer and the end."""
    change: Callable[[str], str]
    """What becomes of a right head."""
    stock: bool = True
    pause: float = 0.0
    """Seconds between its bytes."""


def with_header(*headers: str) -> Callable[[str], str]:
    """Add headers."""
    lines = "".join(f"{header}\r\n" for header in headers)
    return lambda head: head.removesuffix("\r\n") + lines + "\r\n"


def replaced(old: str, new: str) -> Callable[[str], str]:
    """Change a part of the head, which has to be there."""

    def change(head: str) -> str:
        assert old in head, old
        return head.replace(old, new, 1)

    return change


def origin(value: str) -> Callable[[str], str]:
    """Come from a page."""
    return with_header(f"Origin: {value}")


KEY_LINE: Final = f"Sec-WebSocket-Key: {KEY}\r\n"
VERSION_LINE: Final = "Sec-WebSocket-Version: 13\r\n"
ALLOWED_ORIGIN: Final = "https://good.example"
HANDSHAKES: Final = [
    HandshakeFault("no key", "400", replaced(KEY_LINE, "")),
    HandshakeFault("a short key", "400", replaced(KEY, "c2hvcnQ=")),
    HandshakeFault("two keys", "400", replaced(KEY_LINE, KEY_LINE * 2)),
    HandshakeFault("version 8", "400", replaced("Version: 13", "Version: 8")),
    HandshakeFault("no version", "400", replaced(VERSION_LINE, "")),
    HandshakeFault("POST", "405", replaced("GET ", "POST ")),
    HandshakeFault("HTTP/1.0", "505", replaced("HTTP/1.1", "HTTP/1.0"), stock=False),
    HandshakeFault("no Upgrade", "426", replaced("Upgrade: websocket\r\n", "")),
    HandshakeFault("no Origin: no browser", "101", lambda head: head),
    HandshakeFault("Origin null", "403", origin("null")),
    HandshakeFault("Origin that begins like ours", "403", origin(ALLOWED_ORIGIN + ".evil")),
    HandshakeFault("Origin that ends like ours", "403", origin("https://evilgood.example")),
    HandshakeFault("Origin with another port", "403", origin(ALLOWED_ORIGIN + ":8443")),
    HandshakeFault("Origin with http for https", "403", origin("http://good.example")),
    HandshakeFault("Origin in upper case: the same", "101", origin(ALLOWED_ORIGIN.upper())),
    HandshakeFault("Origin with a user", "403", origin("https://me@good.example")),
    HandshakeFault(
        "two Origins", "400", with_header(f"Origin: {ALLOWED_ORIGIN}", "Origin: https://evil")
    ),
    HandshakeFault(
        "a header of 9,000 bytes", "431", with_header("X-Long: " + "x" * 9_000), stock=False
    ),
    HandshakeFault(
        "a header of 70,000 bytes", "431", with_header("X-Long: " + "x" * 70_000), stock=False
    ),
    HandshakeFault(
        "300 headers", "431", with_header(*(f"X-{n}: x" for n in range(300))), stock=False
    ),
    HandshakeFault(
        "a URL of 9,000 bytes", "414", replaced("/v1/ws?", "/v1/ws?" + "x" * 9_000), stock=False
    ),
    HandshakeFault("NUL in the URL", "400", replaced("/v1/ws", "/v1/\0ws"), stock=False),
    HandshakeFault("a header that is not ASCII: ignored", "101", with_header("X-Name: \xe9")),
    HandshakeFault(
        "half a head, and nothing more", "408", lambda head: head[: len(head) // 2], stock=False
    ),
    HandshakeFault("nothing at all", "closed", lambda _head: "", stock=False),
    HandshakeFault("one byte a second", "408", lambda head: head, stock=False, pause=1.0),
    HandshakeFault(
        "an unknown subprotocol: none is selected",
        "101",
        with_header("Sec-WebSocket-Protocol: other"),
    ),
    HandshakeFault("a body", "400", with_header("Content-Length: 5"), stock=False),
    HandshakeFault(
        "an absolute URL: the same", "101", replaced("GET /", "GET http://feeds/"), stock=False
    ),
    HandshakeFault("no Host", "400", replaced("Host: feeds\r\n", ""), stock=False),
    HandshakeFault(
        "X-Forwarded-For from a stranger: ignored", "101", with_header("X-Forwarded-For: 10.0.0.1")
    ),
]


class RawClient:
    """A client that may break every rule."""

    def __init__(self, url: str, token: str) -> None:
        self._at = urlsplit(url)
        self._token = token
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    def head(self) -> str:
        """The head of a right handshake."""
        return (
            "GET /v1/ws?feeds=home HTTP/1.1\r\nHost: feeds\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\n{KEY_LINE}{VERSION_LINE}"
            f"Authorization: Bearer {self._token}\r\n\r\n"
        )

    async def connect(self) -> None:
        """Connect, and send nothing yet."""
        self.reader, self.writer = await asyncio.open_connection(self._at.hostname, self._at.port)

    async def send(self, data: bytes, *, size: int = 0, pause: float = 0.0) -> None:
        """Send, in pieces where a size is given, until the server does not want more."""
        pieces = [data[n : n + size] for n in range(0, len(data), size)] if size else [data]
        with contextlib.suppress(OSError):
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                if size:
                    await asyncio.sleep(pause)

    async def status(self) -> str:
        """The status of the answer, or `closed`."""
        with contextlib.suppress(OSError):
            words = (await self.reader.readline()).split()
            if words:
                return words[1].decode()
        return "closed"

    async def open(self) -> None:
        """Handshake, and read the first frame."""
        await self.connect()
        await self.send(self.head().encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head, head
        await self.frame()

    async def frame(self) -> tuple[int, bytes]:
        """The next frame."""
        first, length = await self.reader.readexactly(2)
        if length == 126:
            length = int.from_bytes(await self.reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await self.reader.readexactly(8), "big")
        return first & 0x0F, await self.reader.readexactly(length)

    async def answer(self) -> str:
        """What a fault is answered with: a close code, an error frame, or `cut`."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                opcode, payload = await self.frame()
                if opcode == CLOSE:
                    return str(int.from_bytes(payload[:2], "big"))
                if opcode == TEXT and b'"type":"error"' in payload:
                    return ERROR
        return "cut"

    def abort(self) -> None:
        """Be gone."""
        self.writer.transport.abort()


async def frame_answer(url: str, token: str, fault: FrameFault, send: bytes) -> str:
    """What the server answers to bytes after the handshake."""
    client = RawClient(url, token)
    await client.open()
    try:
        async with asyncio.timeout(20):
            sending = asyncio.create_task(client.send(send, size=fault.pieces))
            answer = await client.answer()
            sending.cancel()
            return answer
    except TimeoutError:
        return "nothing"
    finally:
        client.abort()


async def handshake_answer(url: str, token: str, fault: HandshakeFault) -> str:
    """The status that a handshake is answered with."""
    client = RawClient(url, token)
    await client.connect()
    data = fault.change(client.head()).encode("latin-1")
    try:
        async with asyncio.timeout(20):
            size = 1 if fault.pause else 0
            sending = asyncio.create_task(client.send(data, size=size, pause=fault.pause))
            status = await client.status()
            sending.cancel()
            return status
    except TimeoutError:
        return "nothing"
    finally:
        client.abort()
