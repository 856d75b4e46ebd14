"""Publishing by HTTP POST over a few kept connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.http_client import Answer, HttpClient
from benchmarks.peers.sender import Publish
from benchmarks.stack import HOST
from livefeed.errors import OutcomeUnknown, Unavailable

CONNECTIONS: Final = 16


@dataclass(frozen=True, slots=True)
class HttpPublishing:
    """Posts each message; `{channel}` is replaced in the path and in what is sent before it."""

    dependency: str
    port: int
    path: str
    headers: tuple[str, ...] = ()
    before: str = ""
    after: str = ""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Publish]:
        """Connect."""
        idle: asyncio.Queue[_Connection] = asyncio.Queue()
        connections = [_Connection(self.dependency) for _ in range(CONNECTIONS)]
        for connection in connections:
            await connection.open(self.port)
            idle.put_nowait(connection)

        async def publish(channel: str, payload: bytes, _message_id: str) -> None:
            before = self.before.replace("{channel}", channel).encode()
            body = before + payload + self.after.encode()
            lines = [
                f"POST {self.path.replace('{channel}', channel)} HTTP/1.1",
                f"Host: {HOST}",
                f"Content-Length: {len(body)}",
                "Content-Type: application/json",
                *self.headers,
            ]
            connection = await idle.get()
            try:
                await connection.ask("\r\n".join([*lines, "", ""]).encode() + body)
            finally:
                idle.put_nowait(connection)

        try:
            yield publish
        finally:
            for connection in connections:
                connection.cut()


class _Connection:
    """One connection, which is asked one thing after the other."""

    def __init__(self, dependency: str) -> None:
        self._dependency = dependency
        self._client = HttpClient(self._on_answer, self._on_lost)
        self._answer: asyncio.Future[Answer] | None = None

    async def open(self, port: int) -> None:
        """Connect; raises OSError."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self._client, HOST, port)

    async def ask(self, request: bytes) -> None:
        """Send a request, and wait for the answer; raises OutcomeUnknown or Unavailable."""
        if self._client.closed:
            raise Unavailable(self._dependency, "it closed the connection")
        self._answer = asyncio.get_running_loop().create_future()
        self._client.send(request)
        answer = await self._answer
        if not 200 <= answer.status < 300:
            raise Unavailable(self._dependency, f"{answer.status}: {answer.body[:200]!r}")

    def cut(self) -> None:
        """End it."""
        self._client.cut()

    def _on_answer(self, _client: HttpClient, answer: Answer) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def _on_lost(self, _client: HttpClient) -> None:
        if self._answer is not None and not self._answer.done():
            text = f"{self._dependency} closed the connection"
            self._answer.set_exception(OutcomeUnknown(text))
