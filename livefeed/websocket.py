"""WebSockets by RFC 6455, the server's side: the handshake, frames from bytes, frames to bytes.

Pure: bytes come in, messages and faults go out. No extension is ever accepted, so there is no
compression, and a reserved bit is a fault.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

Headers = Sequence[tuple[bytes, bytes]]
"""Lower-case names, and values."""

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_OPCODES: Final = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_FINAL: Final = 0x80
_RESERVED: Final = 0x70
_OPCODE: Final = 0x0F
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_CONTROL_BYTES_MAX: Final = 125
_MASK_BYTES: Final = 4

NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
NO_STATUS: Final = 1005
"""For a close frame without a code; never on the wire."""
ABNORMAL: Final = 1006
"""For an end without a close frame; never on the wire."""
NOT_UTF8: Final = 1007
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011

_CODES_BELOW_3000: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
"""Those that may be on the wire; from 3000 to 4999 all may."""

_KEY_BYTES: Final = 16
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION: Final = b"13"


class WireFault(Exception):
    """What a client sent that RFC 6455 forbids, or that is too large.

    Args:
        code: The code that it is closed with.
        reason: In a few words.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Message(NamedTuple):
    """A whole message, or a control frame."""

    opcode: int
    """TEXT, BINARY, CLOSE, PING or PONG."""
    payload: bytes
    """Of TEXT it is UTF-8."""


class FrameReader:
    """Takes a client's bytes apart.

    Args:
        message_bytes_max: Largest message, all its fragments together.
        fragments_max: Most fragments of one.
    """

    __slots__ = ("_fragments", "_fragments_max", "_message_bytes_max", "_opcode", "_rest")

    def __init__(self, message_bytes_max: int, fragments_max: int) -> None:
        self._message_bytes_max = message_bytes_max
        self._fragments_max = fragments_max
        self._rest: bytes | bytearray = b""
        """The beginning of a frame; bounded, because a length that is too large is a fault."""
        self._opcode = CONTINUATION
        """Of the message whose fragments are coming."""
        self._fragments: list[bytes] = []

    def read(self, data: bytes) -> Iterator[Message | None]:
        """The messages that end in this piece of the stream; None for each other frame.

        Whoever stops in the middle cannot go on.

        Raises:
            WireFault: From there on nothing of the stream means anything.
        """
        if self._rest:
            self._rest += data
            data = bytes(self._rest)
        at, size = 0, len(data)
        while size - at >= 2:
            first, length = data[at], data[at + 1] & _LENGTH
            _check_head(first, data[at + 1])
            start = at + 2
            if length > _CONTROL_BYTES_MAX:
                start += 2 if length == 126 else 8
                if size < start:
                    break
                length = int.from_bytes(data[at + 2 : start], "big")
            self._check_size(first & _OPCODE, length)
            end = start + _MASK_BYTES + length
            if size < end:
                break
            payload = _unmasked(data[start + _MASK_BYTES : end], data[start : start + _MASK_BYTES])
            at = end
            yield self._take(first, payload)
        self._rest = bytearray(data[at:]) if at < size else b""

    def _check_size(self, opcode: int, length: int) -> None:
        if opcode < CLOSE:
            length += sum(map(len, self._fragments))
        if length > self._message_bytes_max:
            raise WireFault(TOO_BIG, "too large a message")

    def _take(self, first: int, payload: bytes) -> Message | None:
        opcode = first & _OPCODE
        if opcode >= CLOSE:
            return Message(opcode, payload)
        if opcode == CONTINUATION:
            if self._opcode == CONTINUATION:
                raise WireFault(PROTOCOL_ERROR, "a continuation of nothing")
            if len(self._fragments) >= self._fragments_max:
                raise WireFault(TOO_BIG, "too many fragments")
        elif self._opcode != CONTINUATION:
            raise WireFault(PROTOCOL_ERROR, "a message inside a message")
        if not first & _FINAL:
            self._opcode = self._opcode or opcode
            self._fragments.append(payload)
            return None
        if self._opcode != CONTINUATION:
            opcode, payload = self._opcode, b"".join([*self._fragments, payload])
            self._opcode, self._fragments = CONTINUATION, []
        if opcode == TEXT:
            _check_utf8(payload)
        return Message(opcode, payload)


