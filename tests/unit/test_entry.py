"""Merging entries: whatever the order, repetition and grouping, the result is the same."""

from __future__ import annotations

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from livefeed.entry import (
    BORN_UNKNOWN,
    Entry,
    born_of,
    coalesce,
    feed_rank,
    merge,
)
from livefeed.update import CONTENT_REMOVAL, CONTENT_UPDATE, ENGAGEMENT_UPDATE, NEW_CONTENT
from tests.reference_log import ITEMS, Change, change, changes, flush_of, reference, retold

# All of one place: the same channel, item and facet.
entries = st.lists(
    st.builds(
        lambda change: change.entry,
        st.builds(
            change,
            kind=st.sampled_from([NEW_CONTENT, CONTENT_UPDATE, CONTENT_REMOVAL]),
            timestamp=st.integers(-1, 2),
            version=st.none() | st.integers(0, 2),
            rank=st.none() | st.floats(allow_nan=False),
            salt=st.integers(0, 1),
        ),
    ),
    min_size=1,
    max_size=4,
)
# From the year 2 to the year 9998, as in an update.
timestamps = st.integers(-62_104_060_800_000_000, 253_339_228_800_000_000)


@given(entries, entries)
def test_merge_is_commutative(some: list[Entry], others: list[Entry]) -> None:
    """Who comes first does not matter."""
    one, other = reduce(merge, some), reduce(merge, others)
    assert merge(one, other) == merge(other, one)


@given(entries, entries, entries)
def test_merge_is_associative(first: list[Entry], second: list[Entry], third: list[Entry]) -> None:
    """How they are grouped does not matter."""
    one, two, three = reduce(merge, first), reduce(merge, second), reduce(merge, third)
    assert merge(merge(one, two), three) == merge(one, merge(two, three))


@given(entries, entries)
def test_merge_is_idempotent(some: list[Entry], others: list[Entry]) -> None:
    """What is in it already changes nothing."""
    one, other = reduce(merge, some), reduce(merge, others)
    both = merge(one, other)
    assert merge(one, one) == one
    assert merge(both, one) == merge(other, both) == both


@given(st.lists(changes, max_size=30))
def test_coalesce_is_the_model(history: list[Change]) -> None:
    """In each place stands the newest entry with the earliest birth."""
    assert coalesce((change.key, change.entry) for change in history) == reference(history)


@given(retold())
def test_batches_come_to_the_same(batches: list[list[Change]]) -> None:
    """Coalescing what was coalesced in batches, in any order and with repetitions, is the model."""
    coalesced = [flush_of(batch)[0] for batch in batches]
    together = coalesce(pair for batch in coalesced for pair in batch.items())
    assert together == reference(change for batch in batches for change in batch)


def test_no_zombie() -> None:
    """Content that is older than the removal does not bring the item back; newer content does."""
    removal = change(kind=CONTENT_REMOVAL, timestamp=5).entry
    older, newer = change(timestamp=4).entry, change(timestamp=6).entry
    assert merge(removal, older).kind == CONTENT_REMOVAL
    assert merge(removal, newer).kind == NEW_CONTENT


def test_facets_are_apart() -> None:
    """Content and engagement of an item do not replace each other, nor do two items."""
    given = [
        change(timestamp=1),
        change(kind=ENGAGEMENT_UPDATE, timestamp=2),
        change(item=ITEMS[1]),
    ]
    assert len(coalesce((change.key, change.entry) for change in given)) == 3


def test_an_item_keeps_its_birth() -> None:
    """A later update of an item does not move its place; an earlier first content does."""
    new, updated = change(timestamp=5).entry, change(kind=CONTENT_UPDATE, timestamp=9).entry
    assert merge(new, updated) == updated._replace(born=5)
    assert merge(merge(new, updated), change(timestamp=3).entry) == updated._replace(born=3)


@given(timestamps, timestamps, st.sampled_from([CONTENT_REMOVAL, ENGAGEMENT_UPDATE]))
def test_births_are_ranked(new: int, updated: int, other: int) -> None:
    """New content knows the birth best, whatever the clocks; an update comes next; others last."""
    births = [
        born_of(NEW_CONTENT, new),
        born_of(CONTENT_UPDATE, updated),
        born_of(other, min(new, updated)),
    ]
    assert births == sorted(set(births))
    assert births[-1] == BORN_UNKNOWN
    assert births[-1] < 2**63


@given(timestamps)
def test_without_a_rank_the_birth_is_the_place(timestamp: int) -> None:
    """A feed is ordered by the seconds of the first content, or of what stands for it."""
    for kind in (NEW_CONTENT, CONTENT_UPDATE):
        assert feed_rank(None, born_of(kind, timestamp)) == timestamp / 1e6
    assert feed_rank(None, BORN_UNKNOWN) == 0.0


@given(st.floats(allow_nan=False, allow_infinity=False), timestamps)
def test_a_rank_is_the_place(rank: float, timestamp: int) -> None:
    """The publisher's rank, be it 0, goes before the birth."""
    assert feed_rank(rank, born_of(NEW_CONTENT, timestamp)) == rank
