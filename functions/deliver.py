"""deliver: from the lanes to the log, and to the gateways.

What is urgent and for few takes the short way from prioritize; see `shortcut`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

from functions.flush import Flush
from functions.function import Undone, Work
from livefeed.adapters.nats.pull import Message
from livefeed.errors import DeadLetterReason
from livefeed.limits import FLUSH_BYTES_MAX, FLUSH_ROWS_MAX
from livefeed.messages import LaneMessage, decode_lane_message
from livefeed.subjects import LANES, Lane
from livefeed.topology import Consumer, deliver_consumer

ROWS_MAX: Final = 10 * FLUSH_ROWS_MAX
"""Rows that are coalesced together; what is left of them is flushed in portions."""

BYTES_MAX: Final = 4 * FLUSH_BYTES_MAX
"""Payloads that are in memory at once."""


class Deliver:
    """The function; see `function.Function`.

    Args:
        flush: Persists lane messages and tells the gateways.
        windows: Seconds that each lane gathers.
    """

    name = "deliver"
    failure: Final[DeadLetterReason] = "not_persistable"
    rows_max = ROWS_MAX
    bytes_max = BYTES_MAX

    def __init__(self, flush: Flush, *, windows: Mapping[Lane, float]) -> None:
        self.windows = windows
        self._flush = flush

    def sources(self, partitions: frozenset[int]) -> Sequence[tuple[Lane, Consumer]]:
        """The consumers of the partitions, high ones first."""
        return [
            (lane, deliver_consumer(lane, partition))
            for lane in LANES
            for partition in sorted(partitions)
        ]

    def read(self, message: Message) -> Work:
        """Check a lane message; raises UpdateRefused."""
        lane_message = decode_lane_message(message.payload)
        updates = chain.from_iterable(group.updates for group in lane_message.groups)
        # A window of many rows is more than one call gets: what is of one partition is of the same
        # channels, and makes one row and one frame of many when it is handled together.
        return Work(
            message,
            lane_message,
            lane_message.rows,
            min(update.accepted_at for update in updates),
            updates=sum(len(group.updates) for group in lane_message.groups),
            queue=message.subject,
        )

    async def handle(self, works: Sequence[Work]) -> Sequence[Undone]:
        """Persist what all of them say, then tell the gateways."""
        await self._flush([one.content for one in works if isinstance(one.content, LaneMessage)])
        return ()
