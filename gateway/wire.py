"""What carries WebSockets: a protocol of our own behind uvicorn's HTTP, between bytes and app.

RFC 6455 itself is in `livefeed.websocket`. What is guarded, and the answer to each fault, is a
table in docs/protocol.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import httptools
from uvicorn.server import ServerState

from gateway.frames import EXTENSION
from gateway.heartbeat import Heartbeat
from gateway.primitives import Gate, Inbox, allowance
from livefeed.limits import (
    CLOSING_SECONDS_MAX,
    INBOUND_COST_BYTES,
    INBOUND_FRAGMENTS_MAX,
    INBOUND_FRAME_BYTES_MAX,
    INBOUND_MESSAGES_MAX,
    OUTBOX_BYTES_MAX,
    UNREAD_PONG_BYTES_MAX,
)
from livefeed.websocket import (
    ABNORMAL,
    BINARY,
    CLOSE,
    INTERNAL_ERROR,
    NO_STATUS,
    NORMAL,
    PING,
    POLICY_VIOLATION,
    PONG,
    TEXT,
    FrameReader,
    Headers,
    Message,
    WireFault,
    accept_value,
    close_frame,
    frame,
    handshake_key,
    opening,
    parse_close,
    refusal,
)

logger = logging.getLogger(__name__)

Asgi = Callable[[Any, Any, Any], Any]

PING_FRAME: Final = frame(PING, b"")


class Disconnected(OSError):
    """Sent to a client that is gone; an OSError, as ASGI asks for."""


class WebSocketWire(asyncio.Protocol):
    """One WebSocket, from its request to its end.

    It is the `FrameWriter` of the app that it serves (`gateway.frames`).

    Args:
        app: What it serves.
        state: uvicorn's: it shuts down what is in it, and waits for it.
        heartbeat: Asks the client whether it is there.
    """

    __slots__ = (
        "_allowance",
        "_app",
        "_deaf",
        "_denial",
        "_early",
        "_heard",
        "_heartbeat",
        "_inbox",
        "_is_open",
        "_key",
        "_last_moment",
        "_loop",
        "_reader",
        "_state",
        "_transport",
        "_unread_pongs",
        "_waited",
        "_writable",
        "ended",
        "on_change",
        "paused",
        "write",
    )

    def __init__(self, app: Asgi, state: ServerState, heartbeat: Heartbeat) -> None:
        self._app = app
        self._state = state
        self._heartbeat = heartbeat
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox()
        self._writable = Gate()
        self._writable.set()
        self._reader = FrameReader(2 * INBOUND_FRAME_BYTES_MAX, INBOUND_FRAGMENTS_MAX)
        self._allowance = allowance(self._loop)
        self._key = b""
        self._denial: dict[str, Any] | None = None
        """The head of a refusal whose body is to come."""
        self._early = b""
        """What came before the handshake was answered."""
        self._is_open = False
        """Whether the handshake was answered with a WebSocket."""
        self._deaf = False
        """Whether what comes in is not looked at any more."""
        self._heard = True
        """Whether anything came since the last ping."""
        self._waited = 0
        """Bytes that waited for the client then."""
        self._unread_pongs = 0
        self._last_moment: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self.write: Callable[[bytes], None]
        self.paused = self.ended = False
        self.on_change: Callable[[], None] | None = None

    def begin(self, transport: asyncio.Transport, scope: dict[str, Any], url: bytes) -> None:
        """Take over a connection whose request asks for a WebSocket, and is right.

        Args:
            transport: The connection's.
            scope: Of the request, as far as uvicorn has it.
            url: Of the request, in either form.
        """
        self._transport = transport
        self.write = transport.write
        transport.set_write_buffer_limits(OUTBOX_BYTES_MAX, OUTBOX_BYTES_MAX // 2)
        transport.set_protocol(self)
        self._key = handshake_key(scope["headers"]) or b""
        self._state.connections.add(self)  # type: ignore[arg-type]  # it knows only its own kinds
        self._inbox.put_nowait({"type": "websocket.connect"})
        task = self._loop.create_task(self._run(self._scope(scope, url)))
        self._state.tasks.add(task)
        task.add_done_callback(self._done)

    def _scope(self, scope: dict[str, Any], url: bytes) -> dict[str, Any]:
        parsed = httptools.parse_url(url)
        offered = [value for name, value in scope["headers"] if name == b"sec-websocket-protocol"]
        names = [one.strip().decode("latin-1") for value in offered for one in value.split(b",")]
        return scope | {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "scheme": "wss" if scope["scheme"] == "https" else "ws",
            "path": unquote_to_bytes(parsed.path).decode(errors="replace"),
            "raw_path": parsed.path,
            "query_string": parsed.query or b"",
            "subprotocols": names,
            "extensions": {"websocket.http.response": {}, EXTENSION: {"writer": self}},
        }

    # What the frame extension offers, beside the fields `paused`, `ended`, `on_change`, `write`.

    def waiting(self) -> int:
        return self._transport.get_write_buffer_size()

    def close(self, code: int, reason: str) -> None:
        if self.ended:
            return
        self.write(close_frame(code, reason))
        self._end(code, reason)
        self._transport.resume_reading()  # The client's own close frame is waited for.
        self._leave_soon()

    # The app.

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self._app(scope, self._receive, self._send)
        except Disconnected:
            pass
        except Exception:
            logger.exception("a WebSocket's app failed")
            if self._is_open:
                self.close(INTERNAL_ERROR, "internal error")
        if not self._is_open and not self._deaf:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._state.tasks.discard(task)
        if not self.ended:
            self.close(NORMAL, "")

    async def _receive(self) -> Any:
        message = await self._inbox.get()
        if not self._inbox and self._is_open and not self._deaf:
            self._transport.resume_reading()
        return message

    async def _send(self, message: dict[str, Any]) -> None:
        await self._writable.wait()
        if self.ended:
            raise Disconnected("the client is gone, or was told to go")
        kind = message["type"]
        if self._is_open:
            self._send_open(kind, message)
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._refuse(HTTPStatus.FORBIDDEN)
        elif kind == "websocket.http.response.start":
            self._denial = message
        elif kind == "websocket.http.response.body" and self._denial is not None:
            start = self._denial
            self._refuse(start["status"], start.get("headers", ()), message["body"])
        else:
            raise RuntimeError(f"{kind} before the handshake was answered")

    def _send_open(self, kind: str, message: dict[str, Any]) -> None:
        if kind == "websocket.close":
            self.close(message.get("code", NORMAL), message.get("reason") or "")
        elif kind != "websocket.send":
            raise RuntimeError(f"{kind} after the handshake was answered")
        elif (text := message.get("text")) is not None:
            self.write(frame(TEXT, text.encode()))
        else:
            self.write(frame(BINARY, message["bytes"]))

    # The handshake's answer.

    def _accept(self, message: dict[str, Any]) -> None:
        accept, headers = accept_value(self._key), message.get("headers", ())
        self.write(opening(accept, message.get("subprotocol"), headers))
        self._is_open = True
        self._heartbeat.join(self)
        early, self._early = self._early, b""
        if early:
            self._transport.resume_reading()
            self.data_received(early)

    def _refuse(self, status: int, headers: Headers = (), body: bytes = b"") -> None:
        self.write(refusal(status, headers, body))
        self._deaf = True
        self._end(ABNORMAL, "")
        self._transport.close()
        self._leave_soon()

    # What comes in.

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._deaf:
            return
        if not self._is_open:
            # No pong may go out before the handshake's answer.
            self._early += data
            self._transport.pause_reading()
            return
        try:
            self._pay(len(data) + INBOUND_COST_BYTES)
            for message in self._reader.read(data):
                self._pay(INBOUND_COST_BYTES)
                if message is not None and not self._take(message):
                    return
        except WireFault as fault:
            self._fail(fault)

    def eof_received(self) -> None:
        """The client sends nothing more: it is over, also for one that still reads."""
        self._deaf = True
        self._end(ABNORMAL, "")
        self._leave_soon()

    def _pay(self, cost: int) -> None:
        if not self._allowance.take(self._loop.time(), cost):
            raise WireFault(POLICY_VIOLATION, "too much at once")

    def _take(self, message: Message) -> bool:
        """Take a message; whether what follows is looked at."""
        opcode, payload = message
        if opcode == CLOSE:
            self._take_close(payload)
            return False
        if self.ended or opcode == PONG:
            return True  # After a close frame of ours only the client's own is waited for.
        if opcode == PING:
            return self._pong(payload)
        content = {"text": payload.decode()} if opcode == TEXT else {"bytes": payload}
        self._inbox.put_nowait({"type": "websocket.receive", **content})
        if len(self._inbox) >= INBOUND_MESSAGES_MAX:
            self._transport.pause_reading()
        return True

    def _take_close(self, payload: bytes) -> None:
        code, reason = parse_close(payload)
        self._deaf = True
        if not self.ended:
            self.write(close_frame(code))
            self._end(code, reason)
        self._transport.close()
        self._leave_soon()

    def _pong(self, payload: bytes) -> bool:
        pong = frame(PONG, payload)
        if self.paused:
            self._unread_pongs += len(pong)
            if self._unread_pongs > UNREAD_PONG_BYTES_MAX:
                self._deaf = True
                self._transport.abort()
                return False
        self.write(pong)
        return True

    def _fail(self, fault: WireFault) -> None:
        """Say why, say that nothing follows, and listen no more.

        To close at once would make the system throw the close frame away where bytes are unread.
        """
        self._deaf = True
        if not self.ended:
            self.write(close_frame(fault.code, fault.reason))
            self._end(fault.code, fault.reason)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._leave_soon()
        if fault.code == POLICY_VIOLATION:
            self._transport.pause_reading()

    # Whether it is there, reads, and is told to go.

    def beat(self) -> None:
        """Ask the client whether it is there, or close what gave no sign since the last time.

        What it has read of what waited is a sign too: the ping is behind that. Where it is we who
        do not read, its silence says nothing.
        """
        waiting = self.waiting()
        unread = not (self.paused or self._transport.is_reading())
        if self._heard or unread or waiting < self._waited:
            self._heard, self._waited = False, waiting
            self.write(PING_FRAME)
        else:
            self.close(INTERNAL_ERROR, "keepalive ping timeout")

    def pause_writing(self) -> None:
        """More waits to be sent than should."""
        self._writable.clear()
        self.paused = True
        self._tell()

    def resume_writing(self) -> None:
        """There is room again."""
        self._writable.set()
        self.paused = False
        self._unread_pongs = 0
        self._tell()

    def shutdown(self) -> None:
        """uvicorn leaves: so does the client."""
        if self._is_open:
            self.close(1012, "")
        elif not self._deaf:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more: nothing here may hold it, or be held by it."""
        self._deaf = True
        self._state.connections.discard(self)
        if self._last_moment is not None:
            self._last_moment.cancel()
            self._last_moment = None
        self._writable.set()
        self._end(NO_STATUS if self._is_open else ABNORMAL, "")
        self.on_change = None

    def _end(self, code: int, reason: str) -> None:
        """Nothing may be written any more: tell the app."""
        if self.ended:
            return
        self.ended = True
        self._heartbeat.leave(self)
        self._inbox.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self._tell()

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _leave_soon(self) -> None:
        """Cut what does not read that it was closed."""
        if self._last_moment is None:
            moment = self._loop.call_later(CLOSING_SECONDS_MAX, self._transport.abort)
            self._last_moment = moment
