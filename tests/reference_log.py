"""What the keyed log has to be, in ten lines, and updates to try it with.

The model looks at the whole history at once, so it shares no mistake with code that merges step by
step. Timestamps, versions and ids are few on purpose: what is decided by the last part of an order
key, or is the same update again, has to be common.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from hypothesis import strategies as st

from livefeed.adapters.postgres.log import Body
from livefeed.entry import Entry, EntryKey, born_of, coalesce
from livefeed.identity import item_key
from livefeed.order import OrderKey, order_key
from livefeed.update import KINDS, facet_of

CHANNELS = ("user:alice/home", "user:a/b/home", "topic:home")
ITEMS = ("p1", "p2", "p3")
ACCEPTED_AT = 4 * 10**15
"""Microseconds since 1970, in 2096: later than anything that a channel has forgotten."""


class Change(NamedTuple):
    """One update of one item of one channel, with its body."""

    key: EntryKey
    entry: Entry
    body: Body


def reference(history: Iterable[Change]) -> dict[EntryKey, Entry]:
    """The log after a history: in each place the newest entry, with the earliest birth."""
    places: dict[EntryKey, list[Entry]] = defaultdict(list)
    for change in history:
        places[change.key].append(change.entry)
    return {
        key: max(entries, key=lambda entry: entry.order)._replace(
            born=min(entry.born for entry in entries)
        )
        for key, entries in places.items()
    }


def flush_of(changes: Iterable[Change]) -> tuple[dict[EntryKey, Entry], dict[bytes, Body]]:
    """The arguments of `Log.persist` for some changes."""
    given = list(changes)
    bodies = {change.entry.order.ref: change.body for change in given}
    return coalesce((change.key, change.entry) for change in given), bodies


def change(
    channel: str = CHANNELS[0],
    item: str = ITEMS[0],
    *,
    kind: int = 0,
    timestamp: int = 0,
    version: int | None = None,
    rank: float | None = None,
    salt: int = 0,
    accepted_at: int = ACCEPTED_AT,
) -> Change:
    """One change; the same arguments are the same update, whatever the channel and acceptance."""
    facts = repr((item, kind, timestamp, version, rank, salt)).encode()
    ref = hashlib.blake2b(facts, digest_size=16).digest()
    order = order_key(version=version, timestamp_microseconds=timestamp, ref=ref)
    return Change(
        EntryKey(channel, item_key(item), facet_of(kind)),
        Entry(order, kind, rank, born_of(kind, timestamp)),
        body_of(ref, b"%s\0%s" % (item.encode(), ref), accepted_at=accepted_at),
    )


def body_of(ref: bytes, content: bytes, *, accepted_at: int = ACCEPTED_AT) -> Body:
    """A body whose content is its own."""
    return Body(ref, f"u-{ref.hex()}", content, 1, accepted_at, trace=None)


def item_of(content: bytes) -> int:
    """The key of the item that a body of `change` speaks of."""
    return item_key(content.partition(b"\0")[0].decode())


def rename(changes: Iterable[Change], suffix: str) -> list[Change]:
    """The same changes in channels of their own, so that examples can share a database."""
    return [
        change._replace(key=change.key._replace(channel=change.key.channel + suffix))
        for change in changes
    ]


changes: st.SearchStrategy[Change] = st.builds(
    change,
    st.sampled_from(CHANNELS),
    st.sampled_from(ITEMS),
    kind=st.integers(0, len(KINDS) - 1),
    timestamp=st.integers(-1, 2),
    version=st.none() | st.integers(0, 2),
    rank=st.none() | st.sampled_from([-1.5, 0.0, 2.0]),
    salt=st.integers(0, 1),
)
histories = st.lists(changes, min_size=1, max_size=30)

order_keys: st.SearchStrategy[OrderKey] = st.builds(
    OrderKey,
    st.integers(0, 1),
    st.one_of(st.integers(-2, 2), st.integers(-(2**53) + 1, 2**53 - 1)),
    st.sampled_from([b"\0" * 16, b"\xff" * 16, b"\x7f" * 16]) | st.binary(min_size=16, max_size=16),
)


@st.composite
def retold(
    draw: st.DrawFn, history: st.SearchStrategy[list[Change]] = histories
) -> list[list[Change]]:
    """A history as messages bring it: in any order, parts of it again, in batches of any size."""
    told = draw(history)
    again = draw(st.lists(st.sampled_from(told), max_size=len(told)))
    batches: list[list[Change]] = [[]]
    for change in draw(st.permutations(told + again)):
        ends = draw(st.booleans())
        batches[-1].append(change)
        if ends:
            batches.append([])
    return [batch for batch in batches if batch]


def random_batches(*, batches: int, size: int) -> list[list[Change]]:
    """Batches for where hypothesis cannot follow: several writers at once, and kills."""
    return [[_random_change() for _ in range(random.randint(1, size))] for _ in range(batches)]


def _random_change() -> Change:
    return change(
        random.choice(CHANNELS),
        random.choice(ITEMS),
        kind=random.randrange(len(KINDS)),
        timestamp=random.randint(0, 9),
        version=random.choice([None, None, 0, 1, 2]),
        rank=random.choice([None, 1.0]),
        salt=random.randint(0, 9),
    )
