"""Caches behind each other: what is loaded how often, and who waits for what, on moved clocks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import time
import traceback
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiocache.base import BaseCache
from aiocache.serializers import NullSerializer
from hypothesis import given, settings
from hypothesis import strategies as st

from livefeed.adapters.cache import flight, levels
from livefeed.adapters.cache.levels import Level, Levels
from livefeed.adapters.cache.memory import BoundedMemoryCache
from livefeed.breaker import Breaker, BreakerPolicy
from livefeed.cache import MICROSECONDS, Entry, encode
from livefeed.errors import Overloaded, Unavailable
from livefeed.limits import MIB
from tests.servers import until

KEY = "epoch/user:alice/home"
WAIT = 5.0
POLICY = BreakerPolicy(failures_to_open=3, open_seconds_min=1.0, open_seconds_max=4.0)


class Shared(BaseCache):  # type: ignore[misc]
    """A far cache that can be slow, broken or full."""

    NAME = "shared"

    def __init__(self) -> None:
        super().__init__(serializer=NullSerializer(), timeout=None)
        self.values: dict[str, bytes] = {}
        self.gets = self.sets = 0
        self.writing = self.writing_most = 0
        self.fails = self.full = False
        self.go_get, self.go_set = asyncio.Event(), asyncio.Event()
        self.go_get.set()
        self.go_set.set()
        self.ttls: list[float] = []

    async def _get(self, key: str, **_: Any) -> bytes | None:
        self.gets += 1
        await self.go_get.wait()
        if self.fails:
            raise Unavailable("shared", "a test")
        return self.values.get(key)

    async def _set(self, key: str, value: bytes, ttl: float, **_: Any) -> bool:
        self.sets += 1
        self.writing += 1
        self.writing_most = max(self.writing, self.writing_most)
        try:
            await self.go_set.wait()
        finally:
            self.writing -= 1
        if self.fails:
            raise Unavailable("shared", "a test")
        self.ttls.append(ttl)
        if not self.full:
            self.values[key] = value
        return not self.full


class Loader:
    """Makes a value, when it may; knows how often."""

    def __init__(self) -> None:
        self.calls = self.running = self.running_most = 0
        self.error: BaseException | None = None
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self) -> bytes:
        self.calls += 1
        self.running += 1
        self.running_most = max(self.running, self.running_most)
        try:
            await asyncio.sleep(0)
            await self.go.wait()
        finally:
            self.running -= 1
        if self.error is not None:
            raise self.error
        return b"value %d" % self.calls


class Room:
    """Two levels, their clock, and a loader."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.factor = 1.0
        self.luck = 1.0
        """1: nothing is made again early."""
        self.memory = BoundedMemoryCache(clock=lambda: self.now)
        self.shared = Shared()
        self.breaker = Breaker(POLICY)
        self.load = Loader()
        self.levels = self.levels_of(
            Level("memory", self.memory, 60.0, 3600.0, Breaker()),
            Level("shared", self.shared, 300.0, 3600.0, self.breaker),
        )

    def with_table(self) -> Shared:
        """Have a third level, behind the shared one."""
        table = Shared()
        self.levels = self.levels_of(
            Level("memory", self.memory, 60.0, 3600.0, Breaker()),
            Level("shared", self.shared, 300.0, 3600.0, self.breaker),
            Level("table", table, 3600.0, 3600.0, Breaker()),
        )
        return table

    def levels_of(self, *given: Level, loads_max: int = 4) -> Levels:
        """Levels on this clock."""
        return Levels(
            given,
            wall=lambda: self.now,
            clock=lambda: self.now,
            chance=lambda: self.luck,
            loads_max=loads_max,
            factor=lambda: self.factor,
        )

    async def get(
        self, key: str = KEY, wait: float = WAIT, age_max: float | None = None
    ) -> levels.Found:
        return await self.levels.get(key, self.load, deadline_seconds=wait, age_max=age_max)

    async def settled(self) -> None:
        """Wait until nothing is on its way."""
        await until(lambda: not self.levels._tasks, what="all flights have landed")

    def count(self, name: str) -> dict[str, int]:
        """What is counted of a level, without zeros."""
        counts = self.levels.counts.items()
        return {what: number for (level, what), number in counts if level == name and number}

    def put(self, age: float, value: bytes = b"far", cache: Shared | None = None) -> None:
        """Have something in the shared cache, as another gateway would put it there."""
        made_at = round((self.now - age) * MICROSECONDS)
        (cache or self.shared).values[KEY] = encode(Entry(value, made_at, 0.0))


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    room = Room()
    yield room
    room.shared.go_get.set()
    room.shared.go_set.set()
    await room.levels.close()
    assert not room.levels._tasks
    assert not room.levels._flights
    assert not any(room.levels._writes.values())


# How old it may be.


