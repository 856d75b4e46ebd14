"""A channel of the log as a model, and what a connection needs around it in a test without I/O."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import Raw

from gateway.frames import Frame
from livefeed.adapters.postgres.reads import Page, StoredUpdate
from livefeed.messages import LiveChannel, public_update
from livefeed.websocket import FrameReader

CONTENT_UPDATE: Final = 1
REMOVAL: Final = 2


@dataclass
class ModelLog:
    """One channel: item → its newest entry."""

    name: str
    head: int = 0
    floor: int = 0
    entries: dict[str, StoredUpdate] = field(default_factory=dict)

    def write(self, item: str, kind: int) -> LiveChannel:
        """Move an item to a new seq; returns what would be pushed."""
        start, self.head = self.head, self.head + 1
        update_type = ["new_content", "content_update", "content_removal"][kind]
        body = json.dumps(
            {
                "updateId": f"u{self.head}",
                "updateType": update_type,
                "feedType": "home",
                "content": {"id": item, "n": self.head},
                "timestamp": "2026-11-23T08:00:00Z",
                "version": None,
            }
        ).encode()
        self.entries[item] = StoredUpdate(self.head, 0, kind, None, 1_000_000, body)
        public = public_update(self.name, self.head, rank=None, born=1_000_000, body=body)
        return LiveChannel(self.name, start, self.head, self.floor, [Raw(public)])

    def raise_floor(self, floor: int) -> None:
        """Drop everything at or below it."""
        self.floor = min(self.head, max(self.floor, floor))
        self.entries = {k: v for k, v in self.entries.items() if v.seq > self.floor}

    def page(self, position: int, epoch: str, entries_max: int) -> Page:
        """What comes after a position."""
        newer = sorted(one for one in self.entries.values() if one.seq > position)
        shown = newer[:entries_max]
        more = len(newer) > entries_max
        end = shown[-1].seq if more else max(self.head, self.floor)
        return Page(self.name, epoch, self.head, self.floor, end, more, shown)

    def visible(self) -> dict[str, int]:
        """Item → its number, of what is shown."""
        return {
            item: json.loads(one.body)["content"]["n"]
            for item, one in self.entries.items()
            if one.kind != REMOVAL
        }


class NoNats:
    """Takes subscriptions; messages are given to the hub by hand."""

    def subscribe_direct(self, _subject: str, _handler: Any) -> object:
        return object()

    def unsubscribe_now(self, _subscription: object) -> None:
        pass

    def when_regained(self, _callback: object) -> None:
        pass


class Pipe:
    """A socket into a client.

    Args:
        receive: Takes the payload of each frame.
        is_full: Whether the client does not read.
    """

    closed = False

    def __init__(self, receive: Callable[[bytes], None], is_full: Callable[[], bool]) -> None:
        self._receive = receive
        self._is_full = is_full

    @property
    def has_room(self) -> bool:
        """Whether the outbox takes more."""
        return not self._is_full()

    def write(self, wire: bytes) -> None:
        """Take the bytes of a frame."""
        ((_, payload),) = [*FrameReader(1 << 20, 1).read(masked(wire))]
        self._receive(payload)

    def send(self, frame: Frame) -> None:
        """Take a frame."""
        self._receive(frame.payload)


def masked(wire: bytes) -> bytes:
    """A server's frame as if a client sent it, masked with zeros."""
    size = {126: 4, 127: 10}.get(wire[1], 2)
    return bytes([wire[0], wire[1] | 0x80]) + wire[2:size] + bytes(4) + wire[size:]
