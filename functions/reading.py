"""From a message of FEED_UPDATES to what the lanes and the log need to know of its update.

Pure. An update for an actor's followers is read one page of them at a time: after a page the same
bytes are published again with headers that say where to go on, so that each message is bounded
work, and updates behind a large audience are not behind all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import Raw

from livefeed import headers, subjects, trace
from livefeed.adapters.nats.connection import decode_headers
from livefeed.adapters.nats.pull import Message
from livefeed.entry import born_of
from livefeed.identity import bytes_digest, item_key, update_ref
from livefeed.messages import LaneUpdate, PublicBody, public_body
from livefeed.order import microseconds, order_key
from livefeed.priority import UpdateFacts
from livefeed.subjects import Lane
from livefeed.update import (
    FeedUpdate,
    Followers,
    Item,
    facet_of,
    kind_of,
    parse_update,
    recipients,
)


@dataclass(frozen=True, slots=True)
class Reading:
    """An update, read: its items for the log, whom it is for, and how it came here."""

    facts: UpdateFacts
    updates: list[LaneUpdate]
    audience: list[str] | Followers | None
    """Users, or whose followers, or everyone on the feed."""
    accepted_at: int
    after: str = ""
    """The last follower that an earlier message was for."""
    trace: str | None = None


def read(message: Message) -> Reading:
    """Check a message; raises UpdateRefused."""
    # The publisher's clock is compared with the moment of acceptance: a redelivery decides the
    # same.
    stored_at = message.stored_at
    update, items = parse_update(message.payload, now_microseconds=stored_at)
    header = decode_headers(message.headers).get
    return read_update(
        update,
        items,
        subject=message.subject,
        accepted_at=headers.accepted_at(header, stored_at=stored_at),
        traceparent=trace.valid(header(trace.HEADER)),
        after=headers.after(header),
    )


def read_update(
    update: FeedUpdate,
    items: Sequence[Item],
    *,
    subject: str,
    accepted_at: int,
    traceparent: str | None,
    after: str = "",
) -> Reading:
    """What the log and the lanes need to know of an update."""
    priority = update.priority or subjects.priority_of(subject)
    metadata = update.metadata
    return Reading(
        facts=UpdateFacts(
            update.update_type,
            priority,
            update.feed_type,
            metadata.source if metadata else None,
            metadata.experiment_id if metadata else None,
        ),
        updates=_lane_updates(update, items, priority, accepted_at, traceparent),
        audience=recipients(update),
        accepted_at=accepted_at,
        after=after,
        trace=traceparent,
    )


def continuation_headers(message: Message, reading: Reading, after: str) -> Mapping[str, str]:
    """The headers with which a message is published again for the followers after one."""
    token = headers.after_token(after)
    digest = bytes_digest(message.subject.encode(), message.payload)
    said = {
        # Its own: published twice, it counts once. Of the whole message: one update id may stand in
        # messages for two feeds or two actors, whose pages may end with the same follower.
        headers.MESSAGE_ID: f"{digest} after {token}",
        headers.AFTER: token,
        headers.ACCEPTED_AT: str(reading.accepted_at),
    }
    return said | ({trace.HEADER: reading.trace} if reading.trace else {})


def _lane_updates(
    update: FeedUpdate,
    items: Sequence[Item],
    priority: Lane,
    accepted_at: int,
    traceparent: str | None,
) -> list[LaneUpdate]:
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
    return updates


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
            timestamp=update.timestamp.isoformat().replace("+00:00", "Z"),
            version=update.version,
            priority=priority,
            metadata={name: value for name, value in known.items() if value is not None},
        )
    )
