"""A mix of updates as a social feed has it: items are born for some users, then counted and edited.

Seeded: whoever knows a mix knows all of its updates, and what each user has to see at the end.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import accumulate
from typing import Any, Final, NamedTuple

import msgspec

from livefeed.subjects import Lane
from livefeed.update import UpdateType

KINDS: Final[tuple[tuple[UpdateType, int], ...]] = (
    ("new_content", 12),
    ("content_update", 6),
    ("content_removal", 2),
    ("engagement_update", 80),
)
"""How many of a hundred updates are of each kind."""
WIDTHS: Final = (50, 35, 15)
"""How many of a hundred items have few recipients, some, and many."""
ACTIVE_SECONDS: Final = 20.0
"""How old an item is, in the mean, that something happens to."""
CANDIDATES: Final = 3
"""Items of which the one with the widest audience is counted: more people, more counts."""
ZIPF: Final = 0.8
"""How uneven users are: user 0 follows most."""
CONNECTED_OF: Final = 3
"""Every so manieth user is connected."""
TEXT: Final = "A sentence that stands for what a person would read, about as long as such are. " * 3
FEED: Final = "home"
CONTENT, ENGAGEMENT = 0, 1
"""The facets of an item."""

Place = tuple[str, int]
"""An item's id and the facet."""
_encode = msgspec.json.Encoder().encode


class Event(NamedTuple):
    """One update."""

    kind: UpdateType
    item: int
    users: tuple[int, ...]

    @property
    def place(self) -> Place:
        """What it replaces."""
        return f"item-{self.item}", ENGAGEMENT if self.kind == "engagement_update" else CONTENT


class Visible(NamedTuple):
    """An item that a user has to see, in feed order: the youngest first."""

    item: str
    content: int
    """The number of the update that its content is of."""
    engagement: int | None


@dataclass(frozen=True)
class Mix:
    """Updates number 0, 1, 2 …, of which a later one of a place is always the newer one."""

    seed: int
    users: int
    updates: int
    per_second: float
    audiences: tuple[int, int, int]
    """Recipients of an item: few, some, many; fewer where the same user is drawn twice."""
    began_at: float
    """What update 0 says of its time, in seconds since 1970; the others follow at the rate."""

    @cached_property
    def events(self) -> Sequence[Event]:
        """All updates."""
        return _Story(self).told()

    @cached_property
    def connected(self) -> list[int]:
        """Users who have a client all the time."""
        return list(range(0, self.users, CONNECTED_OF))

    def user(self, number: int) -> str:
        """The id of a user."""
        return f"mix-{self.seed}-{number}"

    def standing(self) -> list[dict[Place, int]]:
        """For each user: the number of the newest update of each place."""
        standing: list[dict[Place, int]] = [{} for _ in range(self.users)]
        for number, event in enumerate(self.events):
            for user in event.users:
                standing[user][event.place] = number
        return standing

    def visible(self, standing: dict[Place, int]) -> list[Visible]:
        """What a user sees whose newest updates these are."""
        contents = [
            (name, number)
            for (name, facet), number in standing.items()
            if facet == CONTENT and self.events[number].kind != "content_removal"
        ]
        # Items are numbered as they are born.
        contents.sort(key=lambda one: self.events[one[1]].item, reverse=True)
        return [
            Visible(name, number, standing.get((name, ENGAGEMENT))) for name, number in contents
        ]

    # What a publisher asks.

    def priority(self, number: int) -> Lane:
        """Counters can wait, the rest not as long."""
        return "low" if self.events[number].kind == "engagement_update" else "medium"

    def update_id(self, number: int) -> str:
        """The id of an update."""
        return f"mix-{self.seed}-{number}"

    def update(self, number: int, *, due: int, recorded: bool) -> bytes:
        """An update's JSON."""
        event = self.events[number]
        content: dict[str, Any] = {"id": event.place[0], "number": number}
        if event.kind == "engagement_update":
            content |= {"likes": number, "comments": number // 7, "views": number * 3}
        elif event.kind != "content_removal":
            content |= {"title": f"What happened, number {number}", "text": TEXT}
        users = [self.user(user) for user in event.users]
        moment = datetime.fromtimestamp(self.began_at, UTC)
        moment += timedelta(seconds=number / self.per_second)
        return _encode(
            {
                "updateId": self.update_id(number),
                "audience": {"users": users},
                "feedType": FEED,
                "updateType": event.kind,
                "content": content,
                "priority": self.priority(number),
                "timestamp": moment.isoformat(timespec="microseconds"),
            }
        )


class _Story:
    """Tells the updates of a mix, one after the other."""

    def __init__(self, mix: Mix) -> None:
        self._mix = mix
        self._random = random.Random(mix.seed)
        self._weights = list(accumulate((rank + 1) ** -ZIPF for rank in range(mix.users)))
        self._audiences: list[tuple[int, ...]] = []
        """By item."""
        self._removed: set[int] = set()
        births_a_second = mix.per_second * KINDS[0][1] / 100
        self._back = 1 / (ACTIVE_SECONDS * births_a_second)

    def told(self) -> list[Event]:
        """All of them."""
        return [self._one() for _ in range(self._mix.updates)]

    def _one(self) -> Event:
        kinds, weights = zip(*KINDS, strict=True)
        kind: UpdateType = self._random.choices(kinds, weights)[0]
        item = None if kind == "new_content" else self._young(kind)
        if item is None:
            return self._born()
        if kind == "content_removal":
            self._removed.add(item)
        return Event(kind, item, self._audiences[item])

    def _born(self) -> Event:
        size = self._random.choices(self._mix.audiences, WIDTHS)[0]
        everybody = range(self._mix.users)
        users = self._random.choices(everybody, cum_weights=self._weights, k=size)
        self._audiences.append(tuple(sorted(set(users))))
        return Event("new_content", len(self._audiences) - 1, self._audiences[-1])

    def _young(self, kind: UpdateType) -> int | None:
        """An item that something may happen to; None when there is none."""
        count = CANDIDATES if kind == "engagement_update" else 1
        backs = (int(self._random.expovariate(self._back)) for _ in range(count))
        items = {max(0, len(self._audiences) - 1 - back) for back in backs} - self._removed
        if not items or not self._audiences:
            return None
        return max(items, key=lambda item: (len(self._audiences[item]), item))