async def test_under_load_everything_is_fresh_for_longer(room: Room) -> None:
    """As long as that lasts."""
    await room.get()
    room.now += 100
    room.factor = 2.0
    assert not (await room.get()).stale
    room.factor = 1.0
    assert (await room.get()).stale


async def test_who_wants_it_young_gets_it_young(room: Room) -> None:
    """Made anew, once for all who want the same; those who do not mind get what is there."""
    await room.get()
    await room.settled()
    room.now += 10
    assert (await room.get(age_max=20)).level == "memory"
    assert (await room.get()).level == "memory"
    room.load.go.clear()
    askers = [asyncio.create_task(room.get(age_max=5)) for _ in range(20)]
    await until(lambda: room.load.running, what="it is made")
    room.load.go.set()
    assert {(await asker).value for asker in askers} == {b"value 2"}
    assert room.load.calls == 2
    assert (await room.get()).value == b"value 2"


async def test_one_of_another_gateway_may_be_young_enough(room: Room) -> None:
    """What is too old there too is made."""
    await room.get()
    await room.settled()
    room.now += 100
    room.put(age=3)
    assert (await room.get(age_max=5)).value == b"far"
    await room.settled()
    room.now += 10
    assert (await room.get(age_max=5)).value == b"value 2"


async def test_who_wants_it_young_gets_the_old_one_when_that_fails(room: Room) -> None:
    """It is marked; and who has nothing gets the error."""
    await room.get()
    await room.settled()
    room.now += 10
    room.load.error = Unavailable("log", "a test")
    found = await room.get(age_max=5)
    assert (found.value, found.stale) == (b"value 1", True)
    with pytest.raises(Unavailable):
        await room.get("another", age_max=5)


async def test_a_page_that_only_others_have_is_better_than_none(room: Room) -> None:
    """Who wants it young, where it is not in the memory: too old and marked when it cannot be
    made, or takes longer than they wait."""
    room.put(age=20.0)
    room.load.error = Unavailable("log", "a test")
    found = await room.get(age_max=5)
    assert (found.value, found.stale) == (b"far", True)
    room.now += 2.0
    room.load.error = None
    room.load.go.clear()
    found = await room.get(age_max=5, wait=0.02)
    assert (found.value, found.stale, round(found.age_seconds)) == (b"far", True, 22)


async def test_who_joins_a_refresh_gets_it_as_young_as_wanted(room: Room) -> None:
    """What the refresh would have been content with is too old for them: it is made."""
    await room.get()
    await room.settled()
    room.now += 100.0
    room.put(age=50.0)
    room.shared.go_get.clear()
    assert (await room.get()).stale, "and it is being made again"
    asker = asyncio.create_task(room.get(age_max=5))
    await asyncio.sleep(0)
    room.shared.go_get.set()
    found = await asker
    assert (found.value, found.stale) == (b"value 2", False)
    assert (room.load.calls, room.shared.gets) == (2, 2)


async def test_many_who_want_it_as_it_is_now_cost_one_load(room: Room) -> None:
    """It begins when all of them have come; who comes while it runs gets the next one."""
    await room.get()
    await room.settled()
    microseconds = itertools.count(1)
    room.levels._wall = lambda: room.now + next(microseconds) / MICROSECONDS
    room.load.go.clear()
    askers = [asyncio.create_task(room.get(age_max=0.0)) for _ in range(1_000)]
    await until(lambda: room.load.running, what="it is made")
    later = [asyncio.create_task(room.get(age_max=0.0)) for _ in range(1_000)]
    await until(lambda: room.load.running == 2, what="it is made once more")
    room.load.go.set()
    assert {(await asker).value for asker in askers} <= {b"value 2", b"value 3"}
    assert len({(await asker).value for asker in later}) == 1
    assert room.load.calls == 3


# One load for all.


async def test_a_thousand_callers_cost_one_load(room: Room) -> None:
    """And one read of the shared cache."""
    found = await asyncio.gather(*(room.get() for _ in range(1_000)))
    assert {one.value for one in found} == {b"value 1"}
    assert {(one.level, one.stale) for one in found} == {("loaded", False)}
    assert (room.load.calls, room.shared.gets) == (1, 1)
    assert room.count("load") == {"started": 1, "joined": 999}


@pytest.mark.parametrize("who", ["first", "last"])
async def test_a_caller_that_hangs_up_takes_nothing_from_the_others(room: Room, who: str) -> None:
    """Whoever it is that began the load."""
    room.load.go.clear()
    callers = [asyncio.create_task(room.get()) for _ in range(10)]
    await until(lambda: room.load.calls, what="the load runs")
    gone = callers.pop(0 if who == "first" else -1)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert gone.cancelled()
    room.load.go.set()
    assert {one.value for one in await asyncio.gather(*callers)} == {b"value 1"}
    assert room.load.calls == 1


