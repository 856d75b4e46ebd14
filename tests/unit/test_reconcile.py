"""What became of an update: a small model of the pipeline, and every state told apart."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livefeed import headers, subjects
from livefeed.channel import owner_of
from livefeed.dead_letter import DeadLetter
from livefeed.errors import Refused, UpdateRefused
from livefeed.limits import RECONCILED_LETTERS_MAX
from livefeed.messages import LaneGroup, LaneMessage, LaneUpdate, encode_lane_message
from livefeed.order import OrderKey
from livefeed.partition import partition_of
from livefeed.reconcile import (
    Followers,
    Found,
    Handled,
    LetterIndex,
    Place,
    Published,
    read_published,
    state_of,
)
from livefeed.topology import LANE_STREAM, UPDATES

SUBJECT = "feed.updates.high.tests"
STORED_AT = 2_000_000_000_000_000
ALL_HANDLED = Handled(dict.fromkeys(subjects.LANES, 1_000), frozenset())
NOWHERE = Found(None, 0, 0, None)


def payload(**fields: Any) -> bytes:
    given = {
        "updateId": "u1",
        "userId": "alice",
        "feedType": "home",
        "updateType": "new_content",
        "content": {"id": "p1"},
        "timestamp": "2026-11-25T08:00:00Z",
        **fields,
    }
    return json.dumps({name: value for name, value in given.items() if value}).encode()


def published(sequence: int = 1, subject: str = SUBJECT, **fields: Any) -> Published:
    return read_published(sequence, subject, STORED_AT, {}.get, payload(**fields))


def only_place(one: Published) -> Place:
    assert isinstance(one.audience, list)
    (place,) = one.places(one.audience)
    return place


def letter(stream: str, sequence: int, content: bytes) -> DeadLetter:
    return DeadLetter(1, STORED_AT, "r", None, "s", stream, sequence, {}, content)


class World(NamedTuple):
    """How far one update came, as the parts know it."""

    prioritized: bool
    partition_busy: bool
    other_partition_busy: bool
    held: int | None
    """The version of the entry at its place; its own is 5."""
    above_floor: bool
    floor: bool
    forgotten: int | None
    """Relative to its acceptance."""
    in_letters: bool


worlds = st.builds(
    World,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 4, 5, 6]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, -1, 0, 1]),
    st.booleans(),
)


def model(world: World) -> str:
    """The same in words: newer or equal is settled, then the floor, then the way, then letters."""
    if world.held in {5, 6}:
        return "persisted" if world.above_floor else "below_floor"
    if world.held is None and world.floor and world.forgotten in {None, 0, 1}:
        return "below_floor"
    if not world.prioritized or world.partition_busy:
        return "pending"
    return "dead_letter" if world.in_letters else "missing"


@given(worlds)
def test_the_state_is_the_models(world: World) -> None:
    """Every combination of what the log, the streams and the letters say has one state."""
    one = published(sequence=10, version=5)
    place = only_place(one)
    mine = partition_of(owner_of(place.key.channel))
    busy = {mine} if world.partition_busy else set()
    busy |= {(mine + 1) % 16} if world.other_partition_busy else set()
    floors = dict.fromkeys(subjects.LANES, 0)
    floors["high"] = 10 if world.prioritized else 9
    order = None if world.held is None else OrderKey(1, world.held, place.order.ref)
    floor = 7 if world.floor or (order and not world.above_floor) else 0
    seq = 0 if order is None else floor + world.above_floor
    forgotten = None if world.forgotten is None else STORED_AT + world.forgotten
    letters = LetterIndex()
    if world.in_letters:
        letters.add(letter(LANE_STREAM, 3, lane_message([place.key.channel], place.order)))
    found = Found(order, seq, floor, forgotten)
    state = state_of(one, place, found, Handled(floors, frozenset(busy)), letters)
    assert state == model(world)


def lane_message(channels: list[str], order: OrderKey) -> bytes:
    update = LaneUpdate(
        ref=order.ref.hex(),
        explicit=order.explicit,
        version=order.version,
        item=1,
        facet=0,
        kind=0,
        rank=None,
        born=0,
        update_id="u1",
        published_at=0,
        accepted_at=0,
        trace=None,
        body=b"{}",  # type: ignore[arg-type]
    )
    return encode_lane_message(LaneMessage([LaneGroup(channels, [update])]))


def test_a_letter_of_a_lane_speaks_for_its_channels_only() -> None:
    """The same update for another user, or another update for this one, is still missing."""
    letters = LetterIndex()
    one, other = published(), published(userId="bob")
    letters.add(letter(LANE_STREAM, 1, lane_message(["user:alice/home"], only_place(one).order)))
    for update, state in (
        (one, "dead_letter"),
        (other, "missing"),
        (published(updateId="u2"), "missing"),
    ):
        assert state_of(update, only_place(update), NOWHERE, ALL_HANDLED, letters) == state


def test_letters_of_either_stream() -> None:
    """A sequence of FEED_UPDATES is a message; a lane message that cannot be read says nothing."""
    letters = LetterIndex()
    letters.add(letter(UPDATES, 7, b"{"))
    letters.add(letter(LANE_STREAM, 8, b"{"))
    assert [letters.has_message(number) for number in (7, 8)] == [True, False]


def test_more_letters_than_can_be_told_apart_are_refused() -> None:
    """Memory is bounded, and the sentence says what to do."""
    letters = LetterIndex()
    for number in range(RECONCILED_LETTERS_MAX):
        letters._messages.add(number)
    with pytest.raises(Refused, match="later T"):
        letters.add(letter(UPDATES, RECONCILED_LETTERS_MAX, b""))


def test_places_are_every_channel_and_item() -> None:
    """The keys that prioritize gives them, and one facet."""
    one = published(
        userId=None,
        audience={"users": ["a", "b", "a"]},
        content=[{"id": "x"}, {"id": "y"}],
        updateType="engagement_update",
    )
    assert isinstance(one.audience, list)
    places = list(one.places(one.audience))
    assert [(place.key.channel, place.content_id) for place in places] == [
        (f"user:{user}/home", item) for user in "ab" for item in "xy"
    ]
    assert {place.key.facet for place in places} == {1}
    assert len({place.order.ref for place in places}) == 2


def test_audiences() -> None:
    """Everyone on a feed is one channel; followers are asked for, from where the message says."""
    assert published(userId=None, audience={"feed": True}).audience == ["topic:home"]
    fields = {"userId": None, "audience": {"followers": "author"}}
    assert published(**fields).audience == Followers("author", "", ended=False)
    found = read_published(
        1,
        SUBJECT,
        STORED_AT,
        {"livefeed-after": "Ym9i", "livefeed-accepted-at": "5"}.get,
        payload(**fields, updateType="content_removal"),
    )
    assert found.audience == Followers("author", "bob", ended=True)
    assert found.accepted_at == 5
    for wrong in ("=", "AA==", "/w=="):
        with pytest.raises(UpdateRefused):
            read_published(1, SUBJECT, STORED_AT, {"livefeed-after": wrong}.get, payload(**fields))


@pytest.mark.parametrize(
    ("said", "expected"),
    [(None, 100), ("", 100), ("99", 99), ("101", 100), ("-1", 100), ("x", 100), ("9" * 30, 100)],
)
def test_accepted_at(said: str | None, expected: int) -> None:
    """A header makes a message older, never younger, and never breaks it."""
    header = {"livefeed-accepted-at": said}.get
    assert headers.accepted_at(header, stored_at=100) == expected
    assert headers.kept(header, stored_at=100) == {"Livefeed-Accepted-At": str(expected)}
