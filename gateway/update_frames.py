"""Frames of updates: a live batch, or pages of the log. Made once for all with the same filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from gateway.frames import Frame
from livefeed import protocol
from livefeed.adapters.postgres.reads import Page
from livefeed.channel import client_name
from livefeed.filters import ALL_TYPES, Types, of_types
from livefeed.messages import LiveChannel, public_update
from livefeed.update import KINDS

LiveFrames = Callable[[Types], Frame | None]
"""The frame of a live batch for each filter; None when nothing of it passes."""


class Piece:
    """A page of the log on its way to everyone who asked from the same position.

    Args:
        page: The page.
        after: The position that was asked from.
    """

    def __init__(self, page: Page, after: int) -> None:
        self.page = page
        self.after = after
        self._updates: dict[Types, bytes] = {}
        self._frames: dict[Types, Frame] = {}

    def updates(self, types: Types) -> bytes:
        """Its updates that pass a filter, as a frame has them, without the brackets."""
        if types not in self._updates:
            channel = self.page.channel
            self._updates[types] = b",".join(
                public_update(channel, one.seq, rank=one.rank, born=one.born, body=one.body)
                for one in self.page.updates
                if KINDS[one.kind] in types
            )
        return self._updates[types]

    def frame(self, types: Types) -> Frame:
        """The frame of a connection that is sent this page alone; it may hold no update."""
        if types not in self._frames:
            self._frames[types] = _frame_of([self], types)
        return self._frames[types]


def timestamp() -> str:
    """Now, as frames show it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def live_frame(batch: LiveChannel, types: Types) -> Frame | None:
    """The frame of a live batch: the same for every connection with this filter."""
    updates = of_types(batch.updates or [], types)
    if not updates and types != ALL_TYPES:
        return None
    name = client_name(batch.channel)
    frame = protocol.feed_updates(
        batch_id=f"{name}:{batch.start}-{batch.end}",
        timestamp=timestamp(),
        updates=updates,
        cursor={name: batch.end},
        floor={name: batch.floor},
        replay=False,
        more=False,
    )
    return Frame(frame)


def pages_frame(pieces: Sequence[Piece], types: Types) -> Frame:
    """The frame of some pages, each of another channel."""
    return pieces[0].frame(types) if len(pieces) == 1 else _frame_of(pieces, types)


def _frame_of(pieces: Sequence[Piece], types: Types) -> Frame:
    named = [(client_name(piece.page.channel), piece) for piece in pieces]
    frame = protocol.feed_updates(
        batch_id=",".join(f"{name}:{one.after}-{one.page.end}" for name, one in named),
        timestamp=timestamp(),
        updates=[updates for piece in pieces if (updates := piece.updates(types))],
        cursor={name: piece.page.end for name, piece in named},
        floor={name: piece.page.floor for name, piece in named},
        replay=True,
        more=any(piece.page.more for piece in pieces),
    )
    return Frame(frame)