@pytest.mark.parametrize("stage", ["looking", "queued", "loading"])
@pytest.mark.parametrize("others", [0, 20])
async def test_the_first_may_hang_up_at_any_time(room: Room, stage: str, others: int) -> None:
    """The others have it by one load; without others only a load that has begun goes on."""
    room.load.go.clear()
    holders = []
    if stage == "queued":
        holders = [asyncio.create_task(room.get(str(number))) for number in range(4)]
        await until(lambda: room.load.running == 4, what="all turns are taken")
    elif stage == "looking":
        room.shared.go_get.clear()
    first, *rest = [asyncio.create_task(room.get()) for _ in range(1 + others)]
    await until(lambda: KEY in room.levels._flights, what="it is on its way")
    flight = room.levels._flights[KEY]
    await until(lambda: flight.stage == stage, what=f"it is {stage}")
    await until(lambda: flight.waiting == 1 + others, what="all of them wait")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    goes_on = others > 0 or stage == "loading"
    assert (KEY in room.levels._flights) == goes_on
    room.shared.go_get.set()
    room.load.go.set()
    assert len({one.value for one in await asyncio.gather(*rest)}) == min(others, 1)
    await asyncio.gather(*holders)
    await room.settled()
    assert room.load.calls == len(holders) + goes_on
    assert room.breaker.state == "closed"


async def test_a_load_goes_on_without_its_callers(room: Room) -> None:
    """It has begun: the next who comes has it."""
    room.load.go.clear()
    with pytest.raises(Unavailable, match="nothing came"):
        await room.get(wait=0.02)
    room.load.go.set()
    assert (await room.get()).value == b"value 1"
    assert room.load.calls == 1


async def test_slow_look_ups_of_the_nearest_do_not_load_twice(room: Room) -> None:
    """Also who asked before the value came, and was answered after it, does not make it again."""
    room.levels = room.levels_of(Level("shared", room.shared, 300.0, 3600.0, Breaker()))
    early = [asyncio.create_task(room.get()) for _ in range(2)]
    room.shared.go_get.clear()
    await asyncio.sleep(0)
    get, room.shared.values = room.shared._get, {}

    async def late(key: str, **_: Any) -> bytes | None:
        """Answers with what was there when it was asked."""
        found = room.shared.values.get(key)
        await room.shared.go_get.wait()
        return found

    room.shared._get = late  # type: ignore[method-assign]
    slow = [asyncio.create_task(room.get()) for _ in range(5)]
    await asyncio.sleep(0)
    room.shared._get = get  # type: ignore[method-assign]
    held, room.shared.go_get = room.shared.go_get, asyncio.Event()
    room.shared.go_get.set()
    assert (await room.get()).value == b"value 1"
    await until(lambda: room.shared.values, what="it is kept")
    held.set()
    room.shared.go_get.set()
    found = await asyncio.gather(*early, *slow)
    assert {one.value for one in found} == {b"value 1"}
    assert room.load.calls == 1


# From level to level.


async def test_a_new_value_is_in_every_level(room: Room) -> None:
    """The nearest is asked first, and alone while it has it."""
    await room.get()
    await room.settled()
    found = await room.get()
    assert (found.value, found.level, found.stale) == (b"value 1", "memory", False)
    assert (room.load.calls, room.shared.gets, room.shared.sets) == (1, 1, 1)
    await room.memory.clear()
    room.now += 30.0
    found = await room.get()
    assert (found.value, found.level, found.age_seconds) == (b"value 1", "shared", 30.0)
    assert room.count("memory") == {"miss": 2, "hit": 1}
    assert room.count("shared") == {"miss": 1, "hit": 1}


async def test_a_find_is_fresh_in_the_nearer_level(room: Room) -> None:
    """For as long as one that was made here; its age is its own."""
    room.put(age=200.0)
    assert (await room.get()).level == "shared"
    await room.settled()
    room.now += 50.0
    found = await room.get()
    assert (found.level, found.age_seconds, found.stale) == ("memory", 250.0, False)
    assert room.shared.gets == 1
    assert room.load.calls == 0


async def test_keys_end_at_different_times_and_are_kept_until_they_are_gone(room: Room) -> None:
    """A tenth around the lifetime, given to the cache as well."""
    await asyncio.gather(*(room.get(f"user:{number}") for number in range(50)))
    await room.settled()
    assert 3_510 <= min(room.shared.ttls) < 3_700
    assert 4_050 < max(room.shared.ttls) <= 4_290
    room.now += 60.0
    found = await asyncio.gather(*(room.get(f"user:{number}") for number in range(50)))
    assert 10 < sum(one.stale for one in found) < 40


async def test_what_others_put_there_is_a_miss(room: Room) -> None:
    """Bytes of another program are not served."""
    room.shared.values[KEY] = b"what is this"
    assert (await room.get()).level == "loaded"
    assert room.count("shared") == {"miss": 1}


