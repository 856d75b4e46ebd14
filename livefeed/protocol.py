"""The WebSocket protocol v1: frames, close codes and error codes.

Pure. `docs/protocol.md` is the text; a test compares its tables with the ones here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from livefeed.cursor import POSITION_MAX
from livefeed.errors import FrameRefused
from livefeed.limits import (
    COMMANDS_A_SECOND,
    COMMANDS_BURST,
    CONNECTION_FEEDS_MAX,
    INBOUND_FRAME_BYTES_MAX,
    TOKEN_BYTES_MAX,
)

SUBPROTOCOL: Final = "livefeed.v1"
BEARER_SUBPROTOCOL: Final = "bearer."
HEARTBEAT_SECONDS: Final = 20
FEEDS_MAX: Final = 128
"""Most feeds that one frame or one URL names."""


class CloseCode(IntEnum):
    """Why the server closes: 1012 and 4000–4499 come back, 4500–4999 do not."""

    DRAIN = 1012
    """The server is leaving; come back, another takes over."""
    TOKEN_EXPIRED = 4001
    """The token ran out; come back with a new one."""
    UNAVAILABLE = 4002
    """The server cannot reach what it needs; come back later."""
    TOO_SLOW = 4003
    """The client did not read for too long; come back and catch up."""
    BAD_FRAME = 4500
    """Frames that break the protocol, again and again."""
    TOKEN_INVALID = 4501
    """The token is missing or not valid."""
    FEED_FORBIDDEN = 4502
    """The token allows none of the feeds."""
    CURSOR_INVALID = 4503
    """The cursor is not one, or another user's."""
    REPLACED = 4504
    """The user has too many connections, and this was the oldest of them."""
    TOKEN_REVOKED = 4505
    """The token was revoked; only another one opens a connection."""


ERRORS: Final[Mapping[str, str]] = {
    "frame_invalid": "the frame is not JSON, or not one of the client's frames",
    "frame_too_large": f"the frame is larger than {INBOUND_FRAME_BYTES_MAX} bytes",
    "feed_invalid": "a feed's name has characters that no feed has",
    "feed_forbidden": "the token does not allow this feed",
    "too_many_feeds": f"a connection follows at most {CONNECTION_FEEDS_MAX} feeds",
    "cursor_invalid": "the cursor is not one that this server gave out",
    "cursor_foreign": "the cursor belongs to another user",
    "token_invalid": "the token is missing or not valid, or it is another user's",
    "token_expired": "the token is expired; come with a new one, or refresh it in time",
    "token_revoked": "the token was revoked; another one is needed",
    "origin_forbidden": "pages of this origin may not connect",
    "parameter_invalid": "a parameter of the URL is not what it may be",
    "upgrade_required": "a WebSocket handshake is due here",
    "request_invalid": "this is no request that the server reads",
    "too_many_frames": f"a client sends at most {COMMANDS_A_SECOND} frames a second, and "
    f"{COMMANDS_BURST} at once",
    "unavailable": "the server cannot reach what it needs to answer now; try again later",
    "draining": "the server is leaving; another takes over",
    "busy": "the server is overloaded, or too many come at once",
    "full": "the server has as many connections as it takes",
    "too_many_connections": "too many connections come from this address",
}
"""What an `error` frame's code, or an HTTP answer's, means."""

RETRYABLE: Final = frozenset({"unavailable", "token_expired"})
"""Codes of `error` frames after which the client may do the same again, if with a new token."""

RESET_REASONS: Final[Mapping[str, str]] = {
    "epoch_changed": "the log is another incarnation, for example after a restore",
    "position_ahead": "the cursor is ahead of the log",
}

RECONNECT_REASONS: Final[Mapping[str, str]] = {
    "drain": "the server is leaving",
    "shed": "the server has far more clients than the others",
    "age": "the connection has become as old as one may",
}


class CursorField(Struct, frozen=True, forbid_unknown_fields=True):
    """A cursor in a frame."""

    epoch: Annotated[str, Meta(max_length=128)]
    positions: dict[str, Annotated[int, Meta(ge=0, le=POSITION_MAX)]]


