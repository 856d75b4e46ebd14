"""Alarms, against the simplest thing that does the same."""

from hypothesis import given
from hypothesis import strategies as st

from livefeed.alarms import Alarms

Step = st.tuples(st.sampled_from(["set", "discard", "due"]), st.integers(0, 5), st.integers(0, 20))


@given(steps=st.lists(Step, max_size=200))
def test_they_ring_as_a_table_of_times_would(steps) -> None:
    """Set, moved and taken away in any order: whoever is due is told once, the earliest first."""
    alarms, table = Alarms[int](), {}
    for action, key, number in steps:
        if action == "set":
            alarms.set(key, number)
            table[key] = number
        elif action == "discard":
            alarms.discard(key)
            table.pop(key, None)
        else:
            found = alarms.due(number, most=2)
            expected = sorted(at for at in table.values() if at <= number)[:2]
            assert [table.pop(one) for one in found] == expected
        assert alarms.next_at() == min(table.values(), default=None)


def test_moving_an_alarm_again_and_again_grows_nothing() -> None:
    """What is moved a million times is one alarm, not a million."""
    alarms = Alarms[str]()
    for number in range(10_000):
        alarms.set("a", float(number % 7 + number))
    assert len(alarms._heap) < 200
    assert alarms.due(1e9, most=10) == ["a"]


def test_what_was_taken_away_is_not_held() -> None:
    """When everything has gone, hardly anything of it is left, however far off its time was."""
    alarms = Alarms[int]()
    for key in range(1_000):
        alarms.set(key, 1e9)
    for key in range(1_000):
        alarms.discard(key)
    assert len(alarms._heap) <= 64
