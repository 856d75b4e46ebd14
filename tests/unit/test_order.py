"""Of any two updates of a facet one is newer, and everybody finds the same one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from livefeed.order import VERSION_MAX, OrderKey, microseconds, order_key
from tests.reference_log import order_keys

REF = bytes(range(16))

offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(
    datetime(2, 1, 1),  # noqa: DTZ001 - the bounds have no zone, what is drawn has one
    datetime(9998, 1, 1),  # noqa: DTZ001
    timezones=offsets,
)


def as_bytes(key: OrderKey) -> bytes:
    """The same order written down as bytes: the sign of the version turned, its high byte first."""
    return bytes([key.explicit]) + (key.version + 2**63).to_bytes(8, "big") + key.ref


@given(order_keys, order_keys)
def test_keys_are_ordered_from_left_to_right(one: OrderKey, other: OrderKey) -> None:
    """Explicit, then version, then ref as unsigned bytes; only equal keys are equal."""
    assert (one < other) == (as_bytes(one) < as_bytes(other))
    assert (one == other) == (as_bytes(one) == as_bytes(other))
    assert (one < other) + (other < one) + (one == other) == 1


@given(st.integers(0, VERSION_MAX), moments)
def test_a_version_beats_every_clock(version: int, moment: datetime) -> None:
    """An update with a version, be it 0, is newer than any without one."""
    clocked = order_key(version=None, timestamp_microseconds=microseconds(moment), ref=b"\xff" * 16)
    versioned = order_key(version=version, timestamp_microseconds=0, ref=b"\0" * 16)
    assert clocked < versioned
    assert versioned == (1, version, b"\0" * 16)


def test_a_version_makes_the_clock_meaningless() -> None:
    """With a version the timestamp decides nothing; without one it is what decides."""
    assert order_key(version=3, timestamp_microseconds=9, ref=REF) == (1, 3, REF)
    assert order_key(version=None, timestamp_microseconds=9, ref=REF) == (0, 9, REF)


def test_equal_clocks_are_decided_by_the_ref() -> None:
    """Two updates of one microsecond have an order, by their refs."""
    keys = [
        order_key(version=None, timestamp_microseconds=1, ref=bytes([n] * 16)) for n in (0, 200)
    ]
    assert keys[0] < keys[1]


@given(moments)
def test_microseconds_are_exact(moment: datetime) -> None:
    """No microsecond is lost on the way, before 1970 neither, whatever the zone."""
    found = microseconds(moment)
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=found) == moment
    assert microseconds(moment + timedelta(microseconds=1)) == found + 1
