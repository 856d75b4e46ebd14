"""The load level: which samples lead to which level, and how it never moves."""

import itertools
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.fleet_load import FleetLoad
from livefeed.load import (
    LANES_INPUTS,
    LEAVE_SHARE,
    LEVELS,
    OWN_INPUTS,
    STEPS,
    THRESHOLDS,
    Level,
    LoadLevel,
    at_most,
    fleet_level,
    lag_said,
    level_said,
    limit_of,
    pauses_low,
    with_bounds,
)

UP, TOP = STEPS["elevated"], STEPS["critical"]
CALM, HIGH, EXTREME = 0.1, 0.86, 0.96
"""Shares of memory."""


def levels(shares: Iterable[float | None]) -> list[Level]:
    """The level after each sample of memory."""
    load = LoadLevel(THRESHOLDS, OWN_INPUTS)
    return [load.sample({"memory": share}) for share in shares]


@pytest.mark.parametrize(
    ("shares", "level"),
    [
        ([], "normal"),
        ([HIGH] * (UP.enter - 1), "normal"),
        ([HIGH] * UP.enter, "elevated"),
        ([HIGH] * 1000, "elevated"),
        ([HIGH] * (UP.enter - 1) + [CALM] + [HIGH] * (UP.enter - 1), "normal"),
        ([EXTREME] * UP.enter, "elevated"),
        ([EXTREME] * (UP.enter + TOP.enter - 1), "elevated"),
        ([EXTREME] * (UP.enter + TOP.enter), "critical"),
        ([EXTREME] * 100 + [CALM] * (TOP.leave - 1), "critical"),
        ([EXTREME] * 100 + [CALM] * TOP.leave, "elevated"),
        ([EXTREME] * 100 + [CALM] * (TOP.leave + UP.leave - 1), "elevated"),
        ([EXTREME] * 100 + [CALM] * (TOP.leave + UP.leave), "normal"),
        # Between the two bounds it stays where it is.
        ([HIGH] * UP.enter + [0.85 * LEAVE_SHARE] * 1000, "elevated"),
        ([CALM] * UP.enter + [0.84] * 1000, "normal"),
        # What is not known calls for nothing.
        ([None] * 100, "normal"),
        ([HIGH] * UP.enter + [None] * UP.leave, "normal"),
    ],
)
def test_samples_lead_to_a_level(shares: list[float | None], level: Level) -> None:
    """It takes samples in a row to come to a level and to leave it."""
    assert (["normal", *levels(shares)])[-1] == level


@pytest.mark.parametrize("name", THRESHOLDS)
def test_each_input_alone_is_enough(name: Any) -> None:
    """Any one input brings about each level that it has a threshold for, and no other."""
    threshold = THRESHOLDS[name]
    load = LoadLevel(THRESHOLDS, THRESHOLDS)
    others = {other: 0.0 for other in THRESHOLDS if other != name}
    for _ in range(100):
        load.sample({**others, name: 1e9})
    assert load.level == ("elevated" if threshold.critical is None else "critical")


def test_inputs_that_do_not_count_are_not_looked_at() -> None:
    """The lag of the lanes is no business of the machine that watches the process."""
    load = LoadLevel(THRESHOLDS, OWN_INPUTS)
    assert {load.sample({"lane_lag": 1e9}) for _ in range(100)} == {"normal"}
    assert set(THRESHOLDS) == OWN_INPUTS | LANES_INPUTS


def test_critical_alone_calls_for_elevated_first() -> None:
    """An input without a threshold of elevated still goes one step at a time."""
    load = LoadLevel(with_bounds({"cpu": (None, 0.5)}), OWN_INPUTS)
    assert [load.sample({"cpu": 0.6}) for _ in range(99)][UP.enter - 1] == "elevated"
    assert load.level == "critical"


shares = st.lists(st.floats(0, 1.2), max_size=300)


@given(shares)
def test_it_goes_one_step_at_a_time_and_not_soon_again(given_shares: list[float]) -> None:
    """No two steps at once, and between two steps as many samples as the second one takes."""
    found: list[Level] = ["normal", *levels(given_shares)]
    since = 0
    for before, after in itertools.pairwise(found):
        since += 1
        if before == after:
            continue
        step = LEVELS.index(after) - LEVELS.index(before)
        assert abs(step) == 1
        assert since >= (STEPS[after].enter if step > 0 else STEPS[before].leave)
        since = 0


@given(
    start=st.sampled_from([0, UP.enter, UP.enter + TOP.enter]),
    within=st.lists(st.floats(0, 1), max_size=200),
)
def test_it_never_moves_within_the_hysteresis(start: int, within: list[float]) -> None:
    """Samples between leaving and entering change nothing, in whatever order they come."""
    load = LoadLevel(THRESHOLDS, OWN_INPUTS)
    for _ in range(start):
        load.sample({"memory": EXTREME})
    level = load.level
    bound = {"normal": 0.85, "elevated": 0.95, "critical": 2.0}[level]
    low = {"normal": 0.0, "elevated": 0.85, "critical": 0.95}[level] * LEAVE_SHARE
    for share in within:
        assert load.sample({"memory": min(low + share * (bound - low), bound - 1e-9)}) == level


