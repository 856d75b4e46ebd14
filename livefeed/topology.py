"""The streams and consumers that a livefeed needs, as data.

Pure. `livefeed provision` makes a server match this table and never destroys data; `livefeed
doctor` compares a server with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from livefeed import subjects
from livefeed.limits import (
    DEAD_LETTER_AGE_SECONDS_MAX,
    MIB,
    NATS_PAYLOAD_BYTES_MAX,
    PARTITIONS,
    STREAM_MESSAGE_BYTES_MAX,
)
from livefeed.subjects import LANES, Lane

UPDATES: Final = "FEED_UPDATES"
LANE_STREAM: Final = "FEED_LANES"
DEAD_LETTERS: Final = "FEED_DLQ"

ACK_WAIT_SECONDS: Final[dict[Lane, float]] = {"high": 5.0, "medium": 15.0, "low": 30.0}
"""How long a message may be in a worker's hands; kept alive by in-progress."""

CONSUMER_ACK_PENDING_MAX: Final = 10_000
"""Messages of one consumer that may be in workers' hands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One JetStream stream: file storage, limits retention."""

    name: str
    subjects: tuple[str, ...]
    discard: Literal["new", "old"]
    """`new` refuses publishes when full, which tells the publisher; `old` deletes."""
    age_seconds_max: int
    """0 means for ever: `retain` purges what was processed."""
    duplicate_window_seconds: int
    bytes_max: int
    message_bytes_max: int = STREAM_MESSAGE_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """One durable pull consumer with explicit acks and no end of deliveries."""

    stream: str
    name: str
    filters: tuple[str, ...]
    ack_wait_seconds: float


def streams(*, bytes_max: int) -> tuple[Stream, ...]:
    """The three streams; `bytes_max` bounds each of the two working ones."""
    return (
        Stream(
            name=UPDATES,
            subjects=tuple(name for lane in LANES for name in subjects.updates_filters(lane)),
            discard="new",
            age_seconds_max=0,
            duplicate_window_seconds=120,
            bytes_max=bytes_max,
        ),
        Stream(
            name=LANE_STREAM,
            subjects=tuple(subjects.lanes_filter(lane) for lane in LANES),
            discard="new",
            age_seconds_max=0,
            # Lane messages carry no id: persistence is idempotent, and an id would lose recipients
            # when a redelivered update resolves another audience.
            duplicate_window_seconds=1,
            bytes_max=bytes_max,
        ),
        Stream(
            name=DEAD_LETTERS,
            subjects=(subjects.DEAD_LETTERS_ALL,),
            discard="old",
            age_seconds_max=DEAD_LETTER_AGE_SECONDS_MAX,
            duplicate_window_seconds=120,
            bytes_max=max(bytes_max // 4, 16 * MIB),
            message_bytes_max=NATS_PAYLOAD_BYTES_MAX,
        ),
    )


def prioritize_consumer(priority: Lane) -> Consumer:
    """What prioritize reads for one published priority."""
    return Consumer(
        stream=UPDATES,
        name=f"prioritize-{priority}",
        filters=tuple(subjects.updates_filters(priority)),
        ack_wait_seconds=ACK_WAIT_SECONDS[priority],
    )


def deliver_consumer(lane: Lane, partition: int) -> Consumer:
    """What deliver reads for one partition of one lane."""
    return Consumer(
        stream=LANE_STREAM,
        name=f"deliver-{lane}-{partition}",
        filters=(subjects.lanes(lane, partition),),
        ack_wait_seconds=ACK_WAIT_SECONDS[lane],
    )


def consumers() -> tuple[Consumer, ...]:
    """Every consumer: 3 of prioritize and 3 × 16 of deliver."""
    return tuple(prioritize_consumer(priority) for priority in LANES) + tuple(
        deliver_consumer(lane, partition) for lane in LANES for partition in range(PARTITIONS)
    )
