"""A cache's entries: what is kept of a value, and when it is served, made again, or gone."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livefeed.cache import (
    MICROSECONDS,
    SHARED_FACTOR,
    SHARED_LIFE_SECONDS_MAX,
    Entry,
    Lifetime,
    age_seconds,
    brought_near,
    decode,
    encode,
    is_young,
    lives_as_long,
    spread,
    verdict,
)
from livefeed.errors import Misconfigured
from livefeed.limits import CACHE_CLOCK_SECONDS_MAX, CACHE_FRESH_SECONDS_MAX, CACHE_STALE_SECONDS
from livefeed.settings import load_settings

LIFETIME = Lifetime(60.0, 3600.0)
MADE_AT = 1_700_000_000
Entries = st.builds(
    Entry,
    st.binary(max_size=64),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1).map(lambda number: number / MICROSECONDS),
    st.integers(0, 2**32 - 1).map(lambda number: number / 1000),
)


def entry(**fields: float) -> Entry:
    """An entry made at MADE_AT."""
    return Entry(b"value", MADE_AT * MICROSECONDS, fields.pop("load_seconds", 0.1), **fields)


def at(age: float, one: Entry | None = None, chance: float = 1.0) -> str:
    """The verdict at an age."""
    return verdict(one or entry(), LIFETIME, now=MADE_AT + age, chance=chance)


@given(one=Entries)
def test_an_entry_comes_back_as_it_was(one: Entry) -> None:
    """What was encoded is decoded."""
    assert decode(encode(one)) == one


def test_what_does_not_fit_is_the_most_that_does() -> None:
    """A load of years, or one that was held for years, still makes an entry."""
    found = decode(encode(Entry(b"", 1, 1e9, 1e9)))
    assert found is not None
    assert found.load_seconds == pytest.approx(2**32 / MICROSECONDS)


@given(one=Entries, data=st.data())
def test_a_part_of_an_entry_is_none(one: Entry, data: st.DataObject) -> None:
    """Wherever it is cut off, and whatever is added to it."""
    stored = encode(one)
    assert decode(stored[: data.draw(st.integers(0, len(stored) - 1))]) is None
    assert decode(stored + data.draw(st.binary(min_size=1, max_size=8))) is None


@given(stored=st.one_of(st.binary(max_size=64), st.none(), st.text(), st.integers()))
def test_what_others_put_there_is_no_entry(stored: object) -> None:
    """Other programs' bytes, and what is not bytes at all."""
    assert decode(stored) is None


@given(one=Entries, place=st.integers(0, 19), bit=st.integers(0, 7))
def test_a_head_with_a_wrong_bit_is_no_entry(one: Entry, place: int, bit: int) -> None:
    """A time that was not said is not believed."""
    stored = bytearray(encode(one))
    stored[place] ^= 1 << bit
    assert decode(bytes(stored)) is None


def test_it_is_fresh_then_stale_then_gone() -> None:
    """The times are those of its lifetime."""
    assert [at(age) for age in (0, 59.9, 60, 3659.9, 3660)] == [
        "fresh",
        "fresh",
        "stale",
        "stale",
        "gone",
    ]


def test_it_is_made_again_early_by_chance() -> None:
    """The likelier, the nearer its end is and the longer it takes to make."""
    early = -0.1 * math.log(0.01)
    assert at(60 - early - 0.001, chance=0.01) == "fresh"
    assert at(60 - early + 0.001, chance=0.01) == "refresh_early"
    assert at(60 - early + 0.001, entry(load_seconds=0.05), chance=0.01) == "fresh"
    assert at(59.999, entry(load_seconds=0.0), chance=1e-9) == "fresh"


@pytest.mark.parametrize("chance", [0.0, -1.0, 2.0])
def test_no_chance_is_out_of_bounds(chance: float) -> None:
    """A random number that is exactly 0, or no chance at all, is not an error."""
    assert at(1.0, chance=chance) == "fresh"


