"""Thousands of WebSocket clients in one process, cheap enough to leave the CPU to the servers.

The clients are raw asyncio protocols with their own frame parser, which does no I/O and needs no
loop. A scenario drives them from a process of its own (`load_process.LoadProcess`), so that the CPU
and memory of the servers are measured apart from the load.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import resource
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
FIN: Final = 0x80
SUBPROTOCOL: Final = "livefeed.v1"
HOST: Final = "127.0.0.1"
HANDSHAKES_AT_ONCE: Final = 200
HANDSHAKE_SECONDS_MAX: Final = 30.0
HEAD_BYTES_MAX: Final = 16 * 1024
# Linux only, and in the socket module from Python 3.12 on: the port is chosen at connect, when the
# destination is known, so each source address has its own 28,000.
BIND_NO_PORT: Final = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)


class ProtocolBroken(Exception):
    """The server sent what none that is measured here ever sends."""


# Frames and handshake: bytes in, values out.


class FrameParser:
    """Cuts a stream of bytes into frames: whole ones, without extensions.

    Args:
        opcode: Of the one kind of data frame that there may be: livefeed's are TEXT.
    """

    __slots__ = ("_data", "_held", "_opcode", "_wanted", "_whole")

    def __init__(self, opcode: int = TEXT) -> None:
        self._opcode = opcode
        self._data = FIN | opcode
        self._whole = {FIN | one for one in (opcode, CLOSE, PING, PONG)}
        self._held = bytearray()
        self._wanted = 0
        """Bytes that must be there before another look at `_held` can find anything."""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that these bytes complete, as (opcode, payload).

        Raises:
            ProtocolBroken: For a fragment, a mask, an extension bit or an opcode of no use here.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return []
            data = bytes(self._held)
            self._held.clear()
        start, end = 0, len(data)
        # Nearly every chunk is one short data frame: two comparisons instead of the loop below.
        if end > 3 and data[0] == self._data:
            length = data[1]
            if length == end - 2 < 126:
                return [(self._opcode, data[2:])]
            if length == 126 and data[2] << 8 | data[3] == end - 4:
                return [(self._opcode, data[4:])]
        frames: list[tuple[int, bytes]] = []
        while start < end:
            if data[start] not in self._whole:
                raise ProtocolBroken(f"a frame that begins with 0x{data[start]:02x}")
            body, stop = _frame_bounds(data, start, end)
            if stop > end:
                self._held += data[start:] if start else data
                self._wanted = stop - start
                break
            frames.append((data[start] & 0x0F, data[body:stop]))
            start = stop
        return frames


def _frame_bounds(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the payload of a frame begins and ends, or (0, how far to read before asking again)."""
    if end - start < 2:
        return 0, start + 2
    length = data[start + 1]
    if length < 126:
        return start + 2, start + 2 + length
    if length > 127:
        raise ProtocolBroken("a masked frame from the server")
    body = start + (4 if length == 126 else 10)
    if body > end:
        return 0, body
    return body, body + int.from_bytes(data[start + 2 : body], "big")


def encode_client_frame(opcode: int, payload: bytes) -> bytes:
    """A frame as a client has to send it: masked, here with zeros, which costs nothing."""
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", FIN | opcode, 0x80 | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", FIN | opcode, 0xFE, length)
    else:
        head = struct.pack("!BBQ", FIN | opcode, 0xFF, length)
    return head + bytes(4) + payload


