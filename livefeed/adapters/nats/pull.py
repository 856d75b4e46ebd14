"""The own pull: messages of one durable consumer, with one request outstanding.

nats-py's `fetch` costs a task, a timer and an id for each message and may stall for its whole
timeout. Here a request stays with the server until its messages are there, and is renewed the
moment it is used up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec

from livefeed.adapters.nats.connection import Connection, DirectSubscription, decode_headers
from livefeed.topology import Consumer

logger = logging.getLogger(__name__)

REQUEST_SECONDS: Final = 10.0
"""How long a request stays with the server; bounds the wait when one is lost there."""
OVERDUE_SECONDS: Final = 2.0
"""A request that the server did not end by then was lost."""


class Message:
    """One delivered message, not yet settled."""

    __slots__ = ("_tokens", "headers", "payload", "reply", "subject")

    def __init__(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        # NATS takes any bytes in a subject.
        self.subject = subject.decode(errors="replace")
        self.reply = reply.decode()
        self.headers = headers
        self.payload = payload
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>,
        # or with <domain>.<account> before the stream and one token more at the end.
        tokens = reply.split(b".")
        self._tokens = tokens if len(tokens) < 11 else tokens[2:]

    @property
    def key(self) -> str:
        """What is the same each time it is delivered."""
        return f"{self.stream}:{self.sequence}"

    @property
    def stream(self) -> str:
        """The stream that it is in."""
        return self._tokens[2].decode()

    @property
    def deliveries(self) -> int:
        """How often it was delivered, this time included."""
        return int(self._tokens[4])

    @property
    def sequence(self) -> int:
        """Its sequence in the stream."""
        return int(self._tokens[5])

    @property
    def stored_at(self) -> int:
        """When the stream stored it, microseconds since 1970."""
        return int(self._tokens[7]) // 1000

    def header(self, name: str) -> str | None:
        """One header by its lower-case name."""
        return decode_headers(self.headers).get(name) if self.headers else None


class Pull:
    """Pulls one consumer and gives each message to a function.

    Args:
        connection: Where to pull.
        consumer: What to pull.
        batch: Messages a request asks for.
        batch_bytes: Bytes a request asks for at most; more than the largest message.
        on_message: Gets each message; must neither block nor raise.
        wanted: Whether to ask for more now.
        clock: Monotonic seconds.
        once: Ask for what is there, and for nothing that comes later.
    """

    def __init__(
        self,
        connection: Connection,
        consumer: Consumer,
        *,
        batch: int,
        batch_bytes: int,
        on_message: Callable[[Message], None],
        wanted: Callable[[], bool],
        clock: Callable[[], float],
        once: bool = False,
    ) -> None:
        self._connection = connection
        self._batch = batch
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.name}"
        how_long = {"no_wait": True} if once else {"expires": int(REQUEST_SECONDS * 1e9)}
        self._request = msgspec.json.encode({"batch": batch, "max_bytes": batch_bytes, **how_long})
        self._once = once
        self.exhausted = False
        """Whether everything that was there has come; only `once` finds out."""
        self._on_message = on_message
        self._wanted = wanted
        self._clock = clock
        self._inbox = connection.new_inbox()
        self._subscription: DirectSubscription | None = None
        self._number = 0
        """Of the last request; what the server says of an earlier one is old news."""
        self._outstanding = 0
        self._overdue_at = 0.0
        self.fault: str | None = None
        """What the server says is wrong with the consumer, until a request is answered well."""

    def start(self) -> None:
        """Subscribe the inbox and ask for the first messages."""
        self._subscription = self._connection.subscribe_direct(f"{self._inbox}.*", self._receive)
        self.ask()

    def ask(self) -> None:
        """Send a request unless one is outstanding or nothing is wanted."""
        now = self._clock()
        if self._subscription is None or (self._outstanding > 0 and now < self._overdue_at):
            return
        if self.exhausted or not self._wanted():
            return
        reply = f"{self._inbox}.{self._number + 1}"
        if self._connection.send(self._subject, self._request, reply=reply):
            self._number += 1
            self._outstanding = self._batch
            self._overdue_at = now + REQUEST_SECONDS + OVERDUE_SECONDS

    def lost(self) -> None:
        """The connection broke: the request with it."""
        self._outstanding = 0

    async def stop(self) -> None:
        """Take no more; what the server sent before it heard of it is still given on."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._connection.drain_direct(subscription)

    def _receive(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        if reply.startswith(b"$JS.ACK"):
            self._outstanding -= 1
            self.fault = None
            self._on_message(Message(subject, reply, headers, payload))
        elif subject.rpartition(b".")[2] == b"%d" % self._number:
            self._status(headers)
        if self._outstanding <= 0:
            self.ask()

    def _status(self, headers: bytes) -> None:
        status, text = headers[9:12], headers[9:].split(b"\r\n", 1)[0].decode(errors="replace")
        if status == b"100":
            return
        self._outstanding = 0
        self.exhausted = self._once and status in {b"404", b"408"}
        # 404 and 408 end a request in peace, and so does 409 when its bytes are used up.
        peaceful = "MaxBytes" in text or "Batch Completed" in text
        if status == b"503" or (status == b"409" and not peaceful):
            if self.fault is None:
                logger.warning("%s: the server says %s", self._subject, text)
            self.fault = text
            # Asking again at once would spin; the caller's next look asks.
            self._outstanding = 1
            self._overdue_at = self._clock() + 0.25