def test_an_entry_out_of_a_farther_cache_is_fresh_from_now_on() -> None:
    """It is as old as it is, but its time here begins when it comes."""
    held = brought_near(
        entry(), "fresh", there=Lifetime(300.0, 3600.0), here=LIFETIME, now=MADE_AT + 200.0
    )
    assert [at(200 + age, held) for age in (0, 59.9, 60, 3660)] == [
        "fresh",
        "fresh",
        "stale",
        "gone",
    ]
    assert age_seconds(held, MADE_AT + 210.0) == 210.0


def test_what_is_stale_in_a_farther_cache_is_as_stale_here() -> None:
    """It ends here when it ends there; twice carried is as once."""
    farther, between = Lifetime(3_600.0, 3_600.0), Lifetime(300.0, 3_600.0)
    for there in (entry(), entry(held_seconds=50.0)):
        near = as_stale(there, farther, LIFETIME)
        assert near == as_stale(as_stale(there, farther, between), between, LIFETIME)
        for age in (3_600.0, 3_650.0, 5_000.0, 7_199.0, 7_200.0, 7_249.0, 7_250.0):
            far = verdict(there, farther, now=MADE_AT + age, chance=1.0)
            assert at(age, near) == far


def as_stale(one: Entry, there: Lifetime, here: Lifetime) -> Entry:
    """One that was found stale, brought near."""
    return brought_near(one, "stale", there=there, here=here, now=MADE_AT + 4_000.0)


def test_what_is_there_is_put_there_again_only_for_a_longer_life() -> None:
    """Another one always is, an older one too: who brings it has looked."""
    has = entry(held_seconds=50.0)
    assert lives_as_long(has, entry(held_seconds=50.0))
    assert lives_as_long(has, entry(held_seconds=50.9))
    assert not lives_as_long(has, entry(held_seconds=51.1))
    assert lives_as_long(has, entry())
    assert not lives_as_long(None, entry())
    assert not lives_as_long(has, has._replace(made_at=has.made_at + 1))


def test_a_clock_that_is_ahead_is_believed_for_seconds_only() -> None:
    """Made a little later than now it is new; much later, nobody knows how old it is: it is made
    again, and served meanwhile."""
    assert at(-CACHE_CLOCK_SECONDS_MAX) == "fresh"
    assert at(-CACHE_CLOCK_SECONDS_MAX - 0.1) == "stale"
    assert at(-1e9) == "stale"
    assert age_seconds(entry(), MADE_AT - 1.0) == 0.0
    made_at = entry().made_at
    assert is_young(entry(), made_at, MADE_AT - CACHE_CLOCK_SECONDS_MAX)
    assert not is_young(entry(), made_at, MADE_AT - CACHE_CLOCK_SECONDS_MAX - 0.1)
    assert not is_young(entry(), made_at + 1, MADE_AT)
    assert is_young(entry(), -1, MADE_AT - 1e9)


@given(key=st.text())
def test_a_lifetime_is_spread_by_a_tenth(key: str) -> None:
    """Neither part by more, and for one key always the same."""
    mine = spread(LIFETIME, key)
    assert mine == spread(LIFETIME, key)
    assert 54.0 <= mine.fresh_seconds <= 66.0
    assert mine.stale_seconds / mine.fresh_seconds == pytest.approx(60.0)


@given(key=st.text())
def test_no_setting_outlives_the_shared_cache(key: str) -> None:
    """The bucket keeps nothing for longer than this: no entry may be of use after it."""
    with pytest.raises(Misconfigured):
        load_settings(snapshot_fresh_seconds=CACHE_FRESH_SECONDS_MAX + 1)
    settings = load_settings(snapshot_fresh_seconds=CACHE_FRESH_SECONDS_MAX)
    fresh_seconds = settings.snapshot_fresh_seconds * SHARED_FACTOR
    assert sum(spread(Lifetime(fresh_seconds, CACHE_STALE_SECONDS), key)) < SHARED_LIFE_SECONDS_MAX


def test_keys_made_together_do_not_end_together() -> None:
    """Of a thousand keys about as many end in each tenth of the spread."""
    ends = [spread(LIFETIME, f"user:{number}/home").fresh_seconds for number in range(1_000)]
    tenths = [sum(54 + 1.2 * n <= end < 55.2 + 1.2 * n for end in ends) for n in range(10)]
    assert min(tenths) > 60
