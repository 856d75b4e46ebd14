"""Deadlines: the heap gives what a look at all of them would."""

from hypothesis import given
from hypothesis import strategies as st

from livefeed.deadlines import Deadlines

Steps = st.lists(
    st.tuples(st.sampled_from(["set", "discard", "due"]), st.sampled_from("abcd"), st.floats(0, 9))
)


@given(steps=Steps)
def test_it_is_a_dictionary_of_times(steps: list[tuple[str, str, float]]) -> None:
    """Set, set again, discard, and what is due by a time: as the simplest model has it."""
    deadlines: Deadlines[str] = Deadlines()
    model: dict[str, float] = {}
    for step, key, at in steps:
        if step == "set":
            deadlines.set(key, at)
            model[key] = at
        elif step == "discard":
            deadlines.discard(key)
            model.pop(key, None)
        else:
            due = deadlines.due(at)
            assert sorted(due) == sorted(key for key, time in model.items() if time <= at)
            times = [model.pop(one) for one in due]
            assert times == sorted(times)
        assert len(deadlines) == len(model)


def test_setting_again_and_again_fills_nothing() -> None:
    """What was replaced is forgotten before it is due."""
    deadlines: Deadlines[str] = Deadlines()
    for number in range(10_000):
        deadlines.set("a", 1e9 + number)
        deadlines.set(f"gone-{number}", 1e9)
        deadlines.discard(f"gone-{number}")
    assert len(deadlines) == 1
    assert deadlines.entries < 100


def test_what_is_discarded_is_not_held() -> None:
    """When everything has gone, hardly anything of it is left, however far off its time was."""
    deadlines: Deadlines[int] = Deadlines()
    for key in range(1_000):
        deadlines.set(key, 1e9)
    for key in range(1_000):
        deadlines.discard(key)
    assert deadlines.entries <= 64
