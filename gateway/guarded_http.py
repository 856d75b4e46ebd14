"""What carries requests: uvicorn's protocol, with bounds in time and size that it lacks.

What is guarded, and the answer to each fault, is a table in docs/protocol.md. These are uvicorn's
internals, so its minor version is checked at the start.
"""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus
from typing import Any, Final

import httptools
import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.frames import WAITING_EXTENSION
from gateway.heartbeat import Heartbeat
from gateway.primitives import allowance
from gateway.wire import WebSocketWire
from livefeed.errors import Misconfigured
from livefeed.limits import (
    CLOSING_SECONDS_MAX,
    INBOUND_COST_BYTES,
    REQUEST_HEAD_BYTES_MAX,
    REQUEST_HEAD_SECONDS_MAX,
    REQUEST_HEADERS_MAX,
    REQUEST_LINE_BYTES_MAX,
    UNREAD_SECONDS_MAX,
)
from livefeed.protocol import ERRORS
from livefeed.websocket import handshake_fault

UVICORN: Final = "0.54"
"""The minor version whose internals these are."""


def check_uvicorn() -> None:
    """Raise Misconfigured when the installed uvicorn is not the one that this is made for."""
    if uvicorn.__version__.rpartition(".")[0] != UVICORN:
        raise Misconfigured(
            f"uvicorn {uvicorn.__version__} is installed, and the gateway's guards are made for "
            f"{UVICORN}: install uvicorn ~= {UVICORN}.0, or set LIVEFEED_GATEWAY_WIRE=stock to "
            "serve without them"
        )


class GuardedHttp(HttpToolsProtocol):
    """Requests: a complete head in time, within bounds, or a plain answer and the end.

    Args:
        heartbeat: Of the WebSockets that requests turn into.
    """

    def __init__(self, *arguments: Any, heartbeat: Heartbeat, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._heartbeat = heartbeat
        self._allowance = allowance(self.loop)
        self._head_bytes = 0
        self._piece = b""
        """What is parsed now."""
        self._head_deadline: asyncio.TimerHandle | None = None
        self._refused = False
        self._fault: HTTPStatus | None = None
        self._look_at: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        self._look_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return  # Read, so that the answer is not lost to a reset; and not looked at.
        if not self._allowance.take(self.loop.time(), len(data) + INBOUND_COST_BYTES):
            self.transport.abort()
            return
        cycle: Any = self.cycle  # None before the first one, whatever uvicorn declares.
        if self._head_deadline is None and cycle is not None and cycle.response_complete:
            self._await_head()  # uvicorn waits no more, whatever it is that comes.
        if self._head_deadline is not None:
            self._head_bytes += len(data)
            if self._head_bytes > REQUEST_HEAD_BYTES_MAX:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return
        self._piece = data
        super().data_received(data)
        self._piece = b""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        waiting: dict[object, object] = {"bytes": self.transport.get_write_buffer_size}
        self.scope["extensions"] = {WAITING_EXTENSION: waiting}
        if self._head_deadline is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._head_is_here()
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            # uvicorn would read no more, and not see the client go.
            cycle.keep_alive = False
            self._refused = True
            raise ValueError("a request before the answer to the last one")
        self._fault = self._fault_of_head()
        if self._fault is not None:
            raise ValueError(self._fault)  # The parser stops, and has `send_400_response` called.
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if not self._refused:
            self._refuse(self._fault or HTTPStatus.BAD_REQUEST)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._look_on()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._look_on()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_on()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._look_no_more()

    def handle_websocket_upgrade(self) -> None:
        self._look_no_more()
        self.connections.discard(self)
        # uvicorn has caught the parser's word for it, which says where the head ends.
        upgrade = sys.exc_info()[1]
        behind = self._piece[upgrade.args[0] :] if upgrade is not None else b""
        wire = WebSocketWire(self.app, self.server_state, self._heartbeat)
        wire.begin(self.transport, dict(self.scope), self.url)
        if behind:
            wire.data_received(behind)
        # The parser and this hold each other.
        self.parser = None  # type: ignore[assignment]

    def _should_upgrade_to_ws(self) -> bool:
        return True

    def _fault_of_head(self) -> HTTPStatus | None:
        if len(self.url) > REQUEST_LINE_BYTES_MAX:
            return HTTPStatus.REQUEST_URI_TOO_LONG
        sizes = [len(name) + len(value) for name, value in self.headers]
        if len(sizes) > REQUEST_HEADERS_MAX or max(sizes, default=0) > REQUEST_LINE_BYTES_MAX:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        version, upgrades = self.parser.get_http_version(), self._should_upgrade()
        if version != "1.1" and upgrades:
            return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (version == "1.1" and hosts == 0):
            return HTTPStatus.BAD_REQUEST
        return self._fault_of_handshake() if upgrades else None

    def _fault_of_handshake(self) -> HTTPStatus | None:
        try:
            httptools.parse_url(self.url)
        except httptools.HttpParserError:
            return HTTPStatus.BAD_REQUEST
        return handshake_fault(self.parser.get_method().decode(), self.headers)

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_deadline = self.loop.call_later(REQUEST_HEAD_SECONDS_MAX, self._head_is_late)

    def _head_is_here(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _head_is_late(self) -> None:
        self._head_deadline = None
        if self._head_bytes:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    def _look_on(self) -> None:
        """Look now and then whether the client reads; whatever is to end it waits for that."""
        if self._look_at is None:
            waiting = self.transport.get_write_buffer_size()
            self._look_at = self.loop.call_later(UNREAD_SECONDS_MAX, self._look, waiting)

    def _look(self, before: int) -> None:
        self._look_at = None
        if self.transport.get_write_buffer_size() < before:
            self._look_on()
        else:
            self.transport.abort()

    def _look_no_more(self) -> None:
        if self._look_at is not None:
            self._look_at.cancel()
            self._look_at = None

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer, say that nothing follows, and read on for a moment without looking."""
        self._refused = True
        self._head_is_here()
        message = f"{ERRORS['request_invalid']}: {status.phrase.lower()}"
        error = {"code": "request_invalid", "message": message, "retryable": False}
        body = msgspec.json.encode({"error": error})
        head = (
            f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.write_eof()
        self.loop.call_later(CLOSING_SECONDS_MAX, self.transport.abort)
