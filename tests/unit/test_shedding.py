"""Shedding: far above the mean, gently, and never for nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livefeed.shedding import NOTHING, ShedPolicy, shed

POLICY = ShedPolicy()


@pytest.mark.parametrize(
    ("own", "others", "going_on", "count"),
    [
        (10_000, [], False, 0),  # alone
        (100, [0], False, 0),  # no more than the least
        (10_000, [10_000], False, 0),  # even
        (12_000, [10_000], False, 0),  # 9 % above the mean
        (12_000, [10_000], True, 240),  # the same, while it sheds
        (10_000, [0], False, 200),  # twice the mean: 2 % a second
        (101, [0], False, 1),  # at least one, at most down to the least
        (110, [90], True, 2),
        (1_060, [940], True, 10),  # not below the end
        (1_050, [950], True, 0),
    ],
)
def test_how_many_are_shed(own: int, others: list[int], count: int, *, going_on: bool) -> None:
    """By the default thresholds."""
    assert shed(own, others, POLICY, going_on=going_on).count == count


def test_zero_is_never() -> None:
    """The setting turns it off."""
    off = ShedPolicy(begin_share=0)
    assert shed(10_000, [0], off, going_on=True) == NOTHING


@given(counts=st.lists(st.integers(0, 3_000), min_size=2, max_size=6))
def test_a_fleet_comes_to_rest_near_its_mean(counts: list[int]) -> None:
    """What is shed goes to the emptiest; nobody sheds below the mean or the least, and it ends."""
    going_on = [False] * len(counts)
    total = sum(counts)
    for _second in range(400):
        moved = 0
        for number, own in enumerate(counts):
            others = counts[:number] + counts[number + 1 :]
            answer = shed(own, others, POLICY, going_on=going_on[number])
            going_on[number] = answer.going_on
            counts[number] -= answer.count
            assert counts[number] >= min(own, POLICY.connections_min)
            assert answer.count <= max(1, own * POLICY.share_a_second)
            for _ in range(answer.count):
                counts[counts.index(min(counts))] += 1
            moved += answer.count
        if not moved:
            break
    assert moved == 0
    assert sum(counts) == total
    mean = total / len(counts)
    limit = max(POLICY.connections_min, mean * (1 + POLICY.begin_share))
    assert max(counts) <= limit
