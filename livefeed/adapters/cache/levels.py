"""Caches one behind the other, and what they do not have is made once for all who ask for it.

The nearest is asked by each caller. The rest is one task for each key: it asks the farther ones,
makes the value where it has to, and puts it everywhere. Callers wait for that task, within their
deadlines; it does not end with any of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple, get_args

from aiocache.base import BaseCache

from livefeed.adapters.cache.flight import Failures, Flight, Found, Load, afresh, made_in_time
from livefeed.adapters.patience import patient_timeout
from livefeed.breaker import Attempt, Breaker
from livefeed.cache import (
    MICROSECONDS,
    Entry,
    Lifetime,
    Verdict,
    age_seconds,
    brought_near,
    decode,
    encode,
    is_young,
    lives_as_long,
    spread,
    verdict,
)
from livefeed.errors import Overloaded, Unavailable
from livefeed.limits import (
    CACHE_CALL_SECONDS_MAX,
    CACHE_FLIGHTS_MAX,
    CACHE_WRITES_AT_ONCE,
)
from livefeed.protocol import ERRORS

logger = logging.getLogger(__name__)

Outcome = Literal["hit", "stale", "miss", "error", "refused"]

OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
LOADS: Final = ("started", "joined", "failed")
CLOSE_SECONDS_MAX: Final = 2.0
"""How long what runs may take to end when it is cancelled."""


class Level(NamedTuple):
    """One cache, and how long what is in it is fresh and stale.

    The cache must give bytes back as they were put: aiocache's NullSerializer does.
    """

    name: str
    cache: BaseCache
    fresh_seconds: float
    stale_seconds: float
    breaker: Breaker

    def lifetime(self, key: str) -> Lifetime:
        """A key's own here."""
        return spread(Lifetime(self.fresh_seconds, self.stale_seconds), key)


class _Look(NamedTuple):
    """What a level has."""

    entry: Entry
    verdict: Verdict
    found: Found


