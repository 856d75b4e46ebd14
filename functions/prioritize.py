"""prioritize: from a publisher's update to lane messages.

`plan` decides; the rest reads and publishes. It validates, resolves the audience, chooses the lane
of each recipient and groups by partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from msgspec import Raw

from functions.function import Work
from livefeed import subjects, trace
from livefeed.adapters.nats.publish import Outbound, Publisher
from livefeed.adapters.nats.pull import Message
from livefeed.channel import owner_of, topic_channel, user_channel
from livefeed.entry import born_of
from livefeed.identity import item_key, update_ref
from livefeed.limits import (
    LANE_MESSAGE_BYTES_MAX,
    LANE_MESSAGE_CHANNELS_MAX,
    LANE_MESSAGE_ROWS_MAX,
    MIB,
)
from livefeed.messages import (
    LaneGroup,
    LaneMessage,
    LaneUpdate,
    PublicBody,
    encode_lane_message,
    public_body,
)
from livefeed.order import microseconds, order_key
from livefeed.partition import partition_of
from livefeed.priority import personal_lane, topic_lane
from livefeed.subjects import LANES, Lane
from livefeed.topology import Consumer, prioritize_consumer
from livefeed.update import FeedUpdate, Item, facet_of, kind_of, parse_update, recipients

ROWS_MAX: Final = 20_000
"""Recipients × items that are in memory at once."""
BYTES_MAX: Final = 2 * MIB
"""Payloads that are in memory at once; an update may be in a message of each partition."""
GROUP_OVERHEAD_BYTES: Final = 16


class Reading(NamedTuple):
    """An update, read: its items for the log, its channels and how soon."""

    updates: list[LaneUpdate]
    channels: list[str]
    priority: Lane
    kind: int
    is_topic: bool
    accepted_at: int


class Prioritize:
    """The function; see `function.Function`."""

    name = "prioritize"
    windows: Final[Mapping[Lane, float]] = {"high": 0.0, "medium": 0.0, "low": 0.0}
    rows_max = ROWS_MAX
    bytes_max = BYTES_MAX

    def __init__(self, publisher: Publisher, *, now_microseconds: Callable[[], int]) -> None:
        self._publisher = publisher
        self._now = now_microseconds

    def sources(self, _partitions: frozenset[int]) -> Sequence[tuple[Lane, Consumer]]:
        """The three consumers; updates are not partitioned yet."""
        return [(priority, prioritize_consumer(priority)) for priority in LANES]

    def read(self, message: Message) -> Work:
        """Check an update; raises UpdateRefused."""
        # The publisher's clock is compared with the moment of acceptance: a redelivery decides the
        # same.
        update, items = parse_update(message.payload, now_microseconds=message.stored_at)
        reading = read_update(
            update,
            items,
            subject=message.subject,
            accepted_at=message.stored_at,
            traceparent=trace.valid(message.header(trace.HEADER)),
        )
        rows = len(reading.updates) * len(reading.channels)
        return Work(message, reading, rows, message.stored_at)

    async def handle(self, works: Sequence[Work]) -> None:
        """Publish the lane messages of all."""
        readings = [work.content for work in works if isinstance(work.content, Reading)]
        await self._publisher.publish_batch(plan(readings, now_microseconds=self._now()))


def read_update(
    update: FeedUpdate,
    items: Sequence[Item],
    *,
    subject: str,
    accepted_at: int,
    traceparent: str | None,
) -> Reading:
    """What the log and the lanes need to know of an update; raises UpdateRefused."""
    users, feed = recipients(update), update.feed_type
    channels = (
        [topic_channel(feed)] if users is None else [user_channel(user, feed) for user in users]
    )
    priority = update.priority or subjects.priority_of(subject)
    kind, published_at = kind_of(update), microseconds(update.timestamp)
    updates = []
    for item in items:
        ref = update_ref(update.update_id, item.id)
        order = order_key(version=update.version, timestamp_microseconds=published_at, ref=ref)
        updates.append(
            LaneUpdate(
                ref=ref.hex(),
                explicit=order.explicit,
                version=order.version,
                item=item_key(item.id),
                facet=facet_of(kind),
                kind=kind,
                rank=item.rank,
                born=born_of(kind, published_at),
                update_id=update.update_id,
                published_at=published_at,
                accepted_at=accepted_at,
                trace=traceparent,
                body=Raw(_body(update, item, priority)),
            )
        )
    return Reading(updates, channels, priority, kind, users is None, accepted_at)


def plan(readings: Iterable[Reading], *, now_microseconds: int) -> Iterator[Outbound]:
    """The lane messages of some updates, each within its bounds, encoded one by one."""
    groups: dict[tuple[Lane, int], list[LaneGroup]] = {}
    for reading in readings:
        lane = _lane(reading, (now_microseconds - reading.accepted_at) / 1e6)
        shares: dict[int, list[str]] = {}
        for channel in reading.channels:
            shares.setdefault(partition_of(owner_of(channel)), []).append(channel)
        for partition, channels in shares.items():
            packed = groups.setdefault((lane, partition), [])
            packed += _groups(channels, reading.updates)
    for (lane, partition), packed in groups.items():
        for message in _messages(packed):
            yield subjects.lanes(lane, partition), encode_lane_message(message), None


def _lane(reading: Reading, age_seconds: float) -> Lane:
    if reading.is_topic:
        return topic_lane(priority=reading.priority, age_seconds=age_seconds)
    return personal_lane(priority=reading.priority, kind=reading.kind, age_seconds=age_seconds)


def _groups(channels: list[str], updates: list[LaneUpdate]) -> Iterable[LaneGroup]:
    """Split into groups that each fit a lane message."""
    for some in _by_bytes(updates):
        step = max(1, min(LANE_MESSAGE_CHANNELS_MAX, LANE_MESSAGE_ROWS_MAX // len(some)))
        for start in range(0, len(channels), step):
            yield LaneGroup(channels[start : start + step], some)


def _by_bytes(updates: list[LaneUpdate]) -> Iterable[list[LaneUpdate]]:
    some: list[LaneUpdate] = []
    size = 0
    for update in updates:
        # Half of a message is for the bodies, half for the channels' names.
        if some and size + _size(update) > LANE_MESSAGE_BYTES_MAX // 2:
            yield some
            some, size = [], 0
        some.append(update)
        size += _size(update)
    yield some


def _messages(groups: Iterable[LaneGroup]) -> Iterable[LaneMessage]:
    """Pack groups into messages, as many as fit."""
    packed: list[LaneGroup] = []
    rows = size = 0
    for group in groups:
        group_size = _group_size(group)
        too_many = rows + group.rows > LANE_MESSAGE_ROWS_MAX
        if packed and (too_many or size + group_size > LANE_MESSAGE_BYTES_MAX):
            yield LaneMessage(packed)
            packed, rows, size = [], 0, 0
        packed.append(group)
        rows, size = rows + group.rows, size + group_size
    yield LaneMessage(packed)


def _group_size(group: LaneGroup) -> int:
    # A name of 128 characters may be 4 times as many bytes, and JSON escapes none of them longer.
    names = sum(len(name.encode()) + 3 for name in group.channels)
    return names + sum(map(_size, group.updates)) + GROUP_OVERHEAD_BYTES


def _size(update: LaneUpdate) -> int:
    return len(bytes(update.body)) + len(update.update_id) + 256


def _body(update: FeedUpdate, item: Item, priority: Lane) -> bytes:
    metadata = update.metadata
    known = (
        {}
        if metadata is None
        else {
            "source": metadata.source,
            "batchId": metadata.batch_id,
            "experimentId": metadata.experiment_id,
        }
    )
    return public_body(
        PublicBody(
            update_id=update.update_id,
            update_type=update.update_type,
            feed_type=update.feed_type,
            content=Raw(item.body),
            timestamp=_instant(update),
            version=update.version,
            priority=priority,
            metadata={name: value for name, value in known.items() if value is not None},
        )
    )


def _instant(update: FeedUpdate) -> str:
    return update.timestamp.isoformat().replace("+00:00", "Z")
