"""Cursors: own, foreign, forged, old."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livefeed.cursor import Cursor, client_epoch, format_cursor, parse_cursor, resolve
from livefeed.errors import CursorRefused

EPOCH = "3340589f2264414ab28a4bce8b7f6a7a"


def of(user: str, positions: dict[str, int], epoch: str = EPOCH) -> Cursor:
    """A cursor that the server gave to a user."""
    return Cursor(client_epoch(epoch, user), positions)


def test_an_own_cursor_gives_positions_in_the_log() -> None:
    """Positions are read as the user's own channels and the topics."""
    cursor = of("alice", {"me/home": 4, "all/home": 7})
    positions = resolve(cursor, epoch=EPOCH, user_id="alice")
    assert positions == {"user:alice/home": 4, "topic:home": 7}


def test_another_users_cursor_is_refused() -> None:
    """Taken as it is, it would skip updates silently."""
    with pytest.raises(CursorRefused) as refused:
        resolve(of("bob", {"me/home": 4}), epoch=EPOCH, user_id="alice")
    assert refused.value.code == "cursor_foreign"


def test_a_cursor_of_another_epoch_is_known_as_such() -> None:
    """The log is another incarnation: the client starts again."""
    assert resolve(of("alice", {}, "older"), epoch=EPOCH, user_id="alice") == "epoch_changed"


@pytest.mark.parametrize(
    "cursor",
    [
        Cursor(EPOCH, {}),
        Cursor("", {}),
        Cursor(f"{EPOCH}.xyz", {}),
        of("alice", {"user:bob/home": 1}),
        of("alice", {"me/home": -1}),
        of("alice", {"me/home": 2**63}),
        of("alice", {f"me/f{number}": 1 for number in range(129)}),
    ],
)
def test_a_forged_cursor_is_refused(cursor: Cursor) -> None:
    """An epoch that was never given out, or positions that cannot be."""
    with pytest.raises(CursorRefused) as refused:
        resolve(cursor, epoch=EPOCH, user_id="alice")
    assert refused.value.code == "cursor_invalid"


@given(
    positions=st.dictionaries(
        st.sampled_from(["me/home", "all/home", "me/a-b"]), st.integers(0, 2**63 - 1)
    )
)
def test_a_cursor_survives_as_text(positions: dict[str, int]) -> None:
    """What is formatted is read back."""
    cursor = of("alice", positions)
    assert parse_cursor(format_cursor(cursor)) == cursor


@pytest.mark.parametrize(
    "text", ["", "x", "e:me/home", "e:me/home=01", "e:me/home=x", "e:a=1,a=2", "e:a=1,", "e:=٣"]
)
def test_text_that_is_no_cursor_is_refused(text: str) -> None:
    """The form is checked to the letter."""
    with pytest.raises(CursorRefused):
        parse_cursor(text)
