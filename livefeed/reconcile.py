"""Reconciling: is what the streams still hold in the log, and where is it if not?

Pure. The log may have lost its last minutes to a restore while the streams have kept them. Every
update that was accepted must be in the log, superseded there, below a floor, still on its way, or a
dead letter; what is none of these is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

from livefeed import headers
from livefeed.channel import owner_of, topic_channel, user_channel
from livefeed.dead_letter import DeadLetter
from livefeed.entry import EntryKey
from livefeed.errors import Refused, UpdateRefused
from livefeed.identity import item_key, update_ref
from livefeed.limits import RECONCILED_LETTERS_MAX
from livefeed.messages import decode_lane_message
from livefeed.order import OrderKey, microseconds, order_key
from livefeed.partition import partition_of
from livefeed.subjects import Lane, priority_of
from livefeed.topology import LANE_STREAM, UPDATES
from livefeed.update import (
    CONTENT_REMOVAL,
    FeedUpdate,
    Item,
    facet_of,
    kind_of,
    parse_update,
    recipients,
)

State = Literal["persisted", "below_floor", "pending", "dead_letter", "refused", "missing"]
STATES: Final[tuple[State, ...]] = get_args(State)


class Place(NamedTuple):
    """Where an update stands, or should."""

    key: EntryKey
    order: OrderKey
    content_id: str


class Found(NamedTuple):
    """What the log has at a place, and what it says of the channel."""

    order: OrderKey | None
    """None when there is no entry."""
    seq: int
    floor: int
    forgotten_at: int | None
    """Microseconds since 1970: when the newest that fell below the floor had been persisted."""


@dataclass(frozen=True, slots=True)
class Followers:
    """Whose followers an update is for, and which of them its message is for."""

    actor: str
    after: str
    ended: bool
    """Whether those who follow no more are meant too."""


@dataclass(frozen=True, slots=True)
class Published:
    """An update that a stream holds."""

    sequence: int
    subject: str
    accepted_at: int
    update: FeedUpdate
    items: list[Item]
    audience: list[str] | Followers
    """Channels, or whose followers' channels."""

    def channel_of(self, user: str) -> str:
        """A user's channel of the update's feed."""
        return user_channel(user, self.update.feed_type)

    def places(self, channels: Iterable[str]) -> Iterator[Place]:
        """Where it belongs in some channels, one by one."""
        update, facet = self.update, facet_of(kind_of(self.update))
        published_at = microseconds(update.timestamp)
        wanted = []
        for item in self.items:
            ref = update_ref(update.update_id, item.id)
            order = order_key(version=update.version, timestamp_microseconds=published_at, ref=ref)
            wanted.append((item_key(item.id), order, item.id))
        for channel in channels:
            for item_hash, order, content_id in wanted:
                yield Place(EntryKey(channel, item_hash, facet), order, content_id)


def read_published(
    sequence: int, subject: str, stored_at: int, header: headers.Header, payload: bytes
) -> Published:
    """A message of FEED_UPDATES as prioritize reads it.

    Raises:
        UpdateRefused: When it can never be in the log.
    """
    update, items = parse_update(payload, now_microseconds=stored_at)
    return Published(
        sequence=sequence,
        subject=subject,
        accepted_at=headers.accepted_at(header, stored_at=stored_at),
        update=update,
        items=items,
        audience=_audience(update, header),
    )


def _audience(update: FeedUpdate, header: headers.Header) -> list[str] | Followers:
    actor = update.audience.followers if update.audience is not None else None
    if isinstance(actor, str):
        ended = kind_of(update) == CONTENT_REMOVAL
        return Followers(actor, headers.after(header), ended)
    users = recipients(update)
    if users is None:
        return [topic_channel(update.feed_type)]
    return [user_channel(user, update.feed_type) for user in users]


@dataclass(frozen=True, slots=True)
class Handled:
    """How far the functions were before the log was read; what is not behind it may still come."""

    floors: Mapping[Lane, int]
    """By published priority: prioritize has handled everything up to this sequence."""
    busy: frozenset[int]
    """Partitions of which deliver had not handled all that prioritize had published by then."""

    def is_prioritized(self, sequence: int, subject: str) -> bool:
        """Whether prioritize was through with a message."""
        return sequence <= self.floors[priority_of(subject)]

    def is_delivered(self, sequence: int, subject: str, channel: str) -> bool:
        """Whether both functions were through with what a message brings to a channel."""
        partition = partition_of(owner_of(channel))
        return self.is_prioritized(sequence, subject) and partition not in self.busy


class LetterIndex:
    """Which messages, and which places of lane messages, are in the dead-letter queue."""

    def __init__(self) -> None:
        self._messages: set[int] = set()
        self._places: set[int] = set()

    def add(self, letter: DeadLetter) -> None:
        """Remember what a dead letter was.

        Raises:
            Refused: When there are too many to remember.
        """
        if letter.stream == UPDATES and letter.original_sequence is not None:
            self._messages.add(letter.original_sequence)
        elif letter.stream == LANE_STREAM:
            self._places.update(_places_of(letter.payload))
        if len(self._messages) + len(self._places) > RECONCILED_LETTERS_MAX:
            detail = f"the dead letters since T name more than {RECONCILED_LETTERS_MAX:,} updates"
            raise Refused("too_many_letters", f"{detail}; replay or drop some, or say a later T")

    def has_message(self, sequence: int) -> bool:
        """Whether a message of FEED_UPDATES was put aside."""
        return sequence in self._messages

    def has_place(self, channel: str, ref: bytes) -> bool:
        """Whether what an update brings to a channel was put aside."""
        return hash((channel, ref)) in self._places


def _places_of(payload: bytes) -> Iterator[int]:
    try:
        message = decode_lane_message(payload)
    except UpdateRefused:
        return
    for group in message.groups:
        for update in group.updates:
            ref = update.entry().order.ref
            for channel in group.channels:
                yield hash((channel, ref))


def state_of(
    published: Published, place: Place, found: Found, handled: Handled, letters: LetterIndex
) -> State:
    """What became of an update at one place.

    Args:
        published: The update.
        place: One of its places.
        found: What the log has there, read after `handled` was found out.
        handled: How far the functions were.
        letters: The dead letters, read after `handled` was found out.
    """
    if found.order is not None and found.order >= place.order:
        return "persisted" if found.seq > found.floor else "below_floor"
    if found.order is None and _may_be_forgotten(found, published.accepted_at):
        return "below_floor"
    if not handled.is_delivered(published.sequence, published.subject, place.key.channel):
        return "pending"
    is_letter = letters.has_place(place.key.channel, place.order.ref)
    return "dead_letter" if is_letter else "missing"


def _may_be_forgotten(found: Found, accepted_at: int) -> bool:
    # A floor that was raised before its time was kept may be above anything.
    return found.floor > 0 and (found.forgotten_at is None or found.forgotten_at >= accepted_at)
