"""What the log has to hold after a corpus, and what is wrong with one that does not.

Pure. The model looks at all updates of a place at once, by the design's words alone: the newest
order key stands, with the earliest birth. It shares nothing with the code that merges two entries
at a time, so it does not share its mistakes.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Final, NamedTuple

import msgspec

from benchmarks.corpus import Corpus
from benchmarks.verify import FAULTS
from livefeed.channel import user_channel
from livefeed.entry import BORN_BY_UPDATE, BORN_UNKNOWN
from livefeed.identity import item_key, update_ref
from livefeed.update import KINDS

STATEMENTS_KEPT: Final = 20_000
"""Updates whose meaning is remembered: one with a wide audience is asked for again and again."""
EXAMPLES_MAX: Final = 5

Order = tuple[int, int, bytes]
"""An order key; a greater one is newer."""
Place = tuple[int, int]
"""The item's key and the facet."""


class Birth(NamedTuple):
    """When an item was born: the smallest is the truth."""

    doubt: int
    """0 a `new_content` says so, 1 only a `content_update` does, 2 nobody does."""
    microseconds: int


class Standing(NamedTuple):
    """What stands in a place."""

    order: Order
    kind: int
    rank: float | None
    birth: Birth
    update_id: str


class Row(NamedTuple):
    """What the log has in a place."""

    place: Place
    seq: int
    standing: Standing


class Channel(NamedTuple):
    """One channel as it was read from the log."""

    name: str
    head: int
    floor: int
    rows: Sequence[Row]


@dataclass(slots=True)
class Findings:
    """How a log differs from what it has to be."""

    entries: int = 0
    """Those that were compared."""
    faults: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))
    """`lost`: places that are empty. `doubled`: a seq twice in a channel. `foreign`: entries where
    nothing may be. `inexact`: another update, birth, rank, head or body."""
    examples: list[str] = field(default_factory=list)

    def add(self, fault: str, example: str, number: int = 1) -> None:
        """Count a fault, and keep the first few of its kind for whoever has to find its cause."""
        if not number:
            return
        self.faults[fault] += number
        kept = sum(one.startswith(f"{fault}: ") for one in self.examples)
        if kept < EXAMPLES_MAX:
            self.examples.append(f"{fault}: {example}")


class Reference:
    """The model of the log after some updates of a corpus.

    Args:
        corpus: What was published.
        numbers: Which of it was accepted.
    """

    def __init__(self, corpus: Corpus, numbers: Iterable[int]) -> None:
        self._corpus = corpus
        self._prefix = user_channel(f"{corpus.name}-{corpus.seed}-", "")[:-1]
        self._numbers: dict[str, array[int]] = defaultdict(lambda: array("L"))
        names = [user_channel(corpus.user(n), corpus.feed) for n in range(corpus.users)]
        for number in numbers:
            for user in corpus.users_of(corpus.facts(number)):
                self._numbers[names[user]].append(number)
        self._missing = set(self._numbers)
        self._stated = lru_cache(STATEMENTS_KEPT)(partial(stated, corpus))
        self.findings = Findings()

    def standings(self, channel: str) -> dict[Place, Standing]:
        """What has to stand in a channel."""
        stated: dict[Place, list[Standing]] = defaultdict(list)
        for number in self._numbers.get(channel, ()):
            place, standing = self._stated(number)
            stated[place].append(standing)
        return {
            place: max(all_, key=lambda one: one.order)._replace(
                birth=min(one.birth for one in all_)
            )
            for place, all_ in stated.items()
        }

    def compare(self, channel: Channel) -> None:
        """Compare one channel of the log; those of others are passed over."""
        if not channel.name.startswith(self._prefix):
            return
        self._missing.discard(channel.name)
        wanted, found = self.standings(channel.name), self.findings
        for row in channel.rows:
            found.entries += 1
            standing = wanted.pop(row.place, None)
            if standing is None:
                found.add("foreign", f"{channel.name} has {row}")
            elif standing != row.standing:
                found.add("inexact", f"{channel.name} has {row.standing}, not {standing}")
        found.add("lost", f"{channel.name} lacks {wanted}", len(wanted))
        seqs = [row.seq for row in channel.rows]
        found.add("doubled", f"{channel.name} has one seq twice", len(seqs) - len(set(seqs)))
        if max(seqs, default=0) != channel.head or channel.floor:
            detail = (
                f"head {channel.head}, floor {channel.floor}, last entry {max(seqs, default=0)}"
            )
            found.add("inexact", f"{channel.name} has {detail}")

    def compare_body(self, ref: bytes, update_id: str, body: bytes) -> None:
        """Compare one stored body with what was published; those of others are passed over."""
        corpus, found = self._corpus, self.findings
        if not update_id.startswith(f"{corpus.name}-{corpus.seed}-"):
            return
        said = msgspec.json.decode(body)
        number = said["content"].get("number", -1)
        facts = corpus.facts(number)
        wanted = corpus.public(number, facts) | {"metadata": {}}
        names = (facts.update_id, update_ref(facts.update_id, facts.item))
        if said != wanted or (update_id, ref) != names:
            found.add("inexact", f"the body of {update_id} is {body!r}")

    def finish(self) -> Findings:
        """What was found, now that every channel of the log was compared."""
        for name in self._missing:
            self.findings.add("lost", f"there is no channel {name}", len(self.standings(name)))
        self._missing = set()
        return self.findings


def stated(corpus: Corpus, number: int) -> tuple[Place, Standing]:
    """What one update of a corpus says by itself."""
    facts = corpus.facts(number)
    ref = update_ref(facts.update_id, facts.item)
    microseconds = facts.second * 1_000_000
    births = {"new_content": Birth(0, microseconds), "content_update": Birth(1, microseconds)}
    standing = Standing(
        (0, microseconds, ref) if facts.version is None else (1, facts.version, ref),
        KINDS.index(facts.kind),
        facts.rank,
        births.get(facts.kind, Birth(2, 0)),
        facts.update_id,
    )
    return (item_key(facts.item), int(facts.kind == "engagement_update")), standing


def birth_of(born: int) -> Birth:
    """What the log's `born` means."""
    if born >= BORN_UNKNOWN:
        return Birth(2, born - BORN_UNKNOWN)
    if born >= BORN_BY_UPDATE // 2:
        return Birth(1, born - BORN_BY_UPDATE)
    return Birth(0, born)
