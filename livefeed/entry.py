"""An entry: the newest update of one facet of one item of a channel, and how two of them merge.

Pure. `merge` is commutative, associative and idempotent; the upsert in `adapters/postgres/log.py`
does the same in SQL. From that follow dedupe, last-write-wins, no zombies, and coalescing by
construction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from livefeed.order import OrderKey
from livefeed.update import CONTENT_UPDATE, NEW_CONTENT

BORN_BY_UPDATE = 1 << 60
"""Added to `born` where no `new_content` was seen, so that any `new_content` wins."""
BORN_UNKNOWN = 1 << 61
"""`born` of removals and engagement: nothing is known."""


class EntryKey(NamedTuple):
    """Where an entry stands."""

    channel: str
    item: int
    facet: int


class Entry(NamedTuple):
    """What stands there; the body is found by `order.ref`."""

    order: OrderKey
    kind: int
    rank: float | None
    """The publisher's `content.rank`."""
    born: int
    """Microseconds since 1970 of the item's first `new_content`, see `born_of`."""


def born_of(kind: int, timestamp_microseconds: int) -> int:
    """What an update says of its item's birth; the smallest is the truth."""
    if kind == NEW_CONTENT:
        return timestamp_microseconds
    if kind == CONTENT_UPDATE:
        return timestamp_microseconds + BORN_BY_UPDATE
    return BORN_UNKNOWN


def merge(one: Entry, other: Entry) -> Entry:
    """The newer of two, with the birth that both know."""
    newer = one if one.order >= other.order else other
    born = min(one.born, other.born)
    return newer if newer.born == born else newer._replace(born=born)


def coalesce(entries: Iterable[tuple[EntryKey, Entry]]) -> dict[EntryKey, Entry]:
    """For each key the merge of all its entries."""
    newest: dict[EntryKey, Entry] = {}
    for key, entry in entries:
        held = newest.get(key)
        newest[key] = entry if held is None else merge(held, entry)
    return newest


def feed_rank(rank: float | None, born: int) -> float:
    """An item's place in its feed, highest first: the publisher's rank, else seconds at birth."""
    if rank is not None:
        return rank
    if born >= BORN_UNKNOWN:
        return 0.0
    return (born - BORN_BY_UPDATE if born >= BORN_BY_UPDATE // 2 else born) / 1e6
