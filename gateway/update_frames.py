"""Frames of updates: a live batch, or a page of the log. Made once for all with the same filter."""

from __future__ import annotations

from collections.abc import Callable
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
PageFrames = Callable[[Types], Frame]
"""The frame of a page for each filter; one that is empty still says where it reaches."""


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


def page_frame(page: Page, after: int, types: Types) -> Frame:
    """The frame of a page: the same for every connection that asked from there with this filter."""
    name = client_name(page.channel)
    frame = protocol.feed_updates(
        batch_id=f"{name}:{after}-{page.end}",
        timestamp=timestamp(),
        updates=[
            public_update(page.channel, one.seq, rank=one.rank, born=one.born, body=one.body)
            for one in page.updates
            if KINDS[one.kind] in types
        ],
        cursor={name: page.end},
        floor={name: page.floor},
        replay=True,
        more=page.more,
    )
    return Frame(frame)
