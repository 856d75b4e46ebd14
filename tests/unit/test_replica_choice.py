"""Which replicas are asked, and how far behind they are."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livefeed.replica_choice import (
    SILENT_SECONDS_MAX,
    STALE_READS_MAX,
    Candidate,
    Lag,
    Look,
    PrimaryTrack,
    order,
    server_name,
)

LAG_SECONDS_MAX = 2.0

lags = st.none() | st.builds(
    Lag, st.floats(0, 100) | st.sampled_from([0.0, LAG_SECONDS_MAX]), st.integers(0, 10**9)
)
candidates = st.lists(
    st.builds(Candidate, st.booleans(), lags, st.integers(0, STALE_READS_MAX + 1)), max_size=5
)


def seconds(candidate: Candidate) -> float:
    return float("inf") if candidate.lag is None else candidate.lag.seconds


def look(replayed: int | None, *, received: int | None = None, age: float | None = None) -> Look:
    """What a replica says; it has replayed all that it received unless something else is said."""
    received = replayed if received is None else received
    return Look(received=received, replayed=replayed, age_seconds=age)


@given(candidates, st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_every_usable_replica_is_in_the_order_once(
    given: list[Candidate], chances: list[float]
) -> None:
    """Near or far by its lag, and far ones by how far; what does not answer is in neither."""
    near, far = order(given, lag_seconds_max=LAG_SECONDS_MAX, chances=chances)
    usable = [
        number
        for number, one in enumerate(given)
        if one.answers and one.stale_reads < STALE_READS_MAX
    ]
    assert sorted(near + far) == usable
    assert all(seconds(given[number]) <= LAG_SECONDS_MAX for number in near)
    assert all(seconds(given[number]) > LAG_SECONDS_MAX for number in far)
    assert [seconds(given[number]) for number in far] == sorted(seconds(given[n]) for n in far)


def test_the_near_ones_share_the_reads_by_their_lag() -> None:
    """Two that have everything get as many each; one that is a second behind gets a tenth of one's.

    The chances are seeded: of 10,000 draws the shares are within a hundredth or two.
    """
    chance = random.Random(7).random
    three = [Candidate(True, Lag(0.0, 0)), Candidate(True, Lag(0.0, 0)), Candidate(True, Lag(1, 9))]
    first = Counter(
        order(three, lag_seconds_max=2.0, chances=[chance() for _ in three]).near[0]
        for _ in range(10_000)
    )
    assert first[0] / 10_000 == pytest.approx(11 / 23, abs=0.02)
    assert first[1] / 10_000 == pytest.approx(11 / 23, abs=0.02)
    assert first[2] / 10_000 == pytest.approx(1 / 23, abs=0.01)


def tracked(*positions: tuple[float, int]) -> PrimaryTrack:
    """Where the primary was at which time."""
    track = PrimaryTrack()
    for at, position in positions:
        track.note(at, position)
    return track


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (look(300), Lag(0.0, 0)),
        # An idle primary makes its newest transaction old, and it is not behind.
        (look(300, age=3600.0), Lag(0.0, 0)),
        # More than was seen a moment ago.
        (look(400, received=500, age=50.0), Lag(0.0, 0)),
        # It lacks what was written between two looks at the primary: since the later one.
        (look(299), Lag(0.0, 1)),
        (look(200, age=3600.0), Lag(0.0, 100)),
        (look(150), Lag(1.0, 150)),
        # Cut off from its primary: it has replayed all that it received.
        (look(100, received=100, age=0.1), Lag(1.0, 200)),
        # It lacks more than is remembered.
        (look(50), Lag(2.0, 250)),
        (look(50, age=40.0), Lag(40.0, 250)),
        (look(50, age=1.0), Lag(2.0, 250)),
        (look(None), None),
    ],
)
def test_the_lag_is_told_by_where_the_primary_was(given: Look, expected: Lag | None) -> None:
    """The primary was at 100, 200 and 300, a second apart, the last time a second ago."""
    track = tracked((1.0, 100), (2.0, 200), (3.0, 300))
    assert track.lag(given, now=4.0) == expected


def test_a_primary_that_is_away_leaves_what_the_replica_says() -> None:
    """What it has received and not replayed counts then, and what it lacks grows no older."""
    assert PrimaryTrack().lag(look(1), now=0.0) is None
    track = tracked((1.0, 100))
    later = 1.0 + SILENT_SECONDS_MAX + 0.1
    assert track.lag(look(100, age=9.0), now=later) == Lag(0.0, 0)
    assert track.lag(look(100, received=200, age=9.0), now=later) == Lag(9.0, 0)
    track = tracked((1.0, 100), (2.0, 200))
    assert track.lag(look(150), now=2.0) == track.lag(look(150), now=90.0) == Lag(0.0, 50)


def test_an_idle_primary_is_not_forgotten_and_a_restored_one_is_another() -> None:
    """One position for however long; a smaller one begins anew."""
    track = tracked(*((float(at), 100) for at in range(10_000)))
    assert track.lag(look(99), now=10_000.0) == Lag(9_999.0, 1)
    track.note(10_000.0, 40)
    assert track.lag(look(40), now=10_001.0) == Lag(0.0, 0)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://user:se@cret@db1:5432/livefeed", "db1:5432"),
        ("postgresql://db1:5432,db2:5433/livefeed?target_session_attrs=any", "db1:5432,db2:5433"),
        ("postgresql:///livefeed?host=/run/postgresql", "local socket"),
    ],
)
def test_a_name_has_no_credentials(url: str, name: str) -> None:
    """Host and port, as people know the server."""
    assert server_name(url) == name