class Levels:
    """The nearest cache first, then the farther ones, then the load.

    Args:
        levels: The nearest first; there is one at least.
        wall: Seconds since 1970, by which entries are dated.
        clock: Monotonic seconds, for breakers and failures.
        chance: 0..1, another one each time.
        loads_max: Most loads at once.
        factor: By how much everything is fresh for longer now.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        *,
        wall: Callable[[], float],
        clock: Callable[[], float],
        chance: Callable[[], float],
        loads_max: int,
        factor: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._levels = tuple(levels)
        self._wall = wall
        self._clock = clock
        self._chance = chance
        self._factor = factor
        self._turns = asyncio.Semaphore(loads_max)
        self._flights: dict[str, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = Failures()
        self._writes: Counter[str] = Counter()
        self._closed = False
        self.counts: dict[tuple[str, str], int] = {
            (level.name, outcome): 0 for level in levels for outcome in OUTCOMES
        } | {("load", what): 0 for what in LOADS}
        """By the name of a level and what came of asking it or putting something there, `refused`
        being what was not taken; `load` by what became of it, and how many callers joined a look-up
        that was on its way."""
        self._away: set[str] = set()
        """The levels that are left alone, which was said."""

    async def get(
        self, key: str, load: Load, *, deadline_seconds: float, age_max: float | None = None
    ) -> Found:
        """The value: fresh, or stale while it is made again or cannot be made.

        Args:
            key: Which one.
            load: Makes it, in a task of its own.
            deadline_seconds: How long the caller waits.
            age_max: How many seconds old it may be, fresh or not, unless it cannot be made.

        Raises:
            Unavailable: Nothing came within the deadline.
            Overloaded: Too much is being loaded to begin with this within the deadline.
            Exception: What the load raised, if only a moment ago.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + deadline_seconds
        look = await self._look(self._levels[0], key, min(CACHE_CALL_SECONDS_MAX, deadline_seconds))
        made_at = -1 if age_max is None else round((self._wall() - age_max) * MICROSECONDS)
        if look is None:
            return await self._wait(key, self._join(key, load, made_at), ends_at - loop.time())
        if not is_young(look.entry, made_at, self._wall()):
            try:
                flight = self._join(key, load, made_at)
                found = await self._wait(key, flight, ends_at - loop.time())
            except Exception:  # noqa: BLE001 - it cannot be made now, whatever it is
                found = look.found
            younger = min(found, look.found, key=lambda one: one.age_seconds)
            return replace(younger, stale=True) if younger is look.found else younger
        if look.verdict != "fresh":
            self._refresh(key, load, look.entry)
        return look.found

    def described(self) -> dict[str, Any]:
        """For people: of each level what it is, its breaker's state and its counts; then the loads.

        Nothing of any key is in it.
        """
        levels = [
            {"name": level.name, "kind": level.cache.NAME, "breaker": level.breaker.state}
            | {outcome: self.counts[level.name, outcome] for outcome in OUTCOMES}
            for level in self._levels
        ]
        return {"levels": levels, "loads": {what: self.counts["load", what] for what in LOADS}}

    async def close(self) -> None:
        """Cancel what runs, of which whoever waits gets Unavailable, and close the caches.

        A load that does not end when it is told to is not waited for.
        """
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS_MAX)
        for level in self._levels:
            await level.cache.close()

    # Callers and their flights.

    def _join(self, key: str, load: Load, made_at: int) -> Flight:
        flight = self._flights.get(key)
        if flight is not None and flight.takes(made_at):
            self.counts["load", "joined"] += 1
            return flight
        if self._closed:
            raise Unavailable("cache", "it is closed")
        if len(self._tasks) >= CACHE_FLIGHTS_MAX:
            raise Overloaded("busy", ERRORS["busy"])
        return self._start(key, load, made_at=made_at)

    def _refresh(self, key: str, load: Load, entry: Entry) -> None:
        """Make it again behind the caller, unless that is going on, has just failed, or is one too
        many."""
        if (
            key not in self._flights
            and self._failures.recent(key, self._clock()) is None
            and len(self._tasks) < CACHE_FLIGHTS_MAX
            and not self._closed
        ):
            self._start(key, load, made_at=entry.made_at, nearest=entry)

    def _start(self, key: str, load: Load, *, made_at: int, nearest: Entry | None = None) -> Flight:
        flight = self._flights[key] = Flight(made_at)
        flying = self._fly(key, load, flight, nearest)
        task = asyncio.create_task(flying, name="cache-flight")
        flight.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return flight

    async def _wait(self, key: str, flight: Flight, seconds: float) -> Found:
        try:
            found = await flight.wait(seconds)
        finally:
            wanted = flight.answered or flight.waiting or flight.stage == "loading"
            if not wanted and flight.task is not None:
                # Nobody wants it any more, and it has cost nothing yet.
                self._land(key, flight)
                flight.task.cancel()
        if found is not None:
            return found
        if flight.stage == "queued":
            raise Overloaded("busy", ERRORS["busy"])
        raise Unavailable("cache", f"nothing came within {seconds:.3g} s")

    def _land(self, key: str, flight: Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    # What a flight does.

    async def _fly(self, key: str, load: Load, flight: Flight, nearest: Entry | None) -> None:
        try:
            if not await self._find(key, flight, nearest):
                await self._make(key, load, flight)
        except Exception as error:  # noqa: BLE001 - those who wait get it, whatever it is
            flight.fail(afresh(error))
        finally:
            flight.fail(Unavailable("cache", "it is closed"))
            self._land(key, flight)

    async def _find(self, key: str, flight: Flight, nearest: Entry | None) -> bool:
        """Ask the farther levels; whether one has it fresh."""
        there = {} if nearest is None else {0: nearest}
        for number, level in enumerate(self._levels):
            if number == 0 and flight.made_at >= 0:
                continue  # What it has is too old.
            # The nearest was asked: but another flight may have ended between that and this one.
            look = await self._look(level, key, counted=number > 0)
            if look is None:
                continue
            if not is_young(look.entry, flight.made_at, self._wall()):
                flight.remember(look.found)
                continue
            flight.offer(look.found, look.entry.made_at)
            there[number] = look.entry
            await self._bring_near(key, number, look, there)
            if look.verdict == "fresh":
                return True
        return False

    async def _bring_near(
        self, key: str, number: int, look: _Look, there: Mapping[int, Entry]
    ) -> None:
        """Put what a level has into the nearer ones, for those who come while it is made too."""
        far, now = self._lifetime(self._levels[number], key), self._wall()
        for nearer, level in enumerate(self._levels[:number]):
            near = self._lifetime(level, key)
            entry = brought_near(look.entry, look.verdict, there=far, here=near, now=now)
            # While it cannot be made it is found as stale each time: once put there is enough.
            if not lives_as_long(there.get(nearer), entry):
                await self._put([level], key, entry)

    async def _make(self, key: str, load: Load, flight: Flight) -> None:
        self._raise_recent(key)
        if self._turns.locked() and (flight.answered or not flight.waiting):
            # Those who wait come first; what is stale is asked for again.
            raise Overloaded("busy", ERRORS["busy"])
        flight.stage = "queued"
        async with self._turns:
            # Another flight, for those who wanted it younger, may have failed meanwhile.
            self._raise_recent(key)
            flight.loads(round(self._wall() * MICROSECONDS))
            entry = await self._load(key, load)
        flight.offer(Found(entry.value, 0.0, "loaded", stale=False), entry.made_at)
        # The callers have it: none of them waits for this.
        await self._put(self._levels, key, entry)

    def _raise_recent(self, key: str) -> None:
        error = self._failures.recent(key, self._clock())
        if error is not None:
            raise afresh(error)

    async def _load(self, key: str, load: Load) -> Entry:
        self.counts["load", "started"] += 1
        began, made_at = self._clock(), self._wall()
        try:
            value = await made_in_time(load)
        except Exception as error:
            self.counts["load", "failed"] += 1
            logger.debug("a load failed", exc_info=error)
            self._failures.note(key, afresh(error), self._clock())
            raise
        return Entry(value, round(made_at * MICROSECONDS), max(0.0, self._clock() - began))

    # One level.

    async def _look(
        self,
        level: Level,
        key: str,
        seconds: float = CACHE_CALL_SECONDS_MAX,
        *,
        counted: bool = True,
    ) -> _Look | None:
        """What it has that may be served; an error is as good as nothing."""
        done, stored = await self._call(level, lambda: level.cache.get(key), seconds)
        look = self._judge(level, key, decode(stored))
        outcome: Outcome = "error" if not done else "miss" if look is None else "hit"
        if look is not None and look.found.stale:
            outcome = "stale"
        self.counts[level.name, outcome] += counted
        return look

    def _judge(self, level: Level, key: str, entry: Entry | None) -> _Look | None:
        if entry is None:
            return None
        now = self._wall()
        decided = verdict(entry, self._lifetime(level, key), now=now, chance=self._chance())
        if decided == "gone":
            return None
        age = age_seconds(entry, now)
        return _Look(entry, decided, Found(entry.value, age, level.name, decided == "stale"))

    def _lifetime(self, level: Level, key: str) -> Lifetime:
        """A key's own, as long as it is now."""
        lifetime = level.lifetime(key)
        return lifetime._replace(fresh_seconds=lifetime.fresh_seconds * self._factor())

    async def _put(self, levels: Sequence[Level], key: str, entry: Entry) -> None:
        """Put it into each, the nearest first."""
        stored = encode(entry)
        for level in levels:
            outcome = await self._put_one(level, key, stored)
            if outcome is not None:
                self.counts[level.name, outcome] += 1

    async def _put_one(self, level: Level, key: str, stored: bytes) -> Outcome | None:
        """Put it into one; why it is not there, or None."""
        if self._writes[level.name] >= CACHE_WRITES_AT_ONCE:
            return "refused"
        ttl = sum(level.lifetime(key))
        self._writes[level.name] += 1
        try:
            done, kept = await self._call(
                level, lambda: level.cache.set(key, stored, ttl=ttl), CACHE_CALL_SECONDS_MAX
            )
        finally:
            self._writes[level.name] -= 1
        if not done:
            return "error"
        # A cache that refuses, for example because it is full, is well: it is asked on.
        return "refused" if kept is False else None

    async def _call(
        self, level: Level, call: Callable[[], Awaitable[object]], seconds: float
    ) -> tuple[bool, object]:
        """Whether a cache answered, and what; it is not asked while its breaker is open."""
        allowed = level.breaker.begin(self._clock())
        if allowed is None:
            return False, None
        try:
            with Attempt(allowed, self._clock, self._chance):
                async with patient_timeout(seconds):
                    answer = await call()
        except Exception as error:  # noqa: BLE001 - any fault of a cache is a miss
            self._say_away(level, error)
            return False, None
        if level.name in self._away:
            self._away.discard(level.name)
            logger.info("the %s cache (%s) is used again", level.name, level.cache.NAME)
        return True, answer

    def _say_away(self, level: Level, error: Exception) -> None:
        """Warn once for each time that a level's breaker opens."""
        reason = str(error) or type(error).__name__
        logger.debug("cache %s: %s", level.name, reason)
        if level.breaker.state == "open" and level.name not in self._away:
            self._away.add(level.name)
            sentence = "the %s cache (%s) is left alone until it answers: %s"
            logger.warning(sentence, level.name, level.cache.NAME, reason)
