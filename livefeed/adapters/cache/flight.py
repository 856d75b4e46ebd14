"""One look-up of a key that all who ask for it share, and what failed a moment ago."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from livefeed.adapters.patience import patient_wait
from livefeed.errors import Unavailable
from livefeed.limits import CACHE_FAILURE_SECONDS, CACHE_FAILURES_MAX, CACHE_LOAD_SECONDS_MAX

Failure = TypeVar("Failure", bound=BaseException)
Load = Callable[[], Awaitable[bytes]]
Stage = Literal["looking", "queued", "loading"]


@dataclass(frozen=True, slots=True)
class Found:
    """A value, and where it comes from."""

    value: bytes
    age_seconds: float
    level: str
    """The cache's name, or `loaded`."""
    stale: bool
    """Past its time: it is being made again, or cannot be made now."""


class Flight:
    """A task that looks a key up and may make its value, and those who wait for it.

    The first value that is young enough is given to all who wait, if stale; what comes later
    replaces it. One that is too old is given when there will be no other.

    Args:
        made_at: Nothing older is wanted, in microseconds since 1970; -1 where nobody minds.
    """

    __slots__ = ("_answer", "_loads_from", "_older", "made_at", "stage", "task", "waiting")

    def __init__(self, made_at: int = -1) -> None:
        self._answer: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._answer.add_done_callback(_seen)
        self._loads_from = -1
        self._older: Found | None = None
        self.made_at = made_at
        """Nothing older is wanted; -1 where nobody minds."""
        self.task: asyncio.Task[None] | None = None
        self.waiting = 0
        self.stage: Stage = "looking"
        """It asks caches; it waits for its turn to load; it has had it."""

    @property
    def answered(self) -> bool:
        """Whether there is something for those who wait."""
        return self._answer.done()

    def takes(self, made_at: int) -> bool:
        """Whether somebody who comes now, and wants nothing older, can wait for it too.

        What it has not found yet will be as young as that.
        """
        if made_at <= self.made_at:
            return True
        if self.answered:
            return False
        if self.stage == "loading":
            return self._loads_from >= made_at
        self.made_at = made_at
        return True

    def loads(self, now: int) -> None:
        """The value is being made, from what there is now, in microseconds since 1970."""
        self.stage = "loading"
        self._loads_from = now

    def offer(self, found: Found, made_at: int) -> None:
        """Give a value to those who wait and who come, in the place of an earlier one."""
        if self._answer.done():
            self._answer = asyncio.get_running_loop().create_future()
        self._answer.set_result(found)
        self.made_at = made_at

    def remember(self, older: Found) -> None:
        """This is too old, and better than nothing."""
        if self._older is None or older.age_seconds < self._older.age_seconds:
            self._older = replace(older, stale=True)

    def fail(self, error: Exception) -> None:
        """Give the error to those who have nothing, unless there is something too old."""
        if self._answer.done():
            return
        if self._older is not None:
            self._answer.set_result(self._older)
        else:
            self._answer.set_exception(error)

    async def wait(self, seconds: float) -> Found | None:
        """The value, or None when none came in time; raises what the look-up raised.

        Who is cancelled meanwhile takes nothing from the others.
        """
        self.waiting += 1
        try:
            await patient_wait(self._answer, seconds)
        finally:
            self.waiting -= 1
        if not self._answer.done():
            return self._older
        error = self._answer.exception()
        if error is not None:
            raise afresh(error)
        return self._answer.result()


class Failures:
    """What could not be made a moment ago, and why: so many keys, the newest."""

    def __init__(self) -> None:
        self._errors: dict[str, tuple[Exception, float]] = {}
        """The oldest first, each with until when it counts."""

    def note(self, key: str, error: Exception, now: float) -> None:
        """It failed now; `now` is monotonic. What counts no more is forgotten."""
        self._errors.pop(key, None)
        while self._errors and now >= next(iter(self._errors.values()))[1]:
            self._forget_oldest()
        self._errors[key] = (error, now + CACHE_FAILURE_SECONDS)
        if len(self._errors) > CACHE_FAILURES_MAX:
            self._forget_oldest()

    def recent(self, key: str, now: float) -> Exception | None:
        """Why it is not tried again yet."""
        error, until = self._errors.get(key, (None, 0.0))
        if error is not None and now >= until:
            del self._errors[key]
            return None
        return error

    def _forget_oldest(self) -> None:
        del self._errors[next(iter(self._errors))]


def afresh(error: Failure) -> Failure:
    """An error to keep, or to raise once more, without its trace and its causes: they hold every
    frame on their way, and the trace grows with all who are given it."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


async def made_in_time(load: Load) -> bytes:
    """What a load makes, within its bound.

    Raises:
        Unavailable: It takes longer, or what it waits for was cancelled.
        Exception: What the load raised.
    """
    limit = asyncio.timeout(CACHE_LOAD_SECONDS_MAX)
    try:
        async with limit:
            return await load()
    except TimeoutError as error:
        if not limit.expired():
            raise
        detail = f"it was not made within {CACHE_LOAD_SECONDS_MAX:g} s"
        raise Unavailable("cache", detail) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Something that it waits for was cancelled, not this: those who wait have to be told.
        raise Unavailable("cache", "what makes it was cancelled") from error


def _seen(answer: asyncio.Future[Found]) -> None:
    # Nobody may be there to take an error.
    if not answer.cancelled():
        answer.exception()
