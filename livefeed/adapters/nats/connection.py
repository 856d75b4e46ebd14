"""One supervised NATS connection with direct dispatch.

nats-py gives each subscription a task and a queue and closes for good on most errors of the server.
Here a message goes straight to a plain function, and every error but a permission violation
reconnects.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from livefeed.adapters.nats.access import access_options
from livefeed.errors import Unavailable
from livefeed.limits import MIB
from livefeed.nats_access import ANYBODY, NatsAccess

logger = logging.getLogger(__name__)

CONNECT_SECONDS_MAX: Final = 10.0
PING_SECONDS: Final = 10
FLUSH_SECONDS_MAX: Final = 10
RECONNECT_WAIT_SECONDS: Final = 0.25
OUTBOUND_BYTES_MAX: Final = 32 * MIB
"""Bytes that wait for the socket; above it `send` refuses instead of growing."""

Handler = Callable[[bytes, bytes, bytes, bytes], None]
"""`(subject, reply, headers, payload)`; it must neither block nor raise."""
Callback = Callable[[], Awaitable[None]]


class DirectSubscription:
    """A subscription without task or queue.

    It stands among nats-py's own subscriptions, so a reconnect replays it too; the class attributes
    are what nats-py reads of them.
    """

    __slots__ = ("_id", "_received", "_subject", "handler")
    _queue = ""
    _max_msgs = 0
    _wait_for_msgs_task = None
    _message_iterator = None
    _pending_next_msgs_calls = None

    def __init__(self, sid: int, subject: str, handler: Handler) -> None:
        self._id = sid
        self._subject = subject
        self._received = 0
        self.handler = handler


class Connection(Client):
    """A NATS client whose direct subscriptions call plain functions."""

    def __init__(self) -> None:
        super().__init__()
        self._direct: dict[int, DirectSubscription] = {}
        self._lost_callbacks: list[Callback] = []
        self._regained_callbacks: list[Callback] = []
        self.closed_for_good = asyncio.Event()
        self.sends_refused = 0
        """Messages that were not sent because there was no connection or too much waited."""

    def when_lost(self, callback: Callback) -> None:
        """Call this whenever the connection breaks."""
        self._lost_callbacks.append(callback)

    def when_regained(self, callback: Callback) -> None:
        """Call this whenever the connection stands again and subscriptions are replayed."""
        self._regained_callbacks.append(callback)

    def subscribe_direct(self, subject: str, handler: Handler) -> DirectSubscription:
        """Have every message on a subject given to `handler`."""
        self._sid += 1
        subscription = DirectSubscription(self._sid, subject, handler)
        self._direct[self._sid] = subscription
        self._subs[self._sid] = subscription  # type: ignore[assignment]
        self._tell(b"SUB %s  %d\r\n" % (subject.encode(), self._sid))
        return subscription

    def unsubscribe_now(self, subscription: DirectSubscription) -> None:
        """Stop; messages that are on their way already are dropped."""
        self._tell(b"UNSUB %d\r\n" % subscription._id)  # noqa: SLF001
        self._forget(subscription)

    async def drain_direct(self, subscription: DirectSubscription) -> None:
        """Stop, and return when nothing more can come; what was on its way is still handled."""
        self._tell(b"UNSUB %d\r\n" % subscription._id)  # noqa: SLF001
        # Without a connection nothing can come either.
        if self.is_connected:
            with contextlib.suppress(NatsError):
                await self.flush(2)
        self._forget(subscription)

    async def flush(self, timeout: int = FLUSH_SECONDS_MAX) -> None:  # noqa: ASYNC109  # nats-py's
        """Return when the server has handled all that was said until now.

        Raises:
            NatsError: It does not say so in time, or there is none.
        """
        if self.is_connected and self._transport is not None:
            # nats-py's ping overtakes what waits for the socket: its answer would come before the
            # server knows of a subscription, or while messages of one that has ended still do.
            self._transport.writelines(self._pending)
            self._pending, self._pending_data_size = [], 0
        await super().flush(timeout)

    def send(
        self,
        subject: str,
        payload: bytes,
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> bool:
        """Publish at once, or not at all.

        Returns:
            False when there is no connection or too much waits: nothing was buffered.
        """
        if not self.is_connected or self._pending_data_size > OUTBOUND_BYTES_MAX:
            self.sends_refused += 1
            return False
        if headers is None:
            head = f"PUB {subject} {reply} {len(payload)}\r\n".encode()
        else:
            block = encode_headers(headers)
            total = len(block) + len(payload)
            head = f"HPUB {subject} {reply} {len(block)} {total}\r\n".encode() + block
        self._write(head + payload + b"\r\n")
        return True

    def send_each(self, subjects: Sequence[str], payload: bytes) -> bool:
        """Publish the same bytes on each subject in one write, at once or not at all."""
        if not subjects:
            return True
        if not self.is_connected or self._pending_data_size > OUTBOUND_BYTES_MAX:
            self.sends_refused += len(subjects)
            return False
        tail = b"  %d\r\n%s\r\n" % (len(payload), payload)
        self._write(b"".join(b"PUB " + subject.encode() + tail for subject in subjects))
        return True

    def attempt_failed(self) -> None:
        """An attempt to connect failed: leave nothing of it.

        nats-py leaves the socket of a server that accepted and said nothing open, one more with
        each attempt. And the next attempt tells every subscription that there is then.
        """
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]
        kept = [one for one in self._pending if not one.startswith((b"SUB ", b"UNSUB "))]
        self._pending, self._pending_data_size = kept, sum(map(len, kept))

    async def _process_pong(self) -> None:
        # Whoever asked may have given up. nats-py would end its read loop over that, and say
        # nothing: connected as before, and deaf.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _read_loop(self) -> None:
        await super()._read_loop()
        if self.is_connected and asyncio.current_task() is self._reading_task:
            # It ended by a fault of its own: nothing would ever be heard again.
            await self._process_op_err(NatsError("nats: reading has ended"))

    def forget_waiting(self) -> None:
        """Send nothing of what waits: nats-py would write it into a socket that has ended."""
        self._pending, self._pending_data_size = [], 0

    def _tell(self, command: bytes) -> None:
        """Have the server know of a subscription that came or went.

        Not while there is none: they are told when there is one again, and what clients that come
        and go meanwhile would leave here has no bound.
        """
        if not self.is_reconnecting:
            self._write(command)

    def _write(self, command: bytes) -> None:
        self._pending.append(command)
        self._pending_data_size += len(command)
        if self.is_connected and self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    def _forget(self, subscription: DirectSubscription) -> None:
        self._direct.pop(subscription._id, None)  # noqa: SLF001
        self._subs.pop(subscription._id, None)  # noqa: SLF001

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        subscription = self._direct.get(sid)
        if subscription is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            subscription.handler(subject, reply, headers or b"", data)
        except Exception:
            # An error here would end the read loop, and with it the connection, silently.
            logger.exception("a message handler failed")

    async def _process_err(self, err_msg: str) -> None:
        if "permissions violation" in err_msg:
            logger.error("nats refuses: %s", err_msg)
            return
        # nats-py would close for good on "slow consumer", "server shutdown" and others.
        await self._process_op_err(NatsError(f"nats: {err_msg}"))


async def connect(
    servers: list[str],
    *,
    name: str,
    access: NatsAccess = ANYBODY,
    seconds_max: float = CONNECT_SECONDS_MAX,
) -> Connection:
    """Connect, and stay connected whatever happens to the servers.

    Args:
        servers: Their URLs.
        name: What the servers' monitoring shows.
        access: Who we are, where they ask for it.
        seconds_max: How long connecting may take.

    Raises:
        Unavailable: When no server answers within `seconds_max`, or none lets us in.
        Misconfigured: When the seed or the certificates are none.
    """
    connection = Connection()

    async def lost() -> None:
        for callback in connection._lost_callbacks:  # noqa: SLF001
            await callback()

    async def regained() -> None:
        for callback in connection._regained_callbacks:  # noqa: SLF001
            await callback()

    async def closed() -> None:
        connection.closed_for_good.set()

    last_error = "no answer"

    async def failed(error: Exception) -> None:
        nonlocal last_error
        last_error = str(error) or type(error).__name__
        if connection.is_connecting or connection.is_reconnecting:
            connection.attempt_failed()
        logger.debug("nats: %s", last_error)

    options: dict[str, Any] = {
        "name": name,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": RECONNECT_WAIT_SECONDS,
        "ping_interval": PING_SECONDS,
        "max_outstanding_pings": 2,
        "connect_timeout": 2,
        "disconnected_cb": lost,
        "reconnected_cb": regained,
        "closed_cb": closed,
        "error_cb": failed,
        **access_options(access),
    }
    try:
        async with asyncio.timeout(seconds_max):
            await connection.connect(servers, **options)
    except (TimeoutError, OSError, NatsError) as error:
        names = ", ".join(server.rpartition("@")[2] for server in servers)  # Without passwords.
        detail = f"{names}: {last_error}"
        raise Unavailable("nats", detail) from error
    return connection


async def close(connection: Connection) -> None:
    """Flush what waits and close, within a bound."""
    try:
        async with asyncio.timeout(2):
            if connection.is_connected:
                await connection.flush(1)
            else:
                connection.forget_waiting()
            await connection.close()
    # A RuntimeError is what uvloop says of a socket that has ended meanwhile.
    except (TimeoutError, OSError, NatsError, RuntimeError):
        logger.debug("nats: the connection was closed without a flush")
    finally:
        # What nats-py could not send at the end keeps it from saying so itself.
        connection.closed_for_good.set()


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """A NATS header block; names and values come from this program, values are made one line."""
    lines = [f"{name}: {' '.join(value.split())}\r\n" for name, value in headers.items()]
    return ("NATS/1.0\r\n" + "".join(lines) + "\r\n").encode()


def decode_headers(block: bytes) -> dict[str, str]:
    """The headers of a block by lower-case name; the first of each name counts."""
    headers: dict[str, str] = {}
    for line in block.decode(errors="replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    return headers


def status_of(block: bytes) -> str:
    """The status of a header block such as `NATS/1.0 408 Request Timeout`, or an empty text."""
    return block[9:12].decode(errors="replace") if block[8:9] == b" " else ""
