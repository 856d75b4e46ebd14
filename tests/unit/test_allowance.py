"""A bucket that is spent by costs and filled by time."""

from hypothesis import given
from hypothesis import strategies as st

from livefeed.allowance import Allowance


def test_a_burst_then_the_rate() -> None:
    """At first as much as the burst may be spent, afterwards as much as has come back."""
    allowance = Allowance(10, 100, now=5.0)
    assert allowance.spend(100, 5.0)
    assert not allowance.spend(1, 5.0)
    assert not allowance.spend(11, 6.0)
    assert allowance.spend(10, 6.0)


def test_no_more_than_the_burst_gathers() -> None:
    """However long nothing was spent."""
    allowance = Allowance(10, 100, now=0.0)
    assert not allowance.spend(101, 1e6)
    assert allowance.spend(100, 1e6)


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 3)), max_size=50))
def test_never_more_than_the_burst_and_the_rate(steps: list[tuple[float, float]]) -> None:
    """What was spent until any moment is at most the burst and what came back until then."""
    allowance, now, spent = Allowance(10, 100, now=0.0), 0.0, 0.0
    for cost, wait in steps:
        now += wait
        spent += cost if allowance.spend(cost, now) else 0
        assert spent <= 100 + 10 * now + 1e-6
