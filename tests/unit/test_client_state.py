"""The Python client's state: what frames add up to, however they are split, doubled or repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livefeed_client.state import Change, Cursor, FeedState, Item, Remove, Upsert

from livefeed import cursor as server_cursor

CHANNELS = ("me/home", "all/home", "me/other")
KINDS = ("new_content", "content_update", "content_removal", "engagement_update")
Frame = Mapping[str, Any]


def update(
    channel: str, seq: int, item_id: str, kind: str = "new_content", rank: float = 0.0, **more: Any
) -> dict[str, Any]:
    return {
        "channel": channel,
        "seq": seq,
        "rank": rank,
        "updateId": f"{channel}:{seq}",
        "updateType": kind,
        "feedType": channel.partition("/")[2],
        "content": {"id": item_id, **more},
        "timestamp": "2026-11-23T08:00:00.000000Z",
        "version": seq,
        "priority": "high",
        "metadata": {},
    }


def updates(*entries: Frame, floor: Mapping[str, int] | None = None) -> Frame:
    """A `feed_updates` frame whose cursor is the highest seq of each of its channels."""
    cursor: dict[str, int] = {}
    for entry in entries:
        cursor[entry["channel"]] = max(entry["seq"], cursor.get(entry["channel"], 0))
    return {
        "type": "feed_updates",
        "batchId": "b",
        "timestamp": "2026-11-23T08:00:00.000000Z",
        "updates": list(entries),
        "cursor": cursor,
        "floor": dict(floor or {}),
        "replay": False,
        "more": False,
    }


def established(epoch: str) -> Frame:
    return {"type": "connection_established", "epoch": epoch, "subscribedFeeds": []}


def folded(*frames: Frame) -> FeedState:
    state = FeedState()
    for frame in frames:
        state.apply(frame)
    return state


def ids(state: FeedState, feed: str = "home") -> list[str]:
    return [item.id for item in state.items(feed)]


def held(state: FeedState) -> tuple[Cursor, list[Item], list[Item]]:
    return state.cursor, state.items("home"), state.items("other")


# Any order of arrival that a network can make of a log adds up to the same.


@st.composite
def logs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The updates of some channels, each with ascending seqs and holes between them."""
    heads = dict.fromkeys(CHANNELS, 0)
    log = []
    for _ in range(draw(st.integers(0, 25))):
        channel = draw(st.sampled_from(CHANNELS))
        heads[channel] += draw(st.integers(1, 3))
        kind, item_id = draw(st.sampled_from(KINDS)), draw(st.sampled_from("abcd"))
        rank = draw(st.integers(-2, 2))
        log.append(update(channel, heads[channel], item_id, kind, rank, n=heads[channel]))
    return log


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, int], list[Frame]]:
    """A log, its floors, and frames that bring it: split anywhere, doubled, old ones again."""
    log = draw(logs())
    floors = {channel: draw(st.integers(0, 12)) for channel in CHANNELS}
    cuts = sorted({0, len(log), *draw(st.lists(st.integers(0, len(log)), max_size=8))})
    parts = [log[start:stop] for start, stop in pairwise(cuts)]
    risen = draw(st.integers(0, len(parts)))
    frames: list[Frame] = []
    for number, part in enumerate(parts):
        frames.append(updates(*part, floor=floors if number >= risen else None))
        frames += draw(st.lists(st.sampled_from(frames), max_size=2))
    return log, floors, [*frames, updates(floor=floors)]


def expected(log: Sequence[Frame], floors: Mapping[str, int], feed: str) -> list[tuple[Any, ...]]:
    """The visible items of a feed, from the log itself."""
    newest: dict[tuple[str, str, bool], Frame] = {}
    for entry in log:
        if entry["seq"] > floors[entry["channel"]]:
            counters = entry["updateType"] == "engagement_update"
            newest[entry["channel"], entry["content"]["id"], counters] = entry
    items = []
    for (channel, item_id, counters), entry in newest.items():
        if counters or entry["updateType"] == "content_removal" or not channel.endswith(feed):
            continue
        engagement = newest.get((channel, item_id, True))
        shown = None if engagement is None else engagement["content"]
        items.append((-entry["rank"], item_id, channel, entry["content"], shown))
    return sorted(items, key=lambda item: item[:3])


