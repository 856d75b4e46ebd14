"""The frame budget: a bound for every second, and a frame as soon as the bound allows one."""

from hypothesis import given
from hypothesis import strategies as st

from livefeed.limits import FRAMES_A_SECOND_MAX, HIDDEN_FRAME_SECONDS, HIDDEN_FRAMES_BURST
from livefeed.pace import Pace

Pauses = st.lists(st.floats(0, 3), max_size=200)


@given(pauses=Pauses, began=st.floats(0, 1e8), flips=st.randoms(use_true_random=False))
def test_no_second_has_more_frames_than_the_bound(pauses, began, flips) -> None:
    """Whoever sends whenever it may, looked at or not, stays within the bound in any second."""
    now, sent = began, []
    pace = Pace()
    for pause in pauses:
        # Mostly as early as it may, else after a while.
        now = pace.ready_at(now) if flips.random() < 0.8 else now + pause
        if flips.random() < 0.2:
            pace.show() if flips.random() < 0.7 else pace.hide(now)
        ready = pace.ready_at(now) <= now
        if flips.random() < 0.5:
            assert pace.try_take(now, keep=0) is ready
        elif ready:
            pace.take(now)
        sent += [now] * ready
    for at in sent:
        assert sum(at <= other < at + 1 for other in sent) <= FRAMES_A_SECOND_MAX


@given(frames=st.integers(1, 60), began=st.floats(0, 1e8))
def test_a_frame_may_go_when_it_was_said(frames, began) -> None:
    """`ready_at` keeps its word, so nobody is woken in vain."""
    now = began
    pace = Pace()
    for _ in range(frames):
        now = pace.ready_at(now)
        assert pace.ready_at(now) == now
        pace.take(now)
    assert now - began <= frames / (FRAMES_A_SECOND_MAX / 2)


def test_what_is_kept_is_there_afterwards() -> None:
    """Frames that leave one for another one never take its place."""
    pace = Pace()
    while pace.try_take(0.0, keep=1):
        pass
    assert pace.ready_at(0.0) <= 0.0


def test_a_hidden_connection_is_slow_and_a_shown_one_is_not() -> None:
    """A few frames at once, then one each ten seconds; shown it may go on at once."""
    pace = Pace()
    pace.hide(0.0)
    for _ in range(HIDDEN_FRAMES_BURST):
        assert pace.ready_at(1.0) <= 1.0
        pace.take(1.0)
    assert 1.0 + HIDDEN_FRAME_SECONDS - 1 <= pace.ready_at(2.0) <= 1.0 + HIDDEN_FRAME_SECONDS + 0.1
    pace.show()
    assert pace.ready_at(2.0) <= 2.0


def test_hidden_connections_are_woken_together() -> None:
    """Those who hid within a second of each other: one read of the log is for all of them."""
    ready = set()
    for now in (3.1, 3.4, 3.9):
        pace = Pace()
        pace.hide(now)
        for _ in range(HIDDEN_FRAMES_BURST):
            pace.take(now)
        ready.add(pace.ready_at(now))
    assert len(ready) == 1
