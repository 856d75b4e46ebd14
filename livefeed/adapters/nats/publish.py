"""The publish window: acknowledged publishes whose futures always end.

One inbox, one future a message. A publish that was not acknowledged in time is *unknown*, not
failed: it is sent again with the same id, or, where no id is given, the caller must be idempotent.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from livefeed.adapters.nats.connection import Connection, status_of
from livefeed.errors import OutcomeUnknown, Unavailable
from livefeed.limits import MIB

ACK_SECONDS_MAX: Final = 5.0
"""How long one attempt waits for its acknowledgement."""
ATTEMPTS_MAX: Final = 3
BATCH_MESSAGES_MIN: Final = 8
"""Fewer are better published one by one: for an atomic batch the server makes a store in a folder
of its own, which costs it as much CPU as a dozen messages, and some four fsyncs."""
BATCH_MESSAGES_MAX: Final = 1000
"""The server's bound of an atomic batch."""
BATCH_BYTES_MAX: Final = 4 * MIB
"""Payloads of one atomic batch; each is acknowledged before the next is sent."""
FULL_CODES: Final = frozenset({10077, 10074})
"""Stream full, insufficient storage."""
BUSY_CODES: Final = FULL_CODES | {10167}
"""These and too many requests: the server says come back."""
FULL: Final = (
    "the stream is full: what was handled is purged where `livefeed pool` runs, "
    "and a larger LIVEFEED_STREAM_BYTES_MAX holds more"
)

Outbound = tuple[str, bytes, Mapping[str, str] | None]
"""`(subject, payload, headers)`."""


class PublishAck(NamedTuple):
    """What JetStream says of a stored message."""

    sequence: int
    duplicate: bool


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Reply(msgspec.Struct):
    seq: int = 0
    duplicate: bool = False
    error: _Error | None = None


class StreamRefused(Unavailable):
    """JetStream said no: the stream is full, busy, or there is none for the subject."""

    def __init__(self, detail: str, *, code: int) -> None:
        super().__init__("nats", detail)
        self.code = code


_decoder = msgspec.json.Decoder(_Reply)


class Publisher:
    """Publishes to JetStream over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._prefix = f"{connection.new_inbox()}."
        self._tokens = itertools.count()
        self._waiting: dict[bytes, asyncio.Future[PublishAck]] = {}

    def start(self) -> None:
        """Listen for acknowledgements."""
        self._connection.subscribe_direct(self._prefix + "*", self._on_reply)
        self._connection.when_lost(self._on_lost)

    async def publish(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        attempts: int = ATTEMPTS_MAX,
    ) -> PublishAck:
        """Publish until JetStream acknowledges.

        Raises:
            StreamRefused: When the server says no.
            OutcomeUnknown: When no acknowledgement came; it may be stored.
        """
        return await self._until_known([(subject, payload, headers)], attempts)

    async def publish_batch(self, messages: Iterable[Outbound]) -> None:
        """Publish all of them in atomic batches, one after the other; one fsync instead of many.

        Raises:
            StreamRefused, OutcomeUnknown: As for `publish`; some batches may be stored.
        """
        for chunk in _chunks(messages):
            await self._until_known(chunk)

    async def publish_all(self, messages: Iterable[Outbound]) -> None:
        """Publish all of them in the way that costs least; for those that may be stored twice.

        Raises:
            StreamRefused, OutcomeUnknown: As for `publish`; some may be stored.
        """
        for chunk in _chunks(messages):
            some = [chunk] if len(chunk) >= BATCH_MESSAGES_MIN else [[one] for one in chunk]
            ends = await asyncio.gather(*map(self._until_known, some), return_exceptions=True)
            for end in ends:
                if isinstance(end, BaseException):
                    raise end

    async def request(self, subject: str, payload: bytes, *, seconds: float) -> PublishAck:
        """Send once and wait; for acknowledgements that are themselves acknowledged."""
        token, future = self._expect()
        sent = self._connection.send(subject, payload, reply=self._prefix + token)
        return await self._wait(token, future, sent=sent, seconds=seconds)

    async def _until_known(
        self, messages: list[Outbound], attempts: int = ATTEMPTS_MAX
    ) -> PublishAck:
        for attempt in range(attempts):
            try:
                return await self._attempt(messages)
            except OutcomeUnknown:
                if attempt == attempts - 1:
                    raise
            except StreamRefused as refused:
                if refused.code not in BUSY_CODES or attempt == attempts - 1:
                    raise
            await asyncio.sleep(0.05 * 4**attempt)
        raise AssertionError("unreachable")

    async def _attempt(self, messages: list[Outbound]) -> PublishAck:
        token, future = self._expect()
        reply = self._prefix + token
        if len(messages) == 1:
            subject, payload, headers = messages[0]
            sent = self._connection.send(subject, payload, reply=reply, headers=headers)
        else:
            sent = self._send_batch(messages, reply)
        return await self._wait(token, future, sent=sent, seconds=ACK_SECONDS_MAX)

    def _send_batch(self, messages: list[Outbound], reply: str) -> bool:
        batch = secrets.token_hex(8)
        last = len(messages)
        for number, (subject, payload, headers) in enumerate(messages, 1):
            marks = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
            if number == last:
                marks["Nats-Batch-Commit"] = "1"
            marks.update(headers or {})
            to = reply if number == last else ""
            if not self._connection.send(subject, payload, reply=to, headers=marks):
                return False
        return True

    def _expect(self) -> tuple[str, asyncio.Future[PublishAck]]:
        token = f"{next(self._tokens):x}"
        future: asyncio.Future[PublishAck] = asyncio.get_running_loop().create_future()
        self._waiting[token.encode()] = future
        return token, future

    async def _wait(
        self, token: str, future: asyncio.Future[PublishAck], *, sent: bool, seconds: float
    ) -> PublishAck:
        try:
            if not sent:
                connected = self._connection.is_connected
                why = "too much waits to be sent" if connected else "not connected"
                raise OutcomeUnknown(f"nats: {why}")
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError as error:
            raise OutcomeUnknown(f"no acknowledgement within {seconds} s") from error
        finally:
            self._waiting.pop(token.encode(), None)

    def _on_reply(self, subject: bytes, _reply: bytes, headers: bytes, payload: bytes) -> None:
        future = self._waiting.get(subject[len(self._prefix) :])
        if future is None or future.done():
            return
        if status_of(headers) == "503":
            future.set_exception(StreamRefused("no stream takes this subject", code=503))
            return
        reply = _decoder.decode(payload) if payload else _Reply()
        if reply.error is not None:
            code = reply.error.err_code
            detail = f"{reply.error.description} ({code})"
            detail = f"{FULL} ({detail})" if code in FULL_CODES else detail
            future.set_exception(StreamRefused(detail, code=code))
        else:
            future.set_result(PublishAck(reply.seq, reply.duplicate))

    async def _on_lost(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(OutcomeUnknown("the connection to nats was lost"))


def _chunks(messages: Iterable[Outbound]) -> Iterator[list[Outbound]]:
    chunk: list[Outbound] = []
    size = 0
    for message in messages:
        weight = len(message[1])
        if chunk and (len(chunk) == BATCH_MESSAGES_MAX or size + weight > BATCH_BYTES_MAX):
            yield chunk
            chunk, size = [], 0
        chunk.append(message)
        size += weight
    if chunk:
        yield chunk
