"""What a page of a feed has to be, worked out of all the entries of its channels in Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from livefeed.adapters.postgres.reads import StoredUpdate
from livefeed.adapters.postgres.snapshot_reads import SnapshotPage
from livefeed.channel import channels_of
from livefeed.entry import feed_rank
from livefeed.feed_view import NO_CONTENT, PageKey, PageQuery, StoredItem
from livefeed.identity import item_key
from livefeed.update import ENGAGEMENT_FACET


@dataclass(frozen=True, slots=True)
class Moment:
    """What the log holds of some channels; a channel that does not exist is not named."""

    epoch: str
    heads: Mapping[str, int]
    floors: Mapping[str, int]
    entries: Mapping[str, Iterable[StoredUpdate]]
    """Those above the floor."""


def reference_page(
    moment: Moment, user_id: str, feed: str, query: PageQuery, seen: Mapping[str, int] | None = None
) -> SnapshotPage:
    """The page that a server gives out at a moment."""
    own, everyones = channels_of(user_id, feed)
    items: list[StoredItem] = []
    for number, name in enumerate((everyones, own)):
        items += items_of(name, number, moment.entries.get(name, ()), query.kinds)
    items.sort(key=lambda item: place(item.key))
    unread = sum((item.seq or 0) > (seen or {}).get(item.channel, 0) for item in items)
    if query.after is not None:
        after = place(query.after)
        items = [item for item in items if place(item.key) > after]
    return SnapshotPage(
        epoch=moment.epoch,
        heads={name: moment.heads.get(name, 0) for name in (everyones, own)},
        floors={name: moment.floors.get(name, 0) for name in (everyones, own)},
        unread=unread,
        items=items[: query.limit],
        more=len(items) > query.limit,
    )


def items_of(
    channel: str, number: int, entries: Iterable[StoredUpdate], kinds: Iterable[int] = (0, 1, 3)
) -> list[StoredItem]:
    """The items of one channel, in no order."""
    shown = set(kinds)
    contents: dict[str, StoredUpdate] = {}
    engagements: dict[str, StoredUpdate] = {}
    for one in entries:
        if one.kind in shown:
            facet = engagements if one.facet == ENGAGEMENT_FACET else contents
            facet[msgspec.json.decode(one.body)["content"]["id"]] = one
    items = []
    for identifier in contents | engagements:
        content, engagement = contents.get(identifier), engagements.get(identifier)
        items.append(
            StoredItem(
                channel,
                PageKey(
                    feed_rank(content.rank, content.born) if content else NO_CONTENT,
                    item_key(identifier),
                    number,
                ),
                content.seq if content else None,
                content.body if content else None,
                engagement.seq if engagement else None,
                engagement.body if engagement else None,
            )
        )
    return items


def place(key: PageKey) -> tuple[float, int, int]:
    """Sorts keys into the order of the pages."""
    return (-key.rank, key.item, key.channel)
