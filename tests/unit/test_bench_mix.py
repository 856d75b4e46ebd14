"""The mix of the cost benchmark: seeded, and what has to be seen at the end follows from it."""

from __future__ import annotations

import json
import pickle
from collections import Counter

from benchmarks.mix import CONTENT, ENGAGEMENT, Mix, Visible

MIX = Mix(seed=1, users=50, updates=2_000, per_second=100, audiences=(2, 5, 20), began_at=1e9)


def test_a_seed_tells_the_same_everywhere() -> None:
    assert pickle.loads(pickle.dumps(MIX)).events == MIX.events
    assert MIX.update(7, due=0, recorded=False) == MIX.update(7, due=1, recorded=True)
    assert Mix(2, 50, 2_000, 100, (2, 5, 20), 1e9).events != MIX.events


def test_most_updates_are_counts_of_items_that_others_counted_shortly_before() -> None:
    kinds = Counter(event.kind for event in MIX.events)
    assert kinds["engagement_update"] > 0.7 * MIX.updates
    places = Counter(event.place for event in MIX.events if event.kind == "engagement_update")
    assert max(places.values()) > 10


def test_nothing_happens_to_an_item_before_its_birth_or_after_its_removal() -> None:
    born: set[int] = set()
    removed: set[int] = set()
    for event in MIX.events:
        assert event.item not in removed
        assert (event.item in born) == (event.kind != "new_content")
        born.add(event.item)
        if event.kind == "content_removal":
            removed.add(event.item)
    assert removed


def test_an_update_says_what_its_event_is() -> None:
    said = json.loads(MIX.update(0, due=0, recorded=False))
    assert said["updateType"] == "new_content"
    assert said["timestamp"] == "2001-09-09T01:46:40.000000+00:00"
    assert said["audience"]["users"] == [MIX.user(user) for user in MIX.events[0].users]
    assert MIX.priority(0) == said["priority"] == "medium"


def test_a_user_sees_the_newest_of_each_item_that_is_left() -> None:
    removal = next(n for n, event in enumerate(MIX.events) if event.kind == "content_removal")
    item = MIX.events[removal].item
    edited = next(event.item for event in MIX.events if event.item != item)
    standing = {
        (f"item-{item}", CONTENT): removal,
        (f"item-{edited}", CONTENT): 0,
        (f"item-{edited}", ENGAGEMENT): 9,
    }
    assert MIX.visible(standing) == [Visible(f"item-{edited}", 0, 9)]


def test_what_stands_is_the_last_update_of_each_place() -> None:
    standing = MIX.standing()
    for number, event in enumerate(MIX.events):
        for user in event.users:
            assert standing[user][event.place] >= number
    assert {user for user, held in enumerate(standing) if held} <= set(range(MIX.users))
