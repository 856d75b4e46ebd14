"""Questions to NATS with one answer each and a short time: one inbox, one future a question.

nats-py's `request` buffers the question while there is no connection, and sends it when nobody
waits any more. Here it is sent at once or not at all.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import NamedTuple

from livefeed.adapters.nats.connection import Connection, status_of
from livefeed.adapters.patience import patient_timeout
from livefeed.errors import Unavailable


class Reply(NamedTuple):
    """What came back."""

    status: str
    """Of the header, such as `404`; empty for a message."""
    headers: bytes
    payload: bytes


class Questions:
    """Asks over one connection; it listens from the first question on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._prefix = f"{connection.new_inbox()}."
        self._tokens = itertools.count()
        self._waiting: dict[bytes, asyncio.Future[Reply]] = {}
        self._listens = False

    async def ask(
        self,
        subject: str,
        payload: bytes,
        *,
        seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send and wait; nothing is left of a question that was given up.

        Raises:
            Unavailable: There is no connection, or no answer in time.
        """
        self._listen()
        token = str(next(self._tokens))
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[token.encode()] = answer
        try:
            reply = self._prefix + token
            if not self._connection.send(subject, payload, reply=reply, headers=headers):
                raise Unavailable("nats", "there is no connection")
            async with patient_timeout(seconds):
                return await answer
        except TimeoutError as error:
            raise Unavailable("nats", f"no answer within {seconds:g} s") from error
        finally:
            del self._waiting[token.encode()]

    def _listen(self) -> None:
        if not self._listens:
            self._listens = True
            self._connection.subscribe_direct(self._prefix + "*", self._receive)
            self._connection.when_lost(self._lost)

    def _receive(self, subject: bytes, _reply: bytes, headers: bytes, payload: bytes) -> None:
        answer = self._waiting.get(subject.rpartition(b".")[2])
        if answer is not None and not answer.done():
            answer.set_result(Reply(status_of(headers), headers, payload))

    async def _lost(self) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(Unavailable("nats", "the connection broke"))