@given(deliveries())
def test_any_split_and_repetition_of_frames_gives_the_state_of_the_log(
    delivery: tuple[list[dict[str, Any]], dict[str, int], list[Frame]],
) -> None:
    log, floors, frames = delivery
    state = folded(*frames)
    assert held(state) == held(folded(updates(*log, floor=floors)))
    for feed in ("home", "other"):
        shown = [(*item.place, item.content, item.engagement) for item in state.items(feed)]
        assert shown == expected(log, floors, feed)


@given(deliveries())
def test_the_changes_of_each_frame_add_up_to_the_items(
    delivery: tuple[list[dict[str, Any]], dict[str, int], list[Frame]],
) -> None:
    state = FeedState()
    shown: dict[tuple[str, str], Item] = {}
    for frame in delivery[2]:
        follow(shown, state.apply(frame))
        assert state.apply(frame) == [], "the same frame again changes nothing"
    assert sorted(shown.values(), key=lambda item: item.place) == sorted(
        state.items("home") + state.items("other"), key=lambda item: item.place
    )
    follow(shown, state.drop(["home", "other"]))
    assert shown == {}


def follow(shown: dict[tuple[str, str], Item], changes: Sequence[Change]) -> None:
    for change in changes:
        match change:
            case Upsert(item):
                shown[item.channel, item.id] = item
            case Remove(channel, item_id):
                del shown[channel, item_id]


# One rule each.


def test_an_older_or_equal_seq_changes_nothing() -> None:
    state = folded(updates(update("me/home", 5, "a", text="new")))
    for seq in (5, 4):
        assert state.apply(updates(update("me/home", seq, "a", text="old"))) == []
    assert state.items("home")[0].content["text"] == "new"
    assert state.cursor.positions == {"me/home": 5}


def test_a_removed_item_does_not_come_back_by_an_old_frame() -> None:
    state = folded(updates(update("me/home", 1, "a")))
    removal = updates(update("me/home", 3, "a", "content_removal"))
    assert state.apply(removal) == [Remove("me/home", "a")]
    state.apply(updates(update("me/home", 2, "a", "content_update")))
    assert ids(state) == []


def test_a_tombstone_hides_the_engagement_and_keeps_it() -> None:
    state = folded(
        updates(update("me/home", 1, "a")),
        updates(update("me/home", 2, "a", "engagement_update", likes=7)),
        updates(update("me/home", 3, "a", "content_removal")),
    )
    assert ids(state) == []
    assert state.apply(updates(update("me/home", 4, "a", "engagement_update", likes=8))) == []
    state.apply(updates(update("me/home", 5, "a")))
    assert state.items("home")[0].engagement == {"id": "a", "likes": 8}


def test_engagement_alone_shows_nothing() -> None:
    state = FeedState()
    assert state.apply(updates(update("me/home", 1, "a", "engagement_update", likes=1))) == []
    assert ids(state) == []


def test_the_floor_drops_what_is_at_or_below_it() -> None:
    state = folded(
        updates(*(update("me/home", seq, item_id) for seq, item_id in enumerate("abc", 1)))
    )
    changes = state.apply(updates(floor={"me/home": 2}))
    assert changes == [Remove("me/home", "a"), Remove("me/home", "b")]
    state.apply(updates(update("me/home", 2, "b"), floor={"me/home": 1}))
    assert ids(state) == ["c"], "a floor does not sink, and nothing comes back from below it"


def test_the_floor_takes_an_old_engagement_from_an_item_that_stays() -> None:
    state = folded(
        updates(update("me/home", 1, "a", "engagement_update", likes=1), update("me/home", 2, "a"))
    )
    (change,) = state.apply(updates(floor={"me/home": 1}))
    assert isinstance(change, Upsert)
    assert change.item.engagement is None


def test_the_order_is_rank_then_id_then_channel() -> None:
    state = folded(
        updates(
            update("me/home", 1, "b", rank=1),
            update("me/home", 2, "a", rank=1),
            update("all/home", 1, "a", rank=1),
            update("all/home", 2, "z", rank=2.5),
            update("me/home", 3, "y", rank=-1),
            update("me/other", 1, "foreign", rank=9),
        )
    )
    shown = [(item.id, item.channel) for item in state.items("home")]
    assert shown == [
        ("z", "all/home"),
        ("a", "all/home"),
        ("a", "me/home"),
        ("b", "me/home"),
        ("y", "me/home"),
    ]


