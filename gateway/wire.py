"""What carries WebSockets: uvicorn's protocol, with guards that it lacks and frames of our own.

These are uvicorn's internals, so its minor version is checked at the start. What is guarded, and
the answer to each fault, is a table in docs/protocol.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gateway.frames import EXTENSION
from gateway.guarded_http import allowance
from gateway.primitives import Gate, Inbox
from livefeed.errors import Misconfigured
from livefeed.limits import (
    CLOSING_SECONDS_MAX,
    INBOUND_COST_BYTES,
    INBOUND_FRAGMENTS_MAX,
    OUTBOX_BYTES_MAX,
    UNREAD_PONG_BYTES_MAX,
)

UVICORN: Final = "0.54"
"""The minor version whose internals these are."""
PIECE_BYTES: Final = 2048
"""Parsed at once; between two pieces it is counted what the frames cost."""
POLICY_VIOLATION: Final = 1008
NOT_UTF8: Final = 1007
TOO_BIG: Final = 1009


def check_uvicorn() -> None:
    """Raise Misconfigured when the installed uvicorn is not the one that this is made for."""
    if uvicorn.__version__.rpartition(".")[0] != UVICORN:
        raise Misconfigured(
            f"uvicorn {uvicorn.__version__} is installed, and the gateway's guards are made for "
            f"{UVICORN}: install uvicorn ~= {UVICORN}.0, or set LIVEFEED_GATEWAY_WIRE=stock to "
            "serve without them"
        )


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """WebSockets: what comes in is bounded, what is not read is bounded, and frames go out as made.

    It is the `FrameWriter` of the app that it serves (`gateway.frames`).
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # asyncio's have deques, four of them, which are a tenth of what a connection takes.
        self.queue = Inbox()  # type: ignore[assignment]
        self.writable = Gate()  # type: ignore[assignment]
        self.writable.set()
        self.paused = self.ended = False
        self.on_change: Callable[[], None] | None = None
        self._allowance = allowance(self.loop)
        self._deaf = False
        self._unread_pongs = 0
        self._last_moment: asyncio.TimerHandle | None = None

    # What the frame extension offers.

    @property
    def write(self) -> Callable[[bytes], None]:
        return self.transport.write

    def waiting(self) -> int:
        return self.transport.get_write_buffer_size()

    def close(self, code: int, reason: str) -> None:
        if self.ended:
            return
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self._close_was_sent(code, reason)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    # Beginning and end.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(OUTBOX_BYTES_MAX, OUTBOX_BYTES_MAX // 2)

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.close_sent:
            self._leave_soon()
            return
        self.scope["extensions"][EXTENSION] = {"writer": self}
        # What comes before the handshake was answered waits: no pong may go out before it.
        self.read_paused = True
        self.transport.pause_reading()

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.accept":
            # The app has read the head; it would be a third of a connection's objects. The parser
            # still holds the request.
            self.scope["headers"].clear()  # type: ignore[attr-defined]  # uvicorn makes a list
            self.request.headers.clear()
            del self.request, self.response

    def shutdown(self) -> None:
        super().shutdown()
        self._end()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self._leave_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._last_moment is not None:
            self._last_moment.cancel()
        self._end()
        # What holds itself is only found by the collector, and that looks seldom.
        self.on_change = None
        self.conn.parser.close()
        del self.conn.parser

    # What comes in.

    def data_received(self, data: bytes) -> None:
        if not self._may_send(len(data) + INBOUND_COST_BYTES):
            return
        for start in range(0, len(data), PIECE_BYTES):
            if self._deaf:
                return
            super().data_received(data[start : start + PIECE_BYTES])

    def handle_events(self) -> None:
        if self._may_send(INBOUND_COST_BYTES * len(self.conn.events)):
            super().handle_events()

    def handle_cont(self, event: Any) -> None:
        if len(self.frames) >= INBOUND_FRAGMENTS_MAX:
            self._fail(TOO_BIG, "too many fragments")
        else:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        if self._deaf:
            return
        pongs = b"".join(self.conn.data_to_send())
        if self.paused:
            self._unread_pongs += len(pongs)
            if self._unread_pongs > UNREAD_PONG_BYTES_MAX:
                self.transport.abort()
                return
        self.transport.write(pongs)

    def handle_close(self, event: Any) -> None:
        if not self._deaf:
            super().handle_close(event)
            self._end()

    def send_receive_event_to_app(self) -> None:
        try:
            if self.curr_msg_data_type == "text":
                b"".join(self.frames).decode()
        except UnicodeDecodeError:
            self._fail(NOT_UTF8, "not UTF-8")
        else:
            super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        self._say_why()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._end()
        self._leave_soon()

    # What goes out.

    def pause_writing(self) -> None:
        super().pause_writing()
        self.paused = True
        self._tell()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.paused = False
        self._unread_pongs = 0
        self._tell()

    # Inside.

    def _may_send(self, cost: int) -> bool:
        if self._deaf or self._allowance.take(self.loop.time(), cost):
            return not self._deaf
        self._fail(POLICY_VIOLATION, "too much at once")
        self.transport.pause_reading()
        return False

    def _fail(self, code: int, reason: str) -> None:
        self.conn.fail(code, reason)
        self._say_why()

    def _say_why(self) -> None:
        """Send the close frame that was made, say that nothing follows, and listen no more.

        To close at once would make the system throw the frame away where bytes are left unread.
        """
        if self._deaf:
            return
        self._deaf = True
        close = self.conn.close_sent
        if close is None:  # Not even the handshake was right.
            self.transport.abort()
            return
        self.transport.write(b"".join(self.conn.data_to_send()))
        if not self.close_sent:
            self._close_was_sent(close.code, close.reason)
        self.transport.write_eof()

    def _close_was_sent(self, code: int, reason: str) -> None:
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self._end()
        self.close_timer = self.loop.call_later(CLOSING_SECONDS_MAX, self.transport.abort)

    def _end(self) -> None:
        """Nothing may be written any more."""
        if self.ended:
            return
        self.ended = True
        self.stop_keepalive()
        self._tell()

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _leave_soon(self) -> None:
        """Cut what is closed and not read; until then uvicorn would wait for ever."""
        if not self.disconnected and self._last_moment is None:
            moment = self.loop.call_later(CLOSING_SECONDS_MAX, self.transport.abort)
            self._last_moment = moment
