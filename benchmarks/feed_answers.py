"""Whether a snapshot is what the log had at its cursor, judged by the log of a later moment.

Pure. The log keeps of each place the newest entry. One that stands at or below the answer's cursor
stood there already when the answer was true, so the answer must have it. One above the cursor came
later: what the answer has in its place must be older.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import Struct

from benchmarks.corpus import Corpus
from benchmarks.readers import Sample
from benchmarks.reference import Channel, Findings, Place, Row, stated
from livefeed.cursor import parse_cursor
from livefeed.identity import item_key
from livefeed.update import CONTENT_REMOVAL

CONTENT, ENGAGEMENT = 0, 1
"""The facets of an item."""


class Item(Struct):
    """What counts here of an item of a snapshot."""

    channel: str
    seq: int | None
    rank: float | None
    update_id: str | None = msgspec.field(name="updateId")
    content: dict[str, Any] | None = None
    engagement: dict[str, Any] | None = None

    @property
    def identifier(self) -> str:
        """Its id, of whichever facet is there."""
        return str((self.content or self.engagement or {})["id"])


class Snapshot(Struct):
    """What counts here of a snapshot."""

    items: list[Item]
    cursor: str
    next: str | None = None


decode_snapshot: Final = msgspec.json.Decoder(Snapshot).decode


def judge_answer(corpus: Corpus, sample: Sample, channel: Channel, found: Findings) -> None:
    """Compare one answer with its user's channel as it was read later.

    Args:
        corpus: What was published.
        sample: The answer.
        channel: The log's entries, of any moment after the answer's.
        found: Where faults are counted.
    """
    snapshot = decode_snapshot(sample.body)
    position = parse_cursor(snapshot.cursor).positions.get(f"me/{corpus.feed}", 0)
    judging = _Judging(corpus, sample.user, position, {row.place: row for row in channel.rows})
    add = partial(_add, found, channel.name)
    found.entries += len(snapshot.items)
    identifiers = [item.identifier for item in snapshot.items]
    add("doubled", "one item twice", len(identifiers) - len(set(identifiers)))
    order = [
        (math.inf if item.rank is None else -item.rank, identifier)
        for item, identifier in zip(snapshot.items, identifiers, strict=True)
    ]
    add("inexact", "items out of feed order", int(order != sorted(order)))
    for identifier, item in zip(identifiers, snapshot.items, strict=True):
        for fault, what in judging.faults_of(identifier, item):
            add(fault, f"{what}: {item}", 1)
    shown = {item_key(item.identifier) for item in snapshot.items if item.content is not None}
    # A page that is not the last one need not have everything.
    lacks = set() if snapshot.next else judging.wanted() - shown
    add("lost", f"an answer at {position} lacks {lacks}", len(lacks))


def _add(found: Findings, name: str, fault: str, what: str, number: int) -> None:
    found.add(fault, f"{name}: {what}", number)


class _Judging:
    """One answer's cursor, and what the log has now."""

    def __init__(self, corpus: Corpus, user: int, position: int, rows: Mapping[Place, Row]) -> None:
        self._corpus = corpus
        self._user = user
        self._position = position
        self._rows = rows

    def wanted(self) -> set[int]:
        """The keys of the items that the answer must have."""
        return {
            row.place[0]
            for row in self._rows.values()
            if row.place[1] == CONTENT
            and row.seq <= self._position
            and row.standing.kind != CONTENT_REMOVAL
        }

    def faults_of(self, identifier: str, item: Item) -> list[tuple[str, str]]:
        """What is wrong with one item: the kind of the fault, and a few words."""
        key = item_key(identifier)
        faults: list[tuple[str, str]] = []
        if item.content is not None:
            faults += self._part(key, CONTENT, item.content.get("number"))
        if item.engagement is not None:
            faults += self._part(key, ENGAGEMENT, item.engagement.get("number"))
        elif self._stands(key, ENGAGEMENT):
            faults.append(("inexact", "its engagement is missing"))
        if item.content is None or item.seq is None:
            return faults
        facts = self._corpus.facts(item.content["number"])
        if facts.update_id != item.update_id or item.channel != f"me/{self._corpus.feed}":
            faults.append(("inexact", "an update or a channel that is not its content's"))
        if item.seq > self._position:
            faults.append(("inexact", f"above the cursor {self._position}"))
        return faults

    def _part(self, key: int, facet: int, number: int | None) -> list[tuple[str, str]]:
        """What is wrong with what the answer shows of one facet."""
        if number is None or self._user not in self._corpus.users_of(self._corpus.facts(number)):
            return [("foreign", "an update of another user")]
        row = self._rows.get((key, facet))
        if row is None:
            return [("foreign", "a place that the log does not have")]
        place, standing = stated(self._corpus, number)
        if place != (key, facet):
            return [("foreign", "an update of another item")]
        if not self._stands(key, facet):
            newer = standing.order > row.standing.order
            return [("inexact", "newer than the log")] if newer else []
        if row.standing.kind == CONTENT_REMOVAL:
            return [("foreign", "an item that was removed before")]
        other = standing.order != row.standing.order
        return [("inexact", f"the log has {row.standing.update_id}")] if other else []

    def _stands(self, key: int, facet: int) -> bool:
        """Whether what the log has in a place stood there at the answer's moment."""
        row = self._rows.get((key, facet))
        return row is not None and row.seq <= self._position