def test_the_engagement_does_not_move_an_item() -> None:
    state = folded(
        updates(
            update("me/home", 1, "a", rank=1),
            update("me/home", 2, "b", rank=2),
            update("me/home", 3, "a", "engagement_update", rank=9),
        )
    )
    assert ids(state) == ["b", "a"]
    assert state.items("home")[1].update_id == "me/home:1"


def test_a_reset_forgets_its_feeds_only_and_takes_the_epoch() -> None:
    state = folded(
        established("e1"), updates(update("me/home", 9, "a"), update("me/other", 4, "b"))
    )
    reset = {"type": "reset", "feeds": ["home"], "reason": "position_ahead", "epoch": "e1"}
    assert state.apply(reset) == [Remove("me/home", "a")]
    assert state.cursor == Cursor("e1", {"me/other": 4})
    state.apply(updates(update("me/home", 1, "a")))
    assert ids(state) == ["a"], "a lower seq is new after a reset"


@pytest.mark.parametrize(
    "frame",
    [
        established("e2"),
        {"type": "reset", "feeds": ["home"], "reason": "epoch_changed", "epoch": "e2"},
    ],
)
def test_nothing_of_another_epoch_stays(frame: Frame) -> None:
    state = folded(
        established("e1"), updates(update("me/home", 9, "a"), update("me/other", 4, "b"))
    )
    assert state.apply(frame) == [Remove("me/home", "a"), Remove("me/other", "b")]
    assert state.cursor == Cursor("e2", {})


def test_the_same_epoch_again_keeps_everything() -> None:
    state = folded(established("e1"), updates(update("me/home", 9, "a")))
    assert state.apply(established("e1")) == []
    assert ids(state) == ["a"]


def test_frames_of_a_dropped_feed_are_ignored_until_the_next_connection() -> None:
    state = folded(established("e1"), updates(update("me/home", 1, "a")))
    assert state.drop(["home"]) == [Remove("me/home", "a")]
    late = updates(update("me/home", 2, "b"))
    assert state.apply(late) == []
    assert state.cursor.positions == {}
    state.apply(established("e1"))
    state.apply(late)
    assert ids(state) == ["b"]


def test_frames_that_say_nothing_of_items_change_nothing() -> None:
    state = folded(established("e1"), updates(update("me/home", 1, "a")))
    before = held(state)
    for kind in ("caught_up", "degraded", "reconnect", "error", "of the future"):
        assert state.apply({"type": kind, "feeds": ["home"]}) == []
    assert held(state) == before


def test_a_cursor_continues_and_merges_with_what_changed() -> None:
    state = FeedState(Cursor("e1", {"me/home": 41, "all/home": 7}))
    state.apply(established("e1"))
    state.apply(updates(update("all/home", 9, "a")))
    assert state.cursor == Cursor("e1", {"me/home": 41, "all/home": 9})
    assert state.cursor.of(["other"]) == Cursor("e1", {})
    assert state.cursor.to_frame() == {
        "epoch": "e1",
        "positions": {"me/home": 41, "all/home": 9},
    }


@given(
    st.text("abc-_.09", min_size=1),
    st.dictionaries(st.sampled_from(CHANNELS), st.integers(0, 2**63 - 1)),
)
def test_a_cursor_as_text_reads_back(epoch: str, positions: dict[str, int]) -> None:
    cursor = Cursor(epoch, positions)
    assert Cursor.parse(str(cursor)) == cursor


def test_a_text_that_is_no_cursor_is_refused() -> None:
    for text in ("", "epoch", "epoch:me/home", "epoch:me/home=x"):
        with pytest.raises(ValueError, match=r"expected|invalid literal"):
            Cursor.parse(text)


def test_the_text_of_a_cursor_is_the_servers() -> None:
    text = str(Cursor("abc.0123456789abcdef", {"me/home": 41, "all/home": 7}))
    parsed = server_cursor.parse_cursor(text)
    assert server_cursor.format_cursor(parsed) == text
    assert dict(parsed.positions) == {"me/home": 41, "all/home": 7}