def handshake_request(
    *, host: str, port: int, path: str, token: str, key: str, subprotocol: str = SUBPROTOCOL
) -> bytes:
    """The request that opens a WebSocket; an empty token or subprotocol is not sent."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *([f"Sec-WebSocket-Protocol: {subprotocol}"] if subprotocol else []),
        *([f"Authorization: Bearer {token}"] if token else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def read_handshake(data: bytes, key: str) -> tuple[str, bytes] | None:
    """What the server's answer means, and the bytes after it; None while it is incomplete.

    Returns:
        ("", rest) when the WebSocket is open, else a sentence about the refusal and what follows.
    """
    head, blank, rest = data.partition(b"\r\n\r\n")
    if not blank:
        return None if len(data) < HEAD_BYTES_MAX else ("the answer's head does not end", b"")
    status, *lines = head.decode("latin-1").split("\r\n")
    if status.split(" ", 2)[1:2] != ["101"]:
        return f"{status}: {rest[:200].decode('latin-1')}", b""
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    magic = (key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()
    expected = base64.b64encode(hashlib.sha1(magic).digest()).decode()
    if headers.get("sec-websocket-accept") != expected:
        return "the server's accept key is not the one for ours", b""
    return "", rest


# One client.


class Client(asyncio.Protocol):
    """One WebSocket; `on_frame(client, payload)` is called for each data frame.

    Attributes:
        index: Which one of `connect_many`'s clients it is.
        context: Whatever the scenario wants to keep with it.
        frames: Data frames received.
        opened: Done when the handshake is; fails when it is refused.
        closed: Why it ended, or empty while it lives.
        on_closed: Called once when it ends.
    """

    __slots__ = (
        *("_held", "_key", "_on_frame", "_opcode", "_open", "_parser", "_request", "_transport"),
        *("closed", "context", "frames", "index", "on_closed", "opened"),
    )

    def __init__(
        self,
        on_frame: Callable[[Client, bytes], None],
        *,
        host: str,
        port: int,
        path: str,
        token: str = "",
        subprotocol: str = SUBPROTOCOL,
        opcode: int = TEXT,
        index: int = 0,
    ) -> None:
        self.index = index
        self.context: Any = None
        self.frames = 0
        self.closed = ""
        self.on_closed: Callable[[Client], None] | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_frame = on_frame
        self._key = base64.b64encode(os.urandom(16)).decode()
        self._request = handshake_request(
            host=host, port=port, path=path, token=token, key=self._key, subprotocol=subprotocol
        )
        self._transport: asyncio.Transport | None = None
        self._opcode = opcode
        self._parser = FrameParser(opcode)
        self._open = False
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's is a Transport
        self._write(self._request)
        self._request = b""

    def data_received(self, data: bytes) -> None:
        if not self._open:
            data = self._finish_handshake(data)
        try:
            for opcode, payload in self._parser.feed(data):
                if opcode == self._opcode:
                    self.frames += 1
                    self._on_frame(self, payload)
                else:
                    self._control(opcode, payload)
        except ProtocolBroken as broken:
            self._end(str(broken))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"lost: {exc!r}" if exc else "the server hung up")

    def send(self, payload: bytes) -> None:
        """Send one data frame."""
        self._write(encode_client_frame(self._opcode, payload))

    def pause_reading(self) -> None:
        """Be a client that does not read."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self._transport is not None:
            self._transport.resume_reading()

    def read_a_byte(self) -> None:
        """Read one byte while not reading otherwise."""
        if self._transport is None:
            return
        with contextlib.suppress(BlockingIOError):
            self.data_received(os.read(self._transport.get_extra_info("socket").fileno(), 1))

    def cut(self) -> None:
        """End it as a broken network would, without a goodbye."""
        self._end("cut")

    def _finish_handshake(self, data: bytes) -> bytes:
        self._held += data
        answer = read_handshake(self._held, self._key)
        if answer is None:
            return b""
        self._held = b""
        refusal, rest = answer
        if refusal:
            self._end(refusal)
            return b""
        self._open = True
        if not self.opened.done():
            self.opened.set_result(None)
        return rest

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._write(encode_client_frame(PONG, payload))
        elif opcode == CLOSE:
            code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
            self._write(encode_client_frame(CLOSE, payload[:2]))
            self._end(f"{code} {payload[2:].decode(errors='replace')}".rstrip(), abort=False)

    def _end(self, reason: str, *, abort: bool = True) -> None:
        if self.closed:
            return
        self.closed = reason
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(self.closed))
            self.opened.exception()  # Whoever waits gets it; nobody has to.
        if self._transport is not None:
            transport, self._transport = self._transport, None
            (transport.abort if abort else transport.close)()
        if self.on_closed is not None:
            self.on_closed(self)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


# Many clients.


@dataclass(frozen=True, slots=True)
class Connected:
    """What `connect_many` achieved."""

    clients: list[Client]
    failures: list[str]
    """Why each of the others has no connection."""
    seconds: float

    @property
    def rate(self) -> float:
        """Connections a second, handshakes done."""
        return len(self.clients) / self.seconds if self.seconds else 0.0


async def connect_many(
    count: int,
    *,
    source_addresses: Sequence[str] = (),
    port: int,
    path_for: Callable[[int], str],
    token_for: Callable[[int], str],
    on_frame: Callable[[Client, bytes], None],
) -> Connected:
    """Open `count` connections, so many at a time.

    Args:
        count: How many; the process's limit of open files has to allow them.
        source_addresses: Where to connect from, in turn; one address has some 28,000 ports.
        port: The server's.
        path_for: The path and query of client number i.
        token_for: Its bearer token.
        on_frame: Called with each text frame.
    """

    def client_for(index: int) -> Client:
        return Client(
            on_frame,
            host=HOST,
            port=port,
            path=path_for(index),
            token=token_for(index),
            index=index,
        )

    return await open_many(count, client_for, source_addresses=source_addresses, port=port)


async def open_many(
    count: int,
    client_for: Callable[[int], Client],
    *,
    source_addresses: Sequence[str] = (),
    port: int,
) -> Connected:
    """Open the clients that `client_for(index)` makes; the rest is as for `connect_many`."""
    numbers = iter(range(count))
    clients: list[Client] = []
    failures: list[str] = []

    async def work() -> None:
        for index in numbers:
            source = source_addresses[index % len(source_addresses)] if source_addresses else None
            client = client_for(index)
            try:
                await open_client(client, HOST, port, source, seconds=HANDSHAKE_SECONDS_MAX)
                clients.append(client)
            except OSError as error:
                client.cut()
                failures.append(str(error) or type(error).__name__)

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(min(HANDSHAKES_AT_ONCE, count))))
    return Connected(clients, failures, time.perf_counter() - started)


async def open_client(
    client: Client, host: str, port: int, source: str | None, *, seconds: float
) -> None:
    """Connect a client, and return when its handshake is done; raises OSError.

    Args:
        client: Not connected yet.
        host: The server's address.
        port: And its port.
        source: From which address, or any.
        seconds: How long the connect may take, and then the handshake.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if source is not None:
            sock.setsockopt(socket.IPPROTO_IP, BIND_NO_PORT, 1)
            sock.bind((source, 0))
        async with asyncio.timeout(seconds):
            await loop.sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    # Not timed: it waits for nothing.
    transport, _ = await loop.create_connection(lambda: client, sock=sock)
    if transport.is_closing() and not isinstance(loop, asyncio.BaseEventLoop):
        # The server hung up at once. uvloop has closed the descriptor by itself: the socket would
        # close that number again, when it is another connection's.
        sock.detach()
    async with asyncio.timeout(seconds):
        await client.opened


def raise_file_limit() -> int:
    """Allow this process as many open files as the system lets it have, and return that number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
