"""One look-up of a key that all who ask for it share, and what failed a moment ago."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

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

    The first usable value is given to all who wait, if stale; what comes later replaces it.

    Args:
        began_at: Now, in microseconds since 1970.
        made_at: What is older is not wanted.
    """

    __slots__ = ("_answer", "began_at", "made_at", "stage", "task", "waiting")

    def __init__(self, began_at: int = 0, made_at: int = -1) -> None:
        self._answer: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._answer.add_done_callback(_seen)
        self.began_at = began_at
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

    def suits(self, made_at: int) -> bool:
        """Whether what it will have is young enough for somebody who comes now."""
        return made_at < 0 or (self.made_at >= 0 and self.began_at >= made_at)

    def offer(self, found: Found) -> None:
        """Give a value to those who wait and who come, in the place of an earlier one."""
        if self._answer.done():
            self._answer = asyncio.get_running_loop().create_future()
        self._answer.set_result(found)

    def fail(self, error: Exception) -> None:
        """Give the error to those who have nothing."""
        if not self._answer.done():
            self._answer.set_exception(error)

    async def wait(self, seconds: float) -> Found | None:
        """The value, or None when it did not come in time; raises what the look-up raised.

        Who is cancelled meanwhile takes nothing from the others.
        """
        self.waiting += 1
        try:
            await asyncio.wait({self._answer}, timeout=max(0.0, seconds))
        finally:
            self.waiting -= 1
        if not self._answer.done():
            return None
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
    """An error to keep, or to raise once more, without its trace: that holds every frame on its
    way, and grows with all who are given it."""
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
