"""Frames as events and as answers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livefeed_client import FeedState
from livefeed_client.state import Cursor as ClientCursor

from livefeed import protocol
from livefeed.cursor import Cursor, parse_cursor
from livefeed.errors import Refused
from livefeed.limits import CURSOR_BYTES_MAX, OUTBOX_BYTES_MAX
from livefeed.over_http import Answer, Events, Reached, parse_position, parse_wait

FEED = "home"
EPOCHS = ("e1.0123456789abcdef", "e2.0123456789abcdef")


def updates(cursor: dict[str, int], *bodies: bytes, floor: dict[str, int] | None = None) -> bytes:
    return protocol.feed_updates(
        batch_id="b",
        timestamp="t",
        updates=bodies,
        cursor=cursor,
        floor=floor or {},
        replay=False,
        more=False,
    )


def established(epoch: str) -> bytes:
    return protocol.connection_established(
        connection_id="c", user_id="u", feeds=[], timestamp="t", epoch=epoch
    )


frames = st.one_of(
    st.sampled_from(EPOCHS).map(established),
    st.sampled_from(EPOCHS).map(lambda epoch: protocol.reset([FEED], "epoch_changed", epoch)),
    st.just(protocol.caught_up([FEED])),
    st.just(protocol.reconnect(after_milliseconds=9, reason="drain")),
    st.dictionaries(st.sampled_from(["me/home", "all/home"]), st.integers(1, 9), max_size=2).map(
        updates
    ),
)


@given(given=st.lists(frames, max_size=20), start=st.integers(0, 5))
def test_the_id_of_an_event_is_the_clients_own_cursor(given: list[bytes], start: int) -> None:
    """Whatever comes, it is what a client that follows the page would have worked out."""
    cursor = Cursor(EPOCHS[0], {"me/home": start} if start else {})
    state = FeedState(ClientCursor(cursor.epoch, cursor.positions))
    events = Events(Reached(FEED, cursor))
    for frame in given:
        state.apply(json.loads(frame))
        assert field(events.event(frame), "id") == str(state.cursor)


def field(event: bytes, name: str) -> str:
    (value,) = [
        line.removeprefix(f"{name}: ")
        for line in event.decode().split("\n")
        if line.startswith(f"{name}: ")
    ]
    return value


def test_line_ends_of_a_publisher_do_not_end_an_event() -> None:
    """They are blanks between tokens: the JSON is the same."""
    frame = updates({"me/home": 1}, b'{"content":\r\n{"id":\r"a\\nb\xe2\x80\xa8"}\n}')
    event = Events(Reached(FEED, None)).event(frame)
    assert event.count(b"\n\n") == 1
    assert b"\r" not in event
    assert json.loads(field(event, "data")) == json.loads(frame)


def test_a_reconnect_sets_how_long_an_event_source_waits() -> None:
    """It knows no frames of ours, and has to come back at its own time all the same."""
    frame = protocol.reconnect(after_milliseconds=1830, reason="drain")
    assert field(Events(Reached(FEED, None)).event(frame), "retry") == "1830"


def test_positions_of_other_feeds_are_not_handed_back() -> None:
    """A stream is of one feed, and so is its cursor."""
    cursor = Cursor(EPOCHS[0], {"me/home": 3, "me/work": 4, "all/home": 5})
    assert str(Reached(FEED, cursor)) == f"{EPOCHS[0]}:all/home=5,me/home=3"


def answer_of(*given: bytes, cursor: Cursor | None = None) -> tuple[Answer, dict[str, Any]]:
    answer = Answer(Reached(FEED, cursor))
    for frame in (established(EPOCHS[0]), *given):
        answer.add(frame)
    return answer, json.loads(answer.body())


def test_an_answer_is_everything_that_was_missed() -> None:
    """Pages gather until the log has no more; a filtered or empty one is no answer yet."""
    pages = [updates({"me/home": 2}, b'{"n":1}'), updates({"all/home": 7}, b'{"n":2}')]
    answer, body = answer_of(*pages)
    assert (answer.complete, body["more"]) == (False, True)
    answer, body = answer_of(*pages, protocol.caught_up([FEED]))
    assert (answer.complete, body["more"]) == (True, False)
    assert body["updates"] == [{"n": 1}, {"n": 2}]
    assert parse_cursor(body["cursor"]).positions == {"me/home": 2, "all/home": 7}
    answer, _ = answer_of(updates({"me/home": 2}), protocol.caught_up([FEED]))
    assert (answer.complete, answer.caught_up, answer.empty) == (False, True, True)
    answer.add(updates({"me/home": 3}, b'{"n":3}'))
    assert answer.complete


def test_what_comes_after_an_answer_is_left_to_the_next_one() -> None:
    """Its cursor must not stand for what is not in it."""
    answer, _ = answer_of(updates({"me/home": 2}, b"{}"), protocol.caught_up([FEED]))
    answer.add(updates({"me/home": 3}, b"{}"))
    assert parse_cursor(json.loads(answer.body())["cursor"]).positions == {"me/home": 2}


def test_an_answer_is_bounded() -> None:
    """More than fits is left to the next one, and said."""
    large = b'"' + b"x" * (OUTBOX_BYTES_MAX // 2) + b'"'
    answer, body = answer_of(updates({"me/home": 1}, large), updates({"me/home": 2}, large))
    assert (answer.complete, body["more"], len(body["updates"])) == (True, True, 1)


def test_a_reset_drops_what_was_gathered_before_it() -> None:
    """And what follows it is a catch-up from 0, to its end."""
    reset = protocol.reset([FEED], "position_ahead", EPOCHS[1])
    before = updates({"me/home": 9}, b'{"n":1}', floor={"me/home": 4})
    answer, body = answer_of(before, reset, updates({"me/home": 1}, b'{"n":2}'))
    assert not answer.complete
    assert body["reset"] == {"reason": "position_ahead", "epoch": EPOCHS[1]}
    assert (body["updates"], body["floor"]) == ([{"n": 2}], {})
    assert body["cursor"] == f"{EPOCHS[1]}:me/home=1"
    answer.add(protocol.caught_up([FEED]))
    assert answer.complete
    answer, _ = answer_of(reset, protocol.caught_up([FEED]))
    assert answer.complete, "a reset is news, also when nothing follows it"


def test_parameters() -> None:
    """Numbers of seconds, and cursors of a bounded length."""
    assert (parse_wait({}), parse_wait({"wait": "0"}), parse_wait({"wait": "30"})) == (25, 0, 30)
    for text in ("", "-1", "+1", "31", "1e1", "1.0", "٣", "0" * 9 + "31", "9" * 5000):
        with pytest.raises(Refused, match="parameter_invalid"):
            parse_wait({"wait": text})
    assert parse_position("") is parse_position(None) is None
    assert parse_position("e:me/home=1") == Cursor("e", {"me/home": 1})
    for text in ("e", "e:me/home=x", "e:" + "x" * CURSOR_BYTES_MAX):
        with pytest.raises(Refused, match="cursor_invalid"):
            parse_position(text)
