"""Frames of updates: a live batch, or pages of the log. Made once, however many are sent them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property

from livefeed import protocol
from livefeed.adapters.postgres.reads import Page
from livefeed.channel import client_name
from livefeed.messages import LiveChannel, public_update


class Piece:
    """A page of the log on its way to everyone who asked from the same position.

    Args:
        page: The page.
        after: The position that was asked from.
    """

    def __init__(self, page: Page, after: int) -> None:
        self.page = page
        self.after = after

    @cached_property
    def updates(self) -> bytes:
        """Its updates as a frame has them, without the brackets."""
        channel = self.page.channel
        return b",".join(
            public_update(channel, one.seq, rank=one.rank, born=one.born, body=one.body)
            for one in self.page.updates
        )

    @cached_property
    def frame(self) -> str:
        """The frame of a connection that is sent this page alone."""
        return _frame_of([self])


def timestamp() -> str:
    """Now, as frames show it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def live_frame(batch: LiveChannel) -> str:
    """The frame of a live batch: the same for every connection."""
    name = client_name(batch.channel)
    frame = protocol.feed_updates(
        batch_id=f"{name}:{batch.start}-{batch.end}",
        timestamp=timestamp(),
        updates=[bytes(update) for update in batch.updates or []],
        cursor={name: batch.end},
        floor={name: batch.floor},
        replay=False,
        more=False,
    )
    return frame.decode()


def pages_frame(pieces: Sequence[Piece]) -> str:
    """The frame of some pages, each of another channel."""
    return pieces[0].frame if len(pieces) == 1 else _frame_of(pieces)


def _frame_of(pieces: Sequence[Piece]) -> str:
    named = [(client_name(piece.page.channel), piece) for piece in pieces]
    frame = protocol.feed_updates(
        batch_id=",".join(f"{name}:{one.after}-{one.page.end}" for name, one in named),
        timestamp=timestamp(),
        updates=[piece.updates for piece in pieces if piece.page.updates],
        cursor={name: piece.page.end for name, piece in named},
        floor={name: piece.page.floor for name, piece in named},
        replay=True,
        more=any(piece.page.more for piece in pieces),
    )
    return frame.decode()
