"""A connection's frames as the doors over HTTP show them: events of a stream, or one answer.

Pure. Both tell the whole cursor, for a client over HTTP hands back text and merges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw, Struct

from livefeed.channel import feed_of_client_name
from livefeed.cursor import Cursor, format_cursor, parse_cursor
from livefeed.errors import Refused
from livefeed.limits import (
    CURSOR_BYTES_MAX,
    OUTBOX_BYTES_MAX,
    PAGE_BYTES_MAX,
    POLL_WAIT_SECONDS,
    POLL_WAIT_SECONDS_MAX,
)

RETRY_MILLISECONDS: Final = 2_000
"""How long an `EventSource` waits before it comes back by itself."""
HEARTBEAT: Final = b":\n\n"
"""A comment: it keeps what is in between from taking the stream for dead."""


class ServerFrame(Struct, frozen=True, rename="camel"):
    """What the doors have to know of a frame that the server sends."""

    type: str
    feeds: list[str] = []
    epoch: str = ""
    reason: str = ""
    cursor: dict[str, int] = {}
    floor: dict[str, int] = {}
    updates: list[Raw] = []
    after_ms: int = 0


_decoder = msgspec.json.Decoder(ServerFrame)
_encode = msgspec.json.Encoder().encode


class Reached:
    """The whole cursor of a client that has applied every frame so far.

    Args:
        feed: Positions in other feeds are not kept.
        cursor: Where the client was.
    """

    def __init__(self, feed: str, cursor: Cursor | None) -> None:
        self._epoch = "" if cursor is None else cursor.epoch
        given = {} if cursor is None else cursor.positions
        self._positions = {
            name: seq for name, seq in given.items() if feed_of_client_name(name) == feed
        }

    def apply(self, frame: ServerFrame) -> None:
        """Go on by one frame, as `docs/protocol.md` has a client do."""
        if frame.epoch and frame.epoch != self._epoch:
            self._epoch = frame.epoch
            self._positions.clear()
        if frame.type == "reset":
            self._positions.clear()
        for name, seq in frame.cursor.items():
            self._positions[name] = max(seq, self._positions.get(name, 0))

    def __str__(self) -> str:
        return format_cursor(Cursor(self._epoch, self._positions))


class Events:
    """Makes events of frames, one after the other."""

    def __init__(self, reached: Reached) -> None:
        self._reached = reached

    def event(self, text: bytes) -> bytes:
        """One frame as an event, whose id is the whole cursor after it."""
        frame = _decoder.decode(text)
        self._reached.apply(frame)
        # A publisher's JSON may have line ends between its tokens, never within one.
        line = text.replace(b"\r", b" ").replace(b"\n", b" ")
        head = f"event: {frame.type}\nid: {self._reached}\n"
        if frame.type == "reconnect":
            head += f"retry: {frame.after_ms}\n"
        return head.encode() + b"data: " + line + b"\n\n"

    @staticmethod
    def closed(code: int, reason: str) -> bytes:
        """The last event: what a WebSocket would have been closed with."""
        return (
            b"event: closed\ndata: "
            + _encode({"type": "closed", "code": code, "reason": reason})
            + b"\n\n"
        )


class Answer:
    """Gathers frames until they are the answer of a long poll.

    That is: everything that is newer than the cursor, or as much as fits; when there is nothing,
    the next thing that happens.
    """

    def __init__(self, reached: Reached) -> None:
        self.complete = False
        """Whether to answer now, however long the client would wait."""
        self.caught_up = False
        self._reached = reached
        self._updates: list[Raw] = []
        self._bytes = 0
        self._floors: dict[str, int] = {}
        self._reset: dict[str, str] | None = None

    @property
    def empty(self) -> bool:
        """Whether it tells nothing new."""
        return not self._updates and self._reset is None

    def add(self, text: bytes) -> None:
        """Take the next frame; those after the answer was complete are left to the next one."""
        if self.complete:
            return
        frame = _decoder.decode(text)
        self._reached.apply(frame)
        if frame.type == "reset":
            self._reset = {"reason": frame.reason, "epoch": frame.epoch}
            self._updates.clear()
            self._floors.clear()
            self.caught_up = False
        elif frame.type == "caught_up":
            self.caught_up = True
        self._updates += frame.updates
        self._bytes += len(text)
        self._floors |= frame.floor
        told = self.caught_up and not self.empty
        # The next frame may be as large as a page.
        self.complete = told or self._bytes >= OUTBOX_BYTES_MAX - PAGE_BYTES_MAX

    def body(self) -> bytes:
        """The answer as JSON."""
        fields = {
            "updates": self._updates,
            "cursor": str(self._reached),
            "floor": self._floors,
            "more": not self.caught_up,
        }
        return _encode(fields if self._reset is None else {**fields, "reset": self._reset})


def parse_position(text: str | None) -> Cursor | None:
    """Read a cursor of a URL or of `Last-Event-ID`; an empty one is none.

    Raises:
        CursorRefused: When it is no cursor.
    """
    if not text:
        return None
    if len(text) > CURSOR_BYTES_MAX:
        raise Refused("cursor_invalid", f"the cursor is longer than {CURSOR_BYTES_MAX} bytes")
    return parse_cursor(text)


def parse_wait(parameters: Mapping[str, str]) -> int:
    """Read `wait`, in seconds; raises Refused."""
    text = parameters.get("wait", str(POLL_WAIT_SECONDS))
    # Two digits are enough, and int() is slow for very many.
    if not (text.isascii() and text.isdigit() and len(text) <= 2) or (
        int(text) > POLL_WAIT_SECONDS_MAX
    ):
        detail = f"wait is a whole number of seconds from 0 to {POLL_WAIT_SECONDS_MAX}"
        raise Refused("parameter_invalid", detail)
    return int(text)