@given(shares)
def test_rising_samples_never_lower_the_level(given_shares: list[float]) -> None:
    """Inputs that only rise give a level that only rises, and the other way round."""
    found = [LEVELS.index(level) for level in levels(sorted(given_shares))]
    assert found == sorted(found)
    load = LoadLevel(THRESHOLDS, OWN_INPUTS)
    for _ in range(100):
        load.sample({"memory": EXTREME})
    falling = sorted(given_shares, reverse=True)
    places = [LEVELS.index(load.sample({"memory": share})) for share in falling]
    assert places == sorted(places, reverse=True)


@given(shares, st.floats(0, 0.5))
def test_more_load_never_gives_a_lower_end(given_shares: list[float], more: float) -> None:
    """After the same last samples, long enough, who had more before is not below who had less."""
    last = given_shares[-1] if given_shares else 0.0
    tail = [last] * (UP.enter + TOP.enter)
    less = levels([*given_shares, *tail])[-1]
    greater = levels([share + more for share in [*given_shares, *tail]])[-1]
    assert LEVELS.index(greater) >= LEVELS.index(less)


@pytest.mark.parametrize(
    ("gateways", "level"),
    [
        ([], "normal"),
        (["critical"], "critical"),
        (["critical", "normal"], "critical"),
        (["critical", "normal", "normal"], "normal"),
        (["critical", "elevated", "normal", "normal"], "elevated"),
        (["critical", "critical", "normal"], "critical"),
        (["critical", *["normal"] * 9], "normal"),
    ],
)
def test_the_fleet_has_what_half_of_it_has(gateways: list[Level], level: Level) -> None:
    """One gateway of many that is in trouble pauses nothing."""
    assert fleet_level(gateways) == level


def test_a_level_can_be_capped() -> None:
    """The lower of two."""
    assert at_most("critical", "elevated") == "elevated"
    assert at_most("normal", "elevated") == "normal"


def test_thresholds_are_in_order() -> None:
    """Critical is above elevated by more than the hysteresis, and each input has a threshold."""
    for name, threshold in THRESHOLDS.items():
        assert limit_of(threshold, "elevated") is not None, name
        if threshold.elevated is not None and threshold.critical is not None:
            assert threshold.critical * LEAVE_SHARE > threshold.elevated, name


@pytest.mark.parametrize(
    "bounds", [{"disk": (1, 2)}, {"cpu": (0, 1)}, {"cpu": (float("nan"), 1)}, {"memory": (2, 1)}]
)
def test_bounds_that_make_no_sense_are_refused(bounds: Any) -> None:
    """A mistyped input, or bounds in the wrong order, are no thresholds."""
    with pytest.raises(ValueError, match=next(iter(bounds))):
        with_bounds(bounds)


def test_a_lag_is_what_a_worker_says() -> None:
    """By its name, in seconds."""
    assert lag_said(b'{"worker": "a", "lag_seconds": 1.5, "more": 1}') == ("a", 1.5)


@pytest.mark.parametrize("lag", ["NaN", "Infinity", "1e999", "1e10", "-1", "1" + 400 * "0", "[]"])
def test_what_is_no_lag_is_ignored(lag: str) -> None:
    """Not a number, not finite, below 0, or of thirty years."""
    assert lag_said(b'{"worker": "a", "lag_seconds": %s}' % lag.encode()) is None


@pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000])
def test_what_is_no_announcement_is_ignored(payload: bytes) -> None:
    """Of another release, or of nobody of ours."""
    assert lag_said(payload) is None


def test_low_is_paused_by_turns() -> None:
    """A minute, then not for a minute, for as long as the fleet is critical; else never."""
    assert not pauses_low(None)
    minutes = [[pauses_low(60 * minute + second) for second in (0, 59.9)] for minute in range(4)]
    assert minutes == [[True, True], [False, False]] * 2


def test_the_gateways_say_when_low_is_paused() -> None:
    """Whenever a worker was started, by the gateway that has been critical for longest."""
    now = 1_000.0
    for seconds, paused in [(0, True), (59, True), (60, False), (119, False), (120, True)]:
        fleet = FleetLoad(clock=lambda: now)
        for gateway, since in (("a", seconds), ("b", 0)):
            said = b'{"gateway": "%s", "level": "critical", "critical_seconds": %d}'
            fleet._on_announcement(b"", b"", b"", said % (gateway.encode(), since))
        assert fleet.pauses_low == paused


def test_low_is_paused_for_half_of_a_critical_day() -> None:
    """Also where the gateways do not say for how long; and anew when it was over meanwhile."""
    now = 0.0
    fleet = FleetLoad(clock=lambda: now)

    def paused(level: bytes) -> bool:
        fleet._on_announcement(b"", b"", b"", b'{"gateway": "a", "level": "%s"}' % level)
        return fleet.pauses_low

    by_second = []
    while now < 86_400:
        by_second.append(paused(b"critical"))
        now += 1
    assert sum(by_second) == 43_200
    assert by_second[:121] == [True] * 60 + [False] * 60 + [True]
    now += 70
    assert not paused(b"elevated")
    assert paused(b"critical")


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("5.5", 5.5), ("NaN", None), ("1e999", None), ("-1", None), ("1e10", None)],
)
def test_what_a_gateway_says(said: str, seconds: float | None) -> None:
    """Its level counts, also where its time cannot be."""
    payload = b'{"gateway": "a", "level": "critical", "critical_seconds": %s}' % said.encode()
    assert level_said(payload) == ("a", "critical", seconds)


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"{}", b'{"gateway": "a", "level": "high"}', b'{"gateway": "a", "level": []}'],
)
def test_what_no_gateway_says_is_ignored(payload: bytes) -> None:
    """Of another release, or of nobody of ours."""
    assert level_said(payload) is None