def handshake_fault(method: str, headers: Headers) -> HTTPStatus | None:
    """What is wrong with the head of a request that asks for a WebSocket over HTTP/1.1."""
    if method != "GET":
        return HTTPStatus.METHOD_NOT_ALLOWED
    versions = [value.strip() for name, value in headers if name == b"sec-websocket-version"]
    origins = sum(name == b"origin" for name, _ in headers)
    if (
        handshake_key(headers) is None
        or versions != [_VERSION]
        or origins > 1
        or _has_body(headers)
    ):
        return HTTPStatus.BAD_REQUEST
    return None


def handshake_key(headers: Headers) -> bytes | None:
    """The key of a handshake; None where there is not exactly one, of 16 bytes."""
    keys = [value.strip() for name, value in headers if name == b"sec-websocket-key"]
    try:
        (key,) = keys
        if len(base64.b64decode(key, validate=True)) != _KEY_BYTES:
            return None
    except (ValueError, binascii.Error):
        return None
    return key


def accept_value(key: bytes) -> bytes:
    """What answers the key of a handshake, and shows that it was understood."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def opening(accept: bytes, subprotocol: str | None, headers: Headers) -> bytes:
    """The answer to a right handshake; what follows are frames."""
    named = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")]
    named.append((b"Sec-WebSocket-Accept", accept))
    if subprotocol is not None:
        named.append((b"Sec-WebSocket-Protocol", subprotocol.encode()))
    return _head(HTTPStatus.SWITCHING_PROTOCOLS, [*named, *headers])


def refusal(status: int, headers: Headers, body: bytes) -> bytes:
    """The answer to a handshake that is refused; nothing follows."""
    named = [(name, value) for name, value in headers if name.lower() != b"content-length"]
    named += [(b"Content-Length", str(len(body)).encode()), (b"Connection", b"close")]
    return _head(HTTPStatus(status), named) + body


def frame(opcode: int, payload: bytes) -> bytes:
    """A whole message, or a control frame, as a server sends it; a server masks nothing."""
    first, length = _FINAL | opcode, len(payload)
    if length <= _CONTROL_BYTES_MAX:
        return struct.pack("!BB", first, length) + payload
    if length < 1 << 16:
        return struct.pack("!BBH", first, 126, length) + payload
    return struct.pack("!BBQ", first, 127, length) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; a code that may not be on the wire is left out, a long reason cut."""
    if not _is_sendable(code):
        return frame(CLOSE, b"")
    text = reason.encode()[: _CONTROL_BYTES_MAX - 2].decode(errors="ignore")
    return frame(CLOSE, struct.pack("!H", code) + text.encode())


def parse_close(payload: bytes) -> tuple[int, str]:
    """The code and the reason of a client's close frame; raises WireFault."""
    if not payload:
        return NO_STATUS, ""
    _check_utf8(payload[2:])
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not _is_sendable(code):
        raise WireFault(PROTOCOL_ERROR, "a close code that is none")
    return code, payload[2:].decode()


def _has_body(headers: Headers) -> bool:
    # It would be read as frames.
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
        for name, value in headers
    )


def _head(status: HTTPStatus, headers: Headers) -> bytes:
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return f"HTTP/1.1 {status} {status.phrase}\r\n".encode() + lines + b"\r\n"


def _check_head(first: int, second: int) -> None:
    opcode = first & _OPCODE
    if first & _RESERVED:
        raise WireFault(PROTOCOL_ERROR, "a reserved bit")
    if opcode not in _OPCODES:
        raise WireFault(PROTOCOL_ERROR, "an opcode that is none")
    if not second & _MASKED:
        raise WireFault(PROTOCOL_ERROR, "a frame that is not masked")
    if opcode >= CLOSE and (not first & _FINAL or second & _LENGTH > _CONTROL_BYTES_MAX):
        raise WireFault(PROTOCOL_ERROR, "too large or fragmented a control frame")


def _check_utf8(payload: bytes) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError:
        raise WireFault(NOT_UTF8, "not UTF-8") from None


def _is_sendable(code: int) -> bool:
    return code in _CODES_BELOW_3000 or 3000 <= code < 5000


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    # As one number: byte by byte it would take a hundred times as long.
    length = len(payload)
    repeated = (mask * (length // _MASK_BYTES + 1))[:length]
    both = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return both.to_bytes(length, "big")