async def test_a_level_that_has_it_is_asked_although_it_could_not_be_made(room: Room) -> None:
    """Where the memory does not keep it, or had to give it up a moment ago."""
    room.put(age=500.0)
    room.load.error = RuntimeError("away")
    for _ in range(5):
        found = await room.get()
        assert (found.value, found.stale) == (b"far", True)
        await room.settled()
        room.memory.shrink(0.0)
        room.now += 0.1
    assert room.load.calls == 1


async def test_a_clock_that_is_set_back_makes_no_page_an_error(room: Room) -> None:
    """Nobody knows how old they are: they are served as stale, and made again where they can be."""
    await room.get()
    await room.settled()
    room.now -= 7_200.0
    room.load.error = RuntimeError("away")
    found = await room.get()
    assert (found.value, found.stale) == (b"value 1", True)
    await room.settled()
    found = await room.get(age_max=5)
    assert (found.value, found.stale) == (b"value 1", True)
    room.now += 1.0
    room.load.error = None
    assert (await room.get(age_max=5)).value == b"value 3"
    await room.settled()
    found = await room.get()
    assert (found.value, found.stale, found.level) == (b"value 3", False, "memory")


# Stale, and early.


async def test_a_stale_value_is_served_while_it_is_made_again(room: Room) -> None:
    """At once, by one load for all who ask meanwhile; then all have the new one."""
    await room.get()
    await room.settled()
    room.now += 400.0
    room.load.go.clear()
    found = await asyncio.gather(*(room.get(wait=0.5) for _ in range(100)))
    assert {(one.value, one.stale) for one in found} == {(b"value 1", True)}
    await until(lambda: room.load.calls == 2, what="it is made again")
    await asyncio.gather(*(room.get() for _ in range(100)))
    room.load.go.set()
    await room.settled()
    assert (await room.get()).value == b"value 2"
    assert room.load.calls == 2
    assert room.count("memory") == {"miss": 1, "stale": 200, "hit": 1}


async def test_a_stale_value_is_made_new_by_a_farther_level(room: Room) -> None:
    """Another gateway has made it: nothing is loaded."""
    await room.get()
    await room.settled()
    room.now += 100.0
    room.put(age=10.0)
    assert (await room.get()).value == b"value 1"
    await room.settled()
    found = await room.get()
    assert (found.value, found.level, found.stale) == (b"far", "memory", False)
    assert room.load.calls == 1


async def test_an_older_value_does_not_replace_a_newer_one(room: Room) -> None:
    """What the shared cache has may be older than what is here: it is made again."""
    await room.get()
    await room.settled()
    room.now += 100.0
    room.put(age=150.0)
    await room.get()
    await room.settled()
    assert (await room.get()).value == b"value 2"


async def test_a_stale_value_of_the_shared_level_is_served_at_once(room: Room) -> None:
    """With nothing nearer and a load that hangs; also to those who come later."""
    room.put(age=500.0)
    room.load.go.clear()
    for _ in range(2):
        found = await room.get(wait=0.5)
        assert (found.value, found.stale) == (b"far", True)
    await until(lambda: room.load.calls, what="it is made again")
    await room.memory.clear()
    assert (await room.get(wait=0.5)).value == b"far"
    room.load.go.set()
    await room.settled()
    assert (await room.get()).value == b"value 1"


async def test_who_comes_while_it_is_written_gets_the_new_value(room: Room) -> None:
    """Also where the nearest does not keep it, and the flight had a stale one first."""
    room.levels = room.levels_of(
        Level("memory", BoundedMemoryCache(bytes_max=0), 60.0, 3600.0, Breaker()),
        Level("shared", room.shared, 300.0, 3600.0, room.breaker),
    )
    room.put(age=500.0)
    room.shared.go_set.clear()
    room.load.go.clear()
    assert (await room.get()).value == b"far"
    room.load.go.set()
    await until(lambda: room.shared.writing, what="the new value is written")
    assert (await room.get()).value == b"value 1"
    assert room.load.calls == 1
    room.shared.go_set.set()
    await room.settled()


async def test_a_value_is_made_again_early_once(room: Room) -> None:
    """Behind the caller, who has the fresh one; never twice at the same time."""
    await room.get()
    await room.settled()
    room.now += 50.0
    entry = Entry(b"slow", round((room.now - 50.0) * MICROSECONDS), 3.0)
    await room.memory.set(KEY, encode(entry))
    await room.shared.set(KEY, encode(entry._replace(made_at=1)))
    await room.get()
    await room.settled()
    assert room.load.calls == 1
    room.luck, room.load.go = 1e-9, asyncio.Event()
    found = await asyncio.gather(*(room.get() for _ in range(50)))
    assert {(one.value, one.stale) for one in found} == {(b"slow", False)}
    await until(lambda: room.load.calls == 2, what="it is made again")
    await asyncio.gather(*(room.get() for _ in range(50)))
    room.luck = 1.0
    room.load.go.set()
    await room.settled()
    assert (await room.get()).value == b"value 2"
    assert room.load.calls == 2


