"""Between a gateway and a server: passes every byte on, and records who waits for an answer when.

What a breaker promises is seen from here, whatever the gateway believes: while a server is away or
hangs, at most one of its callers waits for it at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import struct
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from livefeed.limits import CACHE_CALL_SECONDS_MAX
from tests.servers import server_port

READ_BYTES: Final = 64 * 1024
STARTUP_VERSION: Final = 196_608
"""Of PostgreSQL's protocol: what a connection begins with when it asks for nothing else first."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class Wait:
    """Somebody has asked and waits; times are monotonic seconds."""

    who: str
    began_at: float
    ended_at: float = math.inf
    """When an answer began to come, or nobody waited any more."""


def most_at_once(waits: Iterable[Wait], since: float, until: float) -> int:
    """How many waited at the same time at the most, within a time."""
    steps = sorted(
        step
        for one in waits
        if one.ended_at > since and one.began_at < until
        for step in ((max(one.began_at, since), 1), (min(one.ended_at, until), -1))
    )
    most = now = 0
    for _, change in steps:
        now += change
        most = max(most, now)
    return most


@dataclass(slots=True)
class Line:
    """One connection through a proxy."""

    who: str = ""
    wait: Wait | None = None
    asks: Commands | None = None
    answers: Commands | None = None


class RecordingProxy:
    """A proxy in front of a server on the loopback; the server may come and go.

    Each connection waits from the connect, and from whatever it sends, until the server sends
    something.

    Args:
        upstream: The server's port.
    """

    def __init__(self, upstream: int) -> None:
        self.port: Final = server_port()
        self.waits: list[Wait] = []
        self._upstream = upstream
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> RecordingProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def waits_of(self, who: str) -> list[Wait]:
        """Of those with one name."""
        return [one for one in self.waits if one.who == who]

    def opened(self, line: Line) -> None:
        """A client has connected."""
        self._begin(line)

    def asked(self, line: Line, _data: bytes) -> None:
        """A client sends something."""
        self._begin(line)

    def answered(self, line: Line, _data: bytes = b"") -> None:
        """The server says something, or one of them is gone."""
        if line.wait is not None:
            line.wait.ended_at = time.monotonic()
            line.wait = None

    def _begin(self, line: Line) -> None:
        if line.wait is None:
            line.wait = Wait(line.who, time.monotonic())
            self.waits.append(line.wait)

    async def _serve(self, *here: *Streams) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        line = Line()
        self.opened(line)
        try:
            async with _closing(here[1]):
                there = await asyncio.open_connection("127.0.0.1", self._upstream)
                async with _closing(there[1]):
                    await self._pass_on(line, here, there)
        except (OSError, asyncio.CancelledError):
            pass  # One of the two is gone, or the test is over.
        finally:
            self.answered(line)
            self._tasks.discard(task)

    async def _pass_on(self, line: Line, here: Streams, there: Streams) -> None:
        ways = [
            asyncio.create_task(self._asks(line, here[0], there[1])),
            asyncio.create_task(self._answers(line, there[0], here[1])),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _asks(
        self, line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(READ_BYTES):
            self.asked(line, data)
            writer.write(data)
            await writer.drain()

    async def _answers(
        self, line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(READ_BYTES):
            self.answered(line, data)
            writer.write(data)
            await writer.drain()


class PostgresProxy(RecordingProxy):
    """Knows connections by their `application_name`; URLs through it need `sslmode=disable`."""

    def asked(self, line: Line, data: bytes) -> None:
        if not line.who:
            line.who = _application(data)
            if line.wait is not None:
                line.wait.who = line.who
        super().asked(line, data)


class NatsProxy(RecordingProxy):
    """Who waits is a question to a key-value bucket, for no longer than the gateway does.

    Args:
        upstream: The server's port.
        bucket: Its name.
    """

    def __init__(self, upstream: int, bucket: str) -> None:
        super().__init__(upstream)
        self._subjects = (f"$JS.API.DIRECT.GET.KV_{bucket}.", f"$KV.{bucket}.")
        self._waiting: dict[bytes, Wait] = {}

    def opened(self, line: Line) -> None:
        line.asks, line.answers = Commands((b"PUB", b"HPUB")), Commands((b"MSG", b"HMSG"))

    def asked(self, line: Line, data: bytes) -> None:
        assert line.asks is not None
        for words in line.asks.feed(data):
            subject = words[1].decode()
            if subject.startswith(self._subjects):
                now = time.monotonic()
                self.waits.append(Wait(subject, now, now + CACHE_CALL_SECONDS_MAX))
                self._waiting[words[2]] = self.waits[-1]

    def answered(self, line: Line, data: bytes = b"") -> None:
        assert line.answers is not None
        for words in line.answers.feed(data):
            wait = self._waiting.pop(words[1], None)
            if wait is not None:
                wait.ended_at = min(wait.ended_at, time.monotonic())


class RedisProxy(RecordingProxy):
    """Who waits is a call of the gateway's, for no longer than the gateway waits for it."""

    def opened(self, line: Line) -> None:
        """It asks at once."""

    def asked(self, line: Line, _data: bytes) -> None:
        if line.wait is None:
            now = time.monotonic()
            line.wait = Wait("redis", now, now + CACHE_CALL_SECONDS_MAX)
            self.waits.append(line.wait)

    def answered(self, line: Line, _data: bytes = b"") -> None:
        if line.wait is not None:
            line.wait.ended_at = min(line.wait.ended_at, time.monotonic())
            line.wait = None


@dataclass(slots=True)
class Commands:
    """Cuts one direction of NATS's protocol into commands, and passes over payloads."""

    with_payload: tuple[bytes, ...]
    held: bytes = b""
    to_skip: int = field(default=0)

    def feed(self, data: bytes) -> Iterator[list[bytes]]:
        """The words of each command that has a payload."""
        self.held += data
        while True:
            skipped = min(self.to_skip, len(self.held))
            self.held, self.to_skip = self.held[skipped:], self.to_skip - skipped
            head, end, rest = self.held.partition(b"\r\n")
            if self.to_skip or not end:
                return
            self.held = rest
            words = head.split()
            if words and words[0] in self.with_payload:
                self.to_skip = int(words[-1]) + 2
                yield words


def _application(data: bytes) -> str:
    """The name that a connection gives itself in PostgreSQL's first message."""
    if len(data) < 8 or struct.unpack_from(">I", data, 4)[0] != STARTUP_VERSION:
        return ""
    words = data[8:].split(b"\0")
    with contextlib.suppress(ValueError):
        return words[words.index(b"application_name") + 1].decode()
    return ""


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()
