"""The two internal messages: prioritize → deliver (lane message), deliver → gateway (live message).

Pure. Bodies are carried as the JSON that a client will read, so no step after prioritize parses
one.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from livefeed.channel import client_name
from livefeed.entry import Entry, feed_rank
from livefeed.errors import UpdateRefused
from livefeed.limits import LANE_MESSAGE_CHANNELS_MAX, LIVE_MESSAGE_BYTES_MAX
from livefeed.order import OrderKey


class LaneUpdate(Struct, frozen=True, array_like=True, gc=False):
    """One item of one update on its way to the log."""

    ref: Annotated[str, Meta(min_length=32, max_length=32)]
    """Hex of the order key's ref."""
    explicit: Annotated[int, Meta(ge=0, le=1)]
    version: int
    item: int
    facet: Annotated[int, Meta(ge=0, le=1)]
    kind: Annotated[int, Meta(ge=0, le=3)]
    rank: float | None
    born: int
    update_id: str
    published_at: int
    """Microseconds since 1970: the publisher's timestamp."""
    accepted_at: int
    """Microseconds since 1970: when JetStream stored the update."""
    trace: str | None
    """The publisher's traceparent."""
    body: Raw

    @property
    def order(self) -> OrderKey:
        """The larger wins its place."""
        return OrderKey(self.explicit, self.version, bytes.fromhex(self.ref))

    def entry(self) -> Entry:
        """What the log keeps of it."""
        return Entry(self.order, self.kind, self.rank, self.born)


class LaneGroup(Struct, frozen=True, array_like=True):
    """Updates for channels: every update goes to every channel."""

    channels: Annotated[list[str], Meta(min_length=1, max_length=LANE_MESSAGE_CHANNELS_MAX)]
    updates: Annotated[list[LaneUpdate], Meta(min_length=1)]
    push: bool = True
    """Whether connected devices are told."""

    @property
    def rows(self) -> int:
        """Rows that it makes in the log, before coalescing."""
        return len(self.channels) * len(self.updates)


class LaneMessage(Struct, frozen=True):
    """What one lane brings to one partition."""

    groups: Annotated[list[LaneGroup], Meta(min_length=1)]

    @property
    def rows(self) -> int:
        """Rows that it makes in the log, before coalescing."""
        return sum(group.rows for group in self.groups)


class LiveChannel(Struct, frozen=True, rename={"start": "from", "end": "to"}):
    """What one flush changed in a channel: everything in (from, to], or only where its head is."""

    channel: str
    start: int
    end: int
    floor: int
    updates: list[Raw] | None
    """Ready for a frame, ascending seq; None means head only: catch up from the log."""


class LiveMessage(Struct, frozen=True):
    """What one flush changed for one user or one topic."""

    epoch: str
    channels: list[LiveChannel]


_lane_decoder = msgspec.json.Decoder(LaneMessage)
_live_decoder = msgspec.json.Decoder(LiveMessage)
_encoder = msgspec.json.Encoder()


def coalesce_updates(updates: list[LaneUpdate]) -> list[LaneUpdate]:
    """Of updates for the same channels one for each place, as `entry.merge` has it."""
    if len(updates) == 1:
        return updates
    newest: dict[tuple[int, int], LaneUpdate] = {}
    for update in updates:
        place = update.item, update.facet
        held = newest.get(place)
        newest[place] = update if held is None else _merge(held, update)
    return list(newest.values())


def _merge(one: LaneUpdate, other: LaneUpdate) -> LaneUpdate:
    newer = one if one.order >= other.order else other
    born = min(one.born, other.born)
    return newer if newer.born == born else msgspec.structs.replace(newer, born=born)


def encode_lane_message(message: LaneMessage) -> bytes:
    """The bytes of a lane message."""
    return _encoder.encode(message)


def decode_lane_message(payload: bytes) -> LaneMessage:
    """Read a lane message.

    Raises:
        UpdateRefused: When the bytes are none; only a foreign publisher writes such.
    """
    try:
        return _lane_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpdateRefused("invalid_lane_message", str(error)) from error


def encode_live_message(message: LiveMessage) -> bytes:
    """The bytes of a live message; one that would be too large says the heads only."""
    payload = _encoder.encode(message)
    if len(payload) <= LIVE_MESSAGE_BYTES_MAX:
        return payload
    heads = [msgspec.structs.replace(channel, updates=None) for channel in message.channels]
    return _encoder.encode(LiveMessage(message.epoch, heads))


def decode_live_message(payload: bytes) -> LiveMessage:
    """Read a live message; raises msgspec.DecodeError for foreign bytes."""
    return _live_decoder.decode(payload)


def public_update(channel: str, seq: int, *, rank: float | None, born: int, body: bytes) -> bytes:
    """One update as a frame shows it: the stored body with its place in the channel.

    Args:
        channel: The channel's name in the log.
        seq: Its position there.
        rank: The publisher's rank.
        born: The item's birth, see `entry.born_of`.
        body: The stored JSON object, from `public_body`.
    """
    place = feed_rank(rank, born)
    head = f'{{"channel":"{client_name(channel)}","seq":{seq},"rank":{place!r},'
    return head.encode() + body[1:]


class PublicBody(Struct, rename="camel"):
    """The fields of an update that a client sees, without the audience it was sent to."""

    update_id: str
    update_type: str
    feed_type: str
    content: Raw
    timestamp: str
    version: int | None
    priority: str
    metadata: dict[str, str]


def public_body(body: PublicBody) -> bytes:
    """The stored JSON object of one item of an update."""
    return _encoder.encode(body)