async def test_what_is_gone_is_not_served(room: Room) -> None:
    """An hour after its end, whatever goes wrong."""
    await room.get()
    await room.settled()
    room.now += 5_000.0
    room.load.error = RuntimeError("away")
    with pytest.raises(RuntimeError):
        await room.get()


# Loads that fail.


async def test_the_stale_value_is_served_when_it_cannot_be_made(room: Room) -> None:
    """It is tried once a second, however many ask."""
    await room.get()
    await room.settled()
    room.now += 400.0
    room.load.error = RuntimeError("away")
    for second in range(5):
        for _ in range(20):
            found = await room.get()
            assert (found.value, found.stale) == (b"value 1", True)
            await room.settled()
        assert room.load.calls == 2 + second
        room.now += 1.0
    room.load.error = None
    await room.get()
    await room.settled()
    assert (await room.get()).value == b"value 7"
    assert room.count("load") == {"started": 7, "failed": 5}


async def test_an_error_is_everybodys_for_a_second(room: Room) -> None:
    """The same one; the next second it is tried again."""
    room.load.error = LookupError("no such feed")
    for _ in range(3):
        found = await asyncio.gather(*(room.get() for _ in range(50)), return_exceptions=True)
        assert set(found) == {room.load.error}
        room.now += 0.25
    assert room.load.calls == 1
    room.now += 0.25
    with pytest.raises(LookupError):
        await room.get()
    assert room.load.calls == 2
    room.now += 1.0
    room.load.error = None
    assert (await room.get()).value == b"value 3"


async def test_an_error_does_not_grow_with_those_who_get_it(room: Room) -> None:
    """Each raise adds to its trace: without an end, and all that the frames hold stays."""
    room.load.error = LookupError("no such feed")
    for _ in range(100):
        with pytest.raises(LookupError) as raised:
            await room.get()
    assert len(traceback.extract_tb(raised.value.__traceback__)) < 10


async def test_an_error_that_is_kept_holds_nothing_else(room: Room) -> None:
    """Its cause has the frames of a driver, with all that is in them."""

    class Large:
        """Something in a frame."""

    seen: list[weakref.ref[Large]] = []

    async def fails() -> bytes:
        large = Large()
        seen.append(weakref.ref(large))
        try:
            raise OSError("the driver's")
        except OSError as error:
            raise Unavailable("log", "away") from error

    with pytest.raises(Unavailable):
        await room.levels.get(KEY, fails, deadline_seconds=WAIT)
    await room.settled()
    assert room.levels._failures.recent(KEY, room.now) is not None
    gc.collect()
    assert seen[0]() is None