Feeds = Annotated[
    list[Annotated[str, Meta(max_length=64)]], Meta(min_length=1, max_length=FEEDS_MAX)
]


class Subscribe(Struct, frozen=True, tag="subscribe", forbid_unknown_fields=True):
    """Follow feeds, from a cursor if one is given."""

    feeds: Feeds
    cursor: CursorField | None = None


class Unsubscribe(Struct, frozen=True, tag="unsubscribe", forbid_unknown_fields=True):
    """Follow these feeds no more."""

    feeds: Feeds


class Seen(Struct, frozen=True, tag="seen", forbid_unknown_fields=True):
    """Everything up to the cursor was shown on a device."""

    cursor: CursorField
    device: Annotated[str, Meta(min_length=1, max_length=128)] = "default"


class Visibility(Struct, frozen=True, tag="visibility", forbid_unknown_fields=True):
    """Whether anybody looks at this connection."""

    state: Literal["visible", "hidden"]


class Refresh(Struct, frozen=True, tag="refresh", forbid_unknown_fields=True):
    """A new token for the same user."""

    token: Annotated[str, Meta(max_length=TOKEN_BYTES_MAX)]


ClientFrame = Subscribe | Unsubscribe | Seen | Visibility | Refresh

_decoder: msgspec.json.Decoder[ClientFrame] = msgspec.json.Decoder(ClientFrame)
_encode = msgspec.json.Encoder().encode


def decode_frame(text: str | bytes) -> ClientFrame:
    """Read one frame of a client.

    Raises:
        FrameRefused: With an error code of `ERRORS`.
    """
    size = len(text.encode(errors="replace")) if isinstance(text, str) else len(text)
    if size > INBOUND_FRAME_BYTES_MAX:
        raise FrameRefused("frame_too_large", ERRORS["frame_too_large"])
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise FrameRefused("frame_invalid", str(error)) from error


def connection_established(
    *, connection_id: str, user_id: str, feeds: Iterable[str], timestamp: str, epoch: str
) -> bytes:
    """The first frame of a connection."""
    return _encode(
        {
            "type": "connection_established",
            "connectionId": connection_id,
            "userId": user_id,
            "subscribedFeeds": list(feeds),
            "timestamp": timestamp,
            "heartbeatSeconds": HEARTBEAT_SECONDS,
            "epoch": epoch,
        }
    )


def feed_updates(  # one argument a field of the frame
    *,
    batch_id: str,
    timestamp: str,
    updates: Iterable[bytes],
    cursor: Mapping[str, int],
    floor: Mapping[str, int],
    replay: bool,
    more: bool,
) -> bytes:
    """Updates, ready-made by `messages.public_update`; the cursor holds only what changed."""
    return b"".join(
        (
            b'{"type":"feed_updates","batchId":',
            _encode(batch_id),
            b',"timestamp":"',
            timestamp.encode(),
            b'","updates":[',
            b",".join(updates),
            b'],"cursor":',
            _encode(cursor),
            b',"floor":',
            _encode(floor),
            b',"replay":true' if replay else b',"replay":false',
            b',"more":true}' if more else b',"more":false}',
        )
    )


def caught_up(feeds: Iterable[str]) -> bytes:
    """From here these feeds are live."""
    return _encode({"type": "caught_up", "feeds": list(feeds)})


def reset(feeds: Iterable[str], reason: str, epoch: str) -> bytes:
    """Drop the state of these feeds; a catch-up from 0 follows."""
    return _encode({"type": "reset", "feeds": list(feeds), "reason": reason, "epoch": epoch})


def degraded(*, realtime: bool, poll_after_milliseconds: int) -> bytes:
    """Updates may be late until another one says that they are not."""
    return _encode(
        {"type": "degraded", "realtime": realtime, "pollAfterMs": poll_after_milliseconds}
    )


def reconnect(*, after_milliseconds: int, reason: str) -> bytes:
    """Leave, and come back after this time."""
    return _encode({"type": "reconnect", "afterMs": after_milliseconds, "reason": reason})


def error(code: str, message: str, *, retryable: bool) -> bytes:
    """Something in the client's last frame, or in what it asked for, is wrong."""
    return _encode({"type": "error", "code": code, "message": message, "retryable": retryable})
