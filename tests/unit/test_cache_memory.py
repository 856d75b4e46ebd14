"""The cache in memory: what goes when there is too much, and what is given out no more."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livefeed.adapters.cache import memory
from livefeed.adapters.cache.memory import ENTRY_BYTES, BoundedMemoryCache
from livefeed.limits import MIB


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def cache(clock: Clock | None = None, **bounds: int) -> BoundedMemoryCache:
    return BoundedMemoryCache(clock=clock or Clock(), **bounds)


async def test_what_was_not_asked_for_longest_goes_first() -> None:
    """A read counts as much as a write."""
    kept = cache(entries_max=3)
    for key in "abc":
        await kept.set(key, key.encode())
    await kept.get("a")
    await kept.set("d", b"d")
    assert await kept.multi_get(["a", "b", "c", "d"]) == [b"a", None, b"c", b"d"]
    assert (kept.entries, kept.evictions) == (3, 1)
    assert (kept.hits, kept.misses) == (4, 1)


async def test_bytes_are_bounded_and_counted() -> None:
    """Old ones make room for a large one, and nothing is left of the count in the end."""
    kept = cache(bytes_max=20 * (ENTRY_BYTES + 1_000))
    for number in range(50):
        await kept.set(str(number), bytes(1_000))
        assert kept.bytes_kept <= 20 * (ENTRY_BYTES + 1_000)
    before = kept.entries
    assert 15 < before <= 20
    await kept.set("large", bytes(6_000))
    assert kept.entries < before
    for number in range(50):
        await kept.delete(str(number))
    assert await kept.delete("large") == 1
    assert await kept.delete("large") == 0
    assert (kept.bytes_kept, kept.entries) == (0, 0)


async def test_a_value_for_which_all_others_would_go_is_not_kept() -> None:
    """And the older value of its key is not either: it is older."""
    kept = cache(bytes_max=40_000)
    await kept.set("other", b"other")
    await kept.set("key", b"small")
    assert not await kept.set("key", bytes(10_000))
    assert await kept.multi_get(["key", "other"]) == [None, b"other"]


async def test_a_value_ends_with_its_time() -> None:
    """It is not given out from then on, also when nothing took it out."""
    clock = Clock()
    kept = cache(clock)
    await kept.set("key", b"value", ttl=10.0)
    await kept.set("for ever", b"value")
    clock.now += 9.9
    assert await kept.exists("key")
    clock.now += 0.1
    assert not await kept.exists("key")
    assert await kept.get("key") is None
    clock.now += 1e6
    assert await kept.get("for ever") == b"value"


async def test_a_new_value_has_its_own_time() -> None:
    """The end of the one that it replaced means nothing: aiocache's timers would take it out."""
    clock = Clock()
    kept = cache(clock)
    await kept.set("key", b"old", ttl=10.0)
    await kept.set("cleared", b"old", ttl=10.0)
    await kept.clear()
    assert kept._ends.next_at() is None
    await kept.set("key", b"new", ttl=100.0)
    await kept.set("cleared", b"new")
    clock.now += 50.0
    kept.sweep(100)
    assert await kept.multi_get(["key", "cleared"]) == [b"new", b"new"]


async def test_writes_take_out_what_is_past_its_time() -> None:
    """Nobody has to ask for it, and no timer is needed."""
    clock = Clock()
    kept = cache(clock)
    for number in range(100):
        await kept.set(str(number), b"value", ttl=1.0)
    clock.now += 1.0
    for number in range(20):
        await kept.set(f"new {number}", b"value", ttl=1.0)
    assert kept.entries == 20
    assert kept.evictions == 0


async def test_a_time_can_be_moved() -> None:
    """Later, or taken away; of what is not there it cannot."""
    clock = Clock()
    kept = cache(clock)
    await kept.set("later", b"value", ttl=1.0)
    await kept.set("never", b"value", ttl=1.0)
    assert await kept.expire("later", 5.0)
    assert await kept.expire("never", 0)
    assert not await kept.expire("absent", 5.0)
    clock.now += 4.9
    kept.sweep(100)
    assert await kept.multi_get(["later", "never"]) == [b"value", b"value"]
    clock.now += 0.1
    assert await kept.multi_get(["later", "never"]) == [None, b"value"]


async def test_it_shrinks_to_a_share() -> None:
    """What was asked for last stays; nothing stays of 0."""
    kept = cache()
    for number in range(100):
        await kept.set(str(number), bytes(1_000), ttl=10.0)
    await kept.get("0")
    before = kept.bytes_kept
    assert kept.shrink(0.25) == pytest.approx(before * 0.75, rel=0.05)
    assert await kept.exists("0")
    assert await kept.exists("99")
    assert not await kept.exists("1")
    assert kept.shrink(0.0) > 0
    assert (kept.entries, kept.bytes_kept) == (0, 0)


async def test_only_bytes_are_kept() -> None:
    """Whoever changes a list would change the cache."""
    with pytest.raises(TypeError, match="bytes"):
        await cache().set("key", ["value"])


async def test_what_is_there_is_not_added() -> None:
    """As aiocache has it: ValueError."""
    clock = Clock()
    kept = cache(clock)
    assert await kept.add("key", b"one", ttl=1.0)
    with pytest.raises(ValueError, match="there already"):
        await kept.add("key", b"two")
    clock.now += 1.0
    assert await kept.add("key", b"two")


async def test_a_flood_of_keys_leaves_memory_flat() -> None:
    """Of 200,000 distinct keys as many stay as the bound has room for, by the system's measure."""
    kept = cache(bytes_max=8 * MIB, entries_max=1_000_000)
    tracemalloc.start()
    try:
        for number in range(200_000):
            await kept.set(f"user:{number}/home", b"%d" % number * 20, ttl=60.0 + number % 7)
        held, highest = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.entries + kept.evictions == 200_000
    assert kept.entries > 8_000
    assert kept.bytes_kept <= 8 * MIB
    assert held < 9 * MIB
    assert highest < 10 * MIB


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["set", "get", "delete", "expire", "wait", "shrink"]),
            st.sampled_from("abcdef"),
            st.integers(0, 900),
        ),
        max_size=40,
    )
)
async def test_it_gives_out_what_was_put_last_or_nothing(
    steps: list[tuple[str, str, int]],
) -> None:
    """Whatever is done in whatever order; its count of bytes is that of what it has."""
    clock = Clock()
    kept = cache(clock, bytes_max=5_000, entries_max=4)
    model: dict[str, tuple[bytes, float]] = {}
    for step, key, number in steps:
        if step == "set":
            ended = clock.now + (number % 5 or 1e9)
            stored = await kept.set(key, bytes(number), ttl=number % 5 or None)
            model[key] = (bytes(number), ended if stored else 0.0)
        elif step == "get":
            found = await kept.get(key)
            value, ends_at = model.get(key, (None, 0.0))
            assert found is None or (found == value and clock.now < ends_at)
        elif step == "delete":
            await kept.delete(key)
            model.pop(key, None)
        elif step == "expire" and await kept.expire(key, number % 5 + 1):
            model[key] = (model[key][0], clock.now + number % 5 + 1)
        elif step == "shrink":
            kept.shrink(number / 900)
        clock.now += number % 3 if step == "wait" else 0
        there = kept._kept.items()
        assert kept.bytes_kept == sum(memory._size(name, one.value) for name, one in there)
        assert kept.bytes_kept <= 5_000
        assert kept.entries <= 4
