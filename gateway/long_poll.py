"""The door for long polls: what is newer than a cursor, or the next thing that happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from gateway.door import answer_head, gone, served, visit
from gateway.frames import Frame
from gateway.waits import first_of
from livefeed.errors import Unavailable
from livefeed.limits import POLL_READ_SECONDS_MAX
from livefeed.over_http import Answer, parse_wait
from livefeed.protocol import CloseCode

if TYPE_CHECKING:
    from gateway.app import Gateway

_HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]


async def updates(gateway: Gateway, request: Request, send: Send) -> None:
    """Answer `GET /v1/feeds/{feed}/updates`.

    Raises:
        Refused: As `visit` does, and for the parameter `wait`.
        Overloaded: As `visit` does.
        Unavailable: As `visit` does, and when the log could not be read in time.
    """
    wait = parse_wait(request.query_params)
    async with visit(gateway, request) as asked:
        if request.method == "HEAD":
            await answer_head(send, _HEADERS)
            return
        connection = asked.connection(gateway)
        answer = Answer(asked.reached())
        socket = connection.socket = AnswerSocket(answer)
        with served(gateway, connection):
            asked.begin(gateway, connection)
            await first_of(socket.enough(wait), gone(request.receive))
    if answer.empty and not answer.caught_up:
        raise Unavailable("gateway", "the log was not read in time for a long poll")
    response = Response(answer.body())
    response.raw_headers += _HEADERS
    await response(request.scope, request.receive, send)


class AnswerSocket:
    """Gathers what a connection sends until it is an answer; that is all the room there is."""

    write = None

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._changed = asyncio.Event()
        self.closed = False

    @property
    def has_room(self) -> bool:
        """Whether more may be sent now."""
        return not self._answer.complete and not self.closed

    async def room(self) -> None:
        """Nothing to wait for: such a client says nothing."""

    def send(self, frame: Frame) -> None:
        """Gather a frame."""
        if not self.closed:
            self._answer.add(frame.payload)
            self._changed.set()

    def close(self, _code: CloseCode, _reason: str) -> None:
        """Answer with what is there; the client's next request is told why."""
        self.closed = True
        self._changed.set()

    @property
    def pending_bytes(self) -> int:
        """None: what was gathered goes out as one answer."""
        return 0

    def cut(self, code: CloseCode, reason: str) -> None:
        """Answer with what is there."""
        self.close(code, reason)

    def end(self) -> None:
        """Nothing to let go of."""

    async def enough(self, seconds: float) -> None:
        """Return when the answer is complete, or its time is over."""
        began_at = asyncio.get_running_loop().time()
        # A client that would not wait at all is to be told all the same what it has missed.
        await self._until(began_at + max(seconds, POLL_READ_SECONDS_MAX), caught_up=True)
        await self._until(began_at + seconds, caught_up=False)

    async def _until(self, deadline: float, *, caught_up: bool) -> None:
        """Return when the answer is complete, or everything older was sent if that will do."""
        try:
            async with asyncio.timeout_at(deadline):
                while self.has_room and not (caught_up and self._answer.caught_up):
                    await self._changed.wait()
                    self._changed.clear()
        except TimeoutError:
            return
