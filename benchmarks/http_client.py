"""An HTTP/1.1 client on a kept connection, cheap enough to leave the CPU to the server.

It reads what a livefeed gateway sends: answers with a Content-Length, one for each request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

END_OF_HEAD: Final = b"\r\n\r\n"
HEAD_BYTES_MAX: Final = 16 * 1024


class AnswerBroken(Exception):
    """The server sent what this client does not read."""


class Answer(NamedTuple):
    """One answer."""

    status: int
    cache_status: str
    """The header of RFC 9211, or empty."""
    body: bytes
    size: int
    """Bytes on the wire, with the head."""


class AnswerParser:
    """Cuts a stream of bytes into answers; does no I/O."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> Answer | None:
        """The answer that these bytes complete; there is at most one under way.

        Raises:
            AnswerBroken: When its length is not said.
        """
        held = self._held = self._held + data if self._held else data
        end = held.find(END_OF_HEAD)
        if end < 0:
            if len(held) > HEAD_BYTES_MAX:
                raise AnswerBroken("the answer's head does not end")
            return None
        head = held[:end]
        length = _header(head, b"content-length")
        if not length:
            raise AnswerBroken(f"an answer without a length: {head!r}")
        start = end + len(END_OF_HEAD)
        stop = start + int(length)
        if len(held) < stop:
            return None
        self._held = held[stop:]
        cache_status = _header(head, b"cache-status").decode("latin-1")
        return Answer(int(head[9:12]), cache_status, held[start:stop], stop)


def request_for(path: str, *, host: str, token: str) -> bytes:
    """A GET request."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {token}"]
    return "\r\n".join([*lines, "", ""]).encode()


class HttpClient(asyncio.Protocol):
    """One connection with at most one request under way.

    Args:
        on_answer: Called with each answer.
        on_lost: Called once when the connection has ended.
    """

    __slots__ = ("_on_answer", "_on_lost", "_parser", "_transport", "closed")

    def __init__(
        self,
        on_answer: Callable[[HttpClient, Answer], None],
        on_lost: Callable[[HttpClient], None],
    ) -> None:
        self._on_answer = on_answer
        self._on_lost = on_lost
        self._parser = AnswerParser()
        self._transport: asyncio.Transport | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's is a Transport

    def data_received(self, data: bytes) -> None:
        answer = self._parser.feed(data)
        if answer is not None:
            self._on_answer(self, answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._on_lost(self)

    def send(self, request: bytes) -> None:
        """Send a request; the one before must have been answered."""
        if self._transport is not None:
            self._transport.write(request)

    def cut(self) -> None:
        """End it, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()


def _header(head: bytes, name: bytes) -> bytes:
    """The value of a header, or empty."""
    start = head.lower().find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()
