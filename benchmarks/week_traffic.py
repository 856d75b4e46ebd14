"""A week of a social feed, hour by hour: who is written to, and what becomes of an item.

Seeded, and without a clock: the same seed tells the same week. Few users get most, nights are
quiet, an item is counted (engagement) while it is young, sometimes edited, sometimes removed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

from livefeed.adapters.postgres.log import Body
from livefeed.entry import Entry, EntryKey, born_of, coalesce
from livefeed.order import order_key
from livefeed.update import (
    CONTENT_REMOVAL,
    CONTENT_UPDATE,
    ENGAGEMENT_UPDATE,
    NEW_CONTENT,
    facet_of,
)

EVENTS: Final = (
    (NEW_CONTENT, 20),
    (CONTENT_UPDATE, 10),
    (ENGAGEMENT_UPDATE, 65),
    (CONTENT_REMOVAL, 5),
)
"""Kinds of updates, and how many of a hundred are of each."""
AUDIENCES: Final = ((1, 70), (5, 20), (30, 10))
"""Recipients of an item, and how many items of a hundred have as many."""
YOUNG_HOURS: Final = 5.0
"""How old an item is, in the mean, that something happens to."""
ZIPF: Final = 0.8


class Item(NamedTuple):
    """What was born, and where."""

    id: int
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flush:
    """What `Log.persist` is given at once."""

    entries: dict[EntryKey, Entry]
    bodies: dict[bytes, Body]


class Traffic:
    """The week.

    Args:
        seed: Which week.
        users: How many there are.
        events: Updates in an hour, in the mean of a day.
        rows_max: Rows of one flush, about.
    """

    def __init__(self, seed: int, *, users: int, events: int, rows_max: int) -> None:
        self._random = random.Random(seed)
        self._users = users
        self._events = events
        self._rows_max = rows_max
        self._weights = list(accumulate((rank + 1) ** -ZIPF for rank in range(users)))
        self._items: list[Item] = []
        self._removed: set[int] = set()
        self._number = 0

    def hour(self, hour: int, *, accepted_at: int) -> Iterator[Flush]:
        """What happens in an hour, in flushes.

        Args:
            hour: Since the week began; 4 in the morning is the quietest of each day.
            accepted_at: Microseconds since 1970, of all of them.
        """
        day = 1 - 0.8 * math.cos((hour - 4) / 24 * 2 * math.pi)
        told: list[tuple[EntryKey, Entry]] = []
        bodies: dict[bytes, Body] = {}
        for _ in range(round(self._events * day)):
            self._tell(told, bodies, accepted_at)
            if len(told) >= self._rows_max:
                yield Flush(coalesce(told), bodies)
                told, bodies = [], {}
        if told:
            yield Flush(coalesce(told), bodies)

    def _tell(
        self, told: list[tuple[EntryKey, Entry]], bodies: dict[bytes, Body], accepted_at: int
    ) -> None:
        self._number += 1
        kind = self._chosen(EVENTS) if len(self._items) > len(EVENTS) else NEW_CONTENT
        item = self._born() if kind == NEW_CONTENT else self._young()
        if kind == CONTENT_REMOVAL:
            self._removed.add(item.id)
        ref = self._random.randbytes(16)
        order = order_key(version=None, timestamp_microseconds=self._number, ref=ref)
        entry = Entry(order, kind, None, born_of(kind, self._number))
        update_id = f"u{self._number:020}"
        bodies[ref] = Body(ref, update_id, self._body(kind), accepted_at, accepted_at, None)
        told.extend(
            (EntryKey(channel, item.id, facet_of(kind)), entry) for channel in item.channels
        )

    def _born(self) -> Item:
        count = self._chosen(AUDIENCES)
        if self._random.random() < 0.03:
            channels = {"topic:trending"}
        else:
            ranks = self._random.choices(range(self._users), cum_weights=self._weights, k=count)
            channels = {f"user:u{rank}/home" for rank in ranks}
        item = Item(self._random.getrandbits(63), tuple(sorted(channels)))
        self._items.append(item)
        return item

    def _young(self) -> Item:
        mean = YOUNG_HOURS * self._events * EVENTS[0][1] / 100
        while True:
            back = min(int(self._random.expovariate(1 / mean)), len(self._items) - 1)
            item = self._items[-1 - back]
            if item.id not in self._removed or back == 0:
                return item

    def _body(self, kind: int) -> bytes:
        if kind == ENGAGEMENT_UPDATE:
            return b'{"id":"p%020d","likes":%d,"views":%d}' % (self._number, self._number, 7)
        if kind == CONTENT_REMOVAL:
            return b'{"id":"p%020d"}' % self._number
        # One of twenty is long enough for Postgres to store it compressed and apart.
        words = 700 if self._random.random() < 0.05 else self._random.randint(20, 80)
        text = b" ".join(b"%x" % self._random.getrandbits(20) for _ in range(words))
        return b'{"id":"p%020d","title":"what happened","text":"%s"}' % (self._number, text)

    def _chosen(self, table: tuple[tuple[int, int], ...]) -> int:
        values, weights = zip(*table, strict=True)
        return int(self._random.choices(values, weights)[0])