async def test_those_who_want_it_now_ask_what_fails_once(room: Room) -> None:
    """Each of them may come after the load of before began: all of them together are one more."""
    room.load.go.clear()
    room.load.error = LookupError("no such feed")
    askers = []
    for _ in range(50):
        askers.append(asyncio.create_task(room.get(age_max=0.0)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        room.now += 0.001
    room.load.go.set()
    outcomes = await asyncio.gather(*askers, return_exceptions=True)
    assert {type(one) for one in outcomes} == {LookupError}
    assert room.load.calls <= 4, "as many as had a turn before the first one failed"


async def test_failures_are_bounded(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are remembered."""
    monkeypatch.setattr(flight, "CACHE_FAILURES_MAX", 10)
    room.load.error = LookupError("no such feed")
    for number in range(50):
        with pytest.raises(LookupError):
            await room.get(str(number))
    failures = room.levels._failures._errors
    assert len(failures) == 10
    with pytest.raises(LookupError):
        await room.get("49")
    assert room.load.calls == 50
    room.now += 1.0
    with pytest.raises(LookupError):
        await room.get("50")
    assert list(failures) == ["50"]


async def test_an_error_that_nobody_waits_for_is_no_noise(room: Room) -> None:
    """asyncio would log each as never retrieved."""
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    await room.get()
    await room.settled()
    room.now += 400.0
    room.shared.values.clear()
    room.load.error = RuntimeError("away")
    assert (await room.get()).stale
    await room.settled()
    gc.collect()
    assert room.load.calls == 2
    assert not said


async def test_a_load_that_is_cancelled_inside_is_an_error(room: Room) -> None:
    """Nobody waits for what will not come."""
    room.load.error = asyncio.CancelledError()
    began = time.monotonic()
    with pytest.raises(Unavailable, match="cancelled"):
        await room.get()
    assert time.monotonic() - began < 1.0


async def test_a_load_that_hangs_ends(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives its turn back, whoever still waits."""
    monkeypatch.setattr(flight, "CACHE_LOAD_SECONDS_MAX", 0.05)
    room.load.go.clear()
    with pytest.raises(Unavailable, match="not made within"):
        await room.get()
    assert room.load.running == 0


async def test_a_timeout_of_the_load_is_its_own(room: Room) -> None:
    """It is not taken for ours."""
    room.load.error = TimeoutError("the database's")
    with pytest.raises(TimeoutError, match="database"):
        await room.get()


# Too much at once.


async def test_loads_at_once_are_bounded_and_the_rest_waits(room: Room) -> None:
    """Each gets its turn within its deadline."""
    found = await asyncio.gather(*(room.get(str(number)) for number in range(100)))
    assert len(found) == 100
    assert room.load.running_most == 4


async def test_who_gets_no_turn_is_refused_and_costs_nothing(room: Room) -> None:
    """Those who load are Unavailable at their deadline; those who wait are Overloaded."""
    room.load.go.clear()
    outcomes = await asyncio.gather(
        *(room.get(str(number), 0.1) for number in range(10)), return_exceptions=True
    )
    kinds = [type(one) for one in outcomes]
    assert (kinds.count(Unavailable), kinds.count(Overloaded)) == (4, 6)
    room.load.go.set()
    await room.settled()
    assert room.load.calls == 4


async def test_flights_are_bounded(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """More keys than so many at once are refused at once, and none is left behind."""
    monkeypatch.setattr(levels, "CACHE_FLIGHTS_MAX", 10)
    room.shared.go_get.clear()
    callers = [asyncio.create_task(room.get(str(number))) for number in range(15)]
    await asyncio.sleep(0.01)
    refused = [caller for caller in callers if caller.done()]
    assert [type(caller.exception()) for caller in refused] == [Overloaded] * 5
    room.shared.go_get.set()
    await asyncio.gather(*callers, return_exceptions=True)
    await room.settled()
    assert not room.levels._flights


async def test_flights_of_one_key_are_bounded_too(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wants it younger than a load that hangs has one more begun; not without an end."""
    monkeypatch.setattr(levels, "CACHE_FLIGHTS_MAX", 3)
    room.load.go.clear()
    callers = []
    for _ in range(10):
        callers.append(asyncio.create_task(room.get(age_max=1.0)))
        await asyncio.sleep(0.01)
        room.now += 2.0
    assert room.load.running == 3
    refused = [caller for caller in callers if caller.done()]
    assert [type(caller.exception()) for caller in refused] == [Overloaded] * 7
    room.load.go.set()
    await asyncio.gather(*callers, return_exceptions=True)


async def test_a_flood_of_keys_leaves_nothing_behind(room: Room) -> None:
    """Each asked for once, some of them failing: what is kept of them has its bounds."""
    room.memory._bytes_max = 1 * MIB
    room.shared.full = True
    for batch in range(100):
        room.load.error = LookupError("no such feed") if batch % 10 == 0 else None
        keys = (f"user:{batch}:{number}" for number in range(200))
        await asyncio.gather(*map(room.get, keys), return_exceptions=True)
        assert len(room.levels._flights) <= 200
    await room.settled()
    assert room.load.calls == 20_000
    assert room.memory.bytes_kept <= 1 * MIB
    assert len(room.levels._failures._errors) == 2_000
    assert len(room.levels.counts) == 2 * len(levels.OUTCOMES) + len(levels.LOADS)
    assert not room.levels._flights


async def test_a_refresh_leaves_the_turns_to_those_who_wait(room: Room) -> None:
    """While all turns are taken the stale value is served, and nothing queues behind."""
    await room.get()
    await room.settled()
    room.now += 400.0
    room.load.go.clear()
    callers = [asyncio.create_task(room.get(str(number))) for number in range(4)]
    await until(lambda: room.load.running == 4, what="all turns are taken")
    assert (await room.get()).stale
    await until(lambda: KEY not in room.levels._flights, what="the refresh gave up")
    room.load.go.set()
    await asyncio.gather(*callers)
    await room.settled()
    assert room.load.calls == 5
    await room.get()
    await room.settled()
    assert not (await room.get()).stale


async def test_what_others_have_stale_does_not_queue_for_a_turn(room: Room) -> None:
    """Who asked for it has it: those who come after the loads that hang are not behind them."""
    room.load.go.clear()
    holders = [asyncio.create_task(room.get(str(number))) for number in range(4)]
    await until(lambda: room.load.running == 4, what="all turns are taken")
    for number in range(100):
        made_at = round((room.now - 500.0) * MICROSECONDS)
        room.shared.values[f"stale {number}"] = encode(Entry(b"far", made_at, 0.0))
        assert (await room.get(f"stale {number}")).value == b"far"
    await until(lambda: len(room.levels._tasks) == 4, what="they gave up")
    room.load.go.set()
    await asyncio.gather(*holders)
    await room.settled()
    assert room.load.calls == 4


# A level that fails.


async def test_a_broken_level_is_a_miss_and_is_left_alone(room: Room) -> None:
    """After three errors in a row; then exactly one probe finds out when it is back."""
    room.shared.fails = True
    for number in range(20):
        assert (await room.get(str(number))).level == "loaded"
    await room.settled()
    assert room.shared.gets + room.shared.sets == 3
    assert room.breaker.state == "open"
    assert room.count("shared") == {"error": 40}
    room.now += 1.6
    room.shared.go_get.clear()
    asked = room.shared.gets
    callers = [asyncio.create_task(room.get(f"probe {number}")) for number in range(20)]
    await asyncio.sleep(0.01)
    assert room.shared.gets == asked + 1
    room.shared.fails = False
    room.shared.go_get.set()
    await asyncio.gather(*callers)
    assert room.breaker.state == "closed"
    await room.settled()
    await room.get("after")
    assert room.count("shared")["miss"] == 2


async def test_it_is_said_once_that_a_level_is_left_alone(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    """And why, however many calls and probes fail; and when it is used again."""
    caplog.set_level("INFO", logger=levels.__name__)
    room.shared.fails = True
    for number in range(20):
        await room.get(str(number))
        await room.settled()
        room.now += 1.0
    warning = "the shared cache (shared) is left alone until it answers: shared is unavailable"
    assert caplog.text.count(warning) == 1
    room.shared.fails = False
    room.now += 10.0
    for number in range(5):
        await room.get(f"back {number}")
    await room.settled()
    assert caplog.text.count("the shared cache (shared) is used again") == 1
    assert len(caplog.records) == 2


async def test_what_people_are_shown_has_no_key(room: Room) -> None:
    """Of each level its kind, its breaker and its counts; how many loads there were."""
    room.shared.fails = True
    for _ in range(5):
        await room.get()
    for number in range(5):
        await room.get(str(number))
    await room.settled()
    shown = room.levels.described()
    memory, shared = shown["levels"]
    assert (memory["name"], memory["kind"], memory["breaker"]) == ("memory", "memory", "closed")
    assert (memory["hit"], memory["miss"]) == (4, 6)
    assert (shared["name"], shared["breaker"], shared["error"]) == ("shared", "open", 12)
    assert shown["loads"] == {"started": 6, "joined": 0, "failed": 0}
    assert "alice" not in str(shown)


async def test_a_level_that_hangs_is_an_error(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within its time; the value comes from the load."""
    monkeypatch.setattr(levels, "CACHE_CALL_SECONDS_MAX", 0.05)
    room.shared.go_get.clear()
    room.shared.go_set.clear()
    began = time.monotonic()
    assert (await room.get()).level == "loaded"
    assert time.monotonic() - began < 0.5
    await room.settled()
    assert room.count("shared") == {"error": 2}


async def test_a_level_that_is_not_waited_for_to_the_end_is_not_blamed(room: Room) -> None:
    """Callers who hang up say nothing about a cache; the look-up ends with the last of them."""
    room.shared.go_get.clear()
    for number in range(5):
        with pytest.raises(Unavailable):
            await room.get(str(number), 0.01)
    await room.settled()
    assert room.breaker.state == "closed"
    assert room.load.calls == 0
    room.shared.go_get.set()
    assert (await room.get("5")).level == "loaded"


async def test_nobody_waits_for_a_write(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value is there at once, and no more than so many writes go on."""
    monkeypatch.setattr(levels, "CACHE_WRITES_AT_ONCE", 10)
    room.shared.go_set.clear()
    began = time.monotonic()
    await asyncio.gather(*(room.get(str(number)) for number in range(30)))
    assert (await room.get("0")).level == "memory"
    assert time.monotonic() - began < levels.CACHE_CALL_SECONDS_MAX
    assert room.shared.writing_most == 10
    room.shared.go_set.set()
    await room.settled()
    assert room.count("shared") == {"miss": 30, "refused": 20}


async def test_a_full_level_is_counted_and_read_on(room: Room) -> None:
    """It refuses and is well: its breaker stays closed."""
    room.put(age=1.0)
    room.shared.full = True
    for number in range(10):
        await room.get(str(number))
    await room.settled()
    assert room.count("shared") == {"miss": 10, "refused": 10}
    assert room.breaker.state == "closed"
    assert (await room.get()).level == "shared"


# A third level, whose entries live longer.


async def test_a_third_level_has_it_when_the_second_is_empty(room: Room) -> None:
    """It is fresh in the nearer ones from then on, each for its own time; nothing is loaded."""
    table = room.with_table()
    await room.get()
    await room.settled()
    await room.memory.clear()
    room.shared.values.clear()
    room.now += 3_000.0
    found = await room.get()
    assert (found.level, found.age_seconds, found.stale) == ("table", 3_000.0, False)
    await room.settled()
    room.now += 50.0
    assert (await room.get()).level == "memory"
    await room.memory.clear()
    room.now += 200.0
    found = await room.get()
    assert (found.level, found.age_seconds, found.stale) == ("shared", 3_250.0, False)
    await room.settled()
    room.now += 50.0
    assert (await room.get()).level == "memory"
    assert (room.load.calls, table.gets) == (1, 2)


async def test_who_wants_it_young_is_not_given_the_third_levels(room: Room) -> None:
    """It is made, and kept there in place of the old one."""
    table = room.with_table()
    room.put(age=1_000.0, cache=table)
    assert (await room.get(age_max=5)).value == b"value 1"
    await room.settled()
    room.now += 1_000.0
    await room.memory.clear()
    room.shared.values.clear()
    found = await room.get()
    assert (found.value, found.level, found.age_seconds) == (b"value 1", "table", 1_000.0)


async def test_what_is_stale_in_the_third_level_is_as_stale_in_the_nearer_ones(room: Room) -> None:
    """It is sent as long as the third would send it, though it cannot be made; no longer."""
    table = room.with_table()
    room.put(age=5_000.0, cache=table)
    room.load.error = RuntimeError("away")
    ends_at = room.now - 5_000.0 + 2 * 3_600.0 * 0.9
    while room.now < ends_at:
        for _ in range(3):
            found = await room.get()
            assert (found.value, found.stale) == (b"far", True)
            await room.settled()
        room.now += 100.0
    assert room.load.calls > 10
    assert (room.shared.sets, table.sets) == (1, 0), "it is put there once"
    room.now += 2 * 3_600.0 * 0.2
    with pytest.raises(RuntimeError):
        await room.get()


async def test_what_ends_nearby_goes_on_with_the_farther_levels_time(room: Room) -> None:
    """Without a gap: the second after a load that failed nothing is looked for."""
    room.with_table()
    await room.get()
    await room.settled()
    room.load.error = RuntimeError("away")
    ends_at = room.now + sum(room.levels._levels[0].lifetime(KEY))
    for moment in (ends_at - 0.3, ends_at + 0.3):
        room.now = moment
        assert (await room.get()).stale
        await room.settled()


@given(
    st.lists(
        st.tuples(st.sampled_from(["memory", "shared", "nothing"]), st.floats(0.0, 1_500.0)),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from([1.0, 2.0]),
)
@settings(max_examples=200)
async def test_what_is_fresh_is_no_older_than_all_levels_allow(
    steps: list[tuple[str, float]], factor: float
) -> None:
    """Whatever is lost when, and whoever asks when: each level adds its own time once."""
    room = Room()
    room.with_table()
    room.factor = factor
    longest = 1.1 * factor * (60.0 + 300.0 + 3_600.0)
    for lost, pause in steps:
        found = await room.get()
        await room.settled()
        assert found.age_seconds <= longest + 1.1 * 3_600.0 * found.stale
        if lost == "memory":
            await room.memory.clear()
        elif lost == "shared":
            room.shared.values.clear()
        room.now += pause
    await room.levels.close()


# The end.


async def test_closing_ends_what_runs(room: Room) -> None:
    """Whoever waits is told; nothing begins afterwards, and what is near is still read."""
    await room.get("kept")
    room.load.go.clear()
    waiting = [asyncio.create_task(room.get(str(number))) for number in range(8)]
    await until(lambda: room.load.running == 4, what="the loads run")
    await room.levels.close()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(one) for one in outcomes} == {Unavailable}
    assert room.load.running == 0
    with pytest.raises(Unavailable, match="closed"):
        await room.get("later")
    assert (await room.get("kept")).level == "memory"
    room.now += 400.0
    assert (await room.get("kept")).stale
    assert not room.levels._tasks


async def test_closing_does_not_wait_for_what_does_not_end(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load may pass over that it is cancelled."""
    monkeypatch.setattr(levels, "CLOSE_SECONDS_MAX", 0.05)
    end = asyncio.Event()

    async def stubborn() -> bytes:
        while not end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await end.wait()
        return b"late"

    waiting = asyncio.create_task(room.levels.get(KEY, stubborn, deadline_seconds=0.2))
    await asyncio.sleep(0.01)
    async with asyncio.timeout(1.0):
        await room.levels.close()
    with pytest.raises(Unavailable):
        await waiting
    end.set()


async def test_a_hit_is_cheap(room: Room) -> None:
    """A printed figure; the bound is far from it."""
    await room.get()
    began, times = time.perf_counter(), 5_000
    for _ in range(times):
        await room.get()
    each = (time.perf_counter() - began) / times
    print(f"{each * 1e6:.1f} us")
    assert each < 0.001
