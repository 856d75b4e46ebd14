"""When lanes flush."""

from hypothesis import given
from hypothesis import strategies as st

from livefeed.window import (
    QUIET_ARRIVALS_MAX,
    QUIET_GATHER_SECONDS,
    URGENT_FAST_SECONDS,
    URGENT_GATHER_SECONDS,
    LaneWindow,
    most_overdue,
)


def busy(window_seconds: float, now: float) -> LaneWindow:
    """A window whose lane has seen many arrivals just now."""
    window = LaneWindow(window_seconds)
    for _ in range(QUIET_ARRIVALS_MAX):
        window.arrived(now)
    return window


def test_high_is_due_at_once() -> None:
    """A lane without a window does not wait, unless it comes fast: then for a moment."""
    window = LaneWindow(0.0)
    window.arrived(10.0, QUIET_ARRIVALS_MAX - 1)
    assert window.due_at(10.0, 10.0) == 10.0
    window.arrived(10.0)
    assert window.due_at(10.0, 1.0) == 10.0 + URGENT_GATHER_SECONDS
    later = 10.0 + 1.01 * URGENT_FAST_SECONDS
    assert window.due_at(later, later) == later


def test_a_quiet_lane_gathers_only_a_moment() -> None:
    """A lane with few arrivals in its window is flushed almost at once."""
    window = LaneWindow(5.0)
    window.arrived(10.0)
    due_at = window.due_at(10.0, 10.0)
    assert due_at == 10.0 + QUIET_GATHER_SECONDS


def test_a_busy_lane_gathers_for_its_window() -> None:
    """A lane with many arrivals in its window waits the whole window."""
    assert busy(5.0, 10.0).due_at(10.0, 10.0) == 15.0


def test_a_lane_becomes_quiet_again() -> None:
    """Arrivals older than the window do not count."""
    due_at = busy(5.0, 10.0).due_at(16.0, 16.0)
    assert due_at == 16.0 + QUIET_GATHER_SECONDS


def test_a_window_begins_when_the_update_is_accepted() -> None:
    """What waited somewhere else waits so much less here, and nothing is due before it came."""
    assert busy(5.0, 10.0).due_at(10.0, 8.0) == 13.0
    assert busy(5.0, 10.0).due_at(10.0, 1.0) == 10.0


def test_many_updates_in_one_message_make_a_lane_busy() -> None:
    """Updates are counted, however few messages bring them."""
    window = LaneWindow(5.0)
    window.arrived(10.0, QUIET_ARRIVALS_MAX - 1)
    assert window.due_at(10.0, 10.0) == 10.0 + QUIET_GATHER_SECONDS
    window.arrived(10.0, 1000)
    assert window.due_at(10.0, 10.0) == 15.0


@given(
    window_seconds=st.floats(0, 15),
    received=st.floats(0, 1000),
    age_seconds=st.floats(0, 30),
    arrivals=st.integers(0, 100),
)
def test_nothing_waits_beyond_its_window(
    window_seconds: float, received: float, age_seconds: float, arrivals: int
) -> None:
    """An update waits at most its lane's window, since it was accepted."""
    window = LaneWindow(window_seconds)
    window.arrived(received, arrivals)
    due_at = window.due_at(received, received - age_seconds)
    latest = received - age_seconds + window_seconds
    assert received <= due_at <= max(received + URGENT_GATHER_SECONDS, latest)


def test_the_longest_overdue_lane_goes_first_in_windows_of_its_own() -> None:
    """High before all; then medium, unless low waits three times as long."""
    assert most_overdue({"medium": 1.0, "low": 1.0}, 0.0) is None
    assert most_overdue({"high": 9.0, "medium": 1.0, "low": 0.0}, 9.0) == "high"
    assert most_overdue({"medium": 1.0, "low": 1.0}, 1.0) == "medium"
    assert most_overdue({"medium": 6.0, "low": 1.0}, 8.6) == "medium"
    assert most_overdue({"medium": 6.0, "low": 1.0}, 8.4) == "low"


@given(window_seconds=st.floats(0.1, 15), received=st.floats(0, 1000))
def test_a_widened_window_gathers_longer_when_busy(window_seconds: float, received: float) -> None:
    """Widened, a busy lane gathers so many times as long; a quiet one is flushed as before."""
    window = busy(window_seconds, received)
    window.factor = 2.0
    assert window.due_at(received, received) == received + 2 * window_seconds
    quiet = LaneWindow(window_seconds)
    quiet.factor = 2.0
    assert quiet.due_at(received, received) == received + QUIET_GATHER_SECONDS
