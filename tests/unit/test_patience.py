"""A deadline on a loop that is late: what came in time is not taken for late."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import pytest

from livefeed.adapters.patience import GRACE_SECONDS_MAX, patient_timeout, patient_wait

SECONDS = 0.05
Waits = Callable[[asyncio.Future[None]], Awaitable[None]]


async def by_timeout(future: asyncio.Future[None]) -> None:
    async with patient_timeout(SECONDS):
        await future


async def by_wait(future: asyncio.Future[None]) -> None:
    if not await patient_wait(future, SECONDS):
        raise TimeoutError


both = pytest.mark.parametrize("waits", [by_timeout, by_wait])


async def answer(future: asyncio.Future[None], passes: int = 5) -> None:
    """Come within no time, but over several turns of the loop, as through a driver."""
    for _ in range(passes):
        await asyncio.sleep(0)
    future.set_result(None)


@both
async def test_what_came_while_the_loop_was_busy_counts(waits: Waits) -> None:
    """Where `asyncio.timeout` finds that it did not."""
    for patient in (True, False):
        future = asyncio.get_running_loop().create_future()
        wait = waits(future) if patient else asyncio.wait_for(asyncio.shield(future), SECONDS)
        waiting = asyncio.ensure_future(wait)
        await asyncio.sleep(0)
        answering = asyncio.create_task(answer(future))
        time.sleep(2 * SECONDS)  # noqa: ASYNC251 - the loop is busy
        if patient:
            await waiting
        else:
            with pytest.raises(TimeoutError):
                await waiting
        await answering


@both
async def test_what_does_not_come_is_late(waits: Waits) -> None:
    """In time on a loop that is in time; a moment later on one that was busy, without an end."""
    for busy, most in ((0.0, 0.5), (2 * SECONDS, 0.5 + GRACE_SECONDS_MAX)):
        future = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(waits(future))
        await asyncio.sleep(0)
        time.sleep(busy)  # noqa: ASYNC251
        began_at = time.monotonic()
        with pytest.raises(TimeoutError):
            await waiting
        assert time.monotonic() - began_at < most


async def test_a_timeout_takes_no_cancellation_for_its_own() -> None:
    """Whoever is cancelled inside is cancelled; and what was raised inside comes out."""
    future = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(by_timeout(future))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(LookupError):
        async with patient_timeout(SECONDS):
            raise LookupError
    with pytest.raises(TimeoutError):
        async with patient_timeout(10.0), patient_timeout(0.0):
            await asyncio.sleep(1.0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_it_ends_after_what_it_waits_for_has_caught_the_end() -> None:
    """As with `asyncio.timeout`: code that makes something else of the cancellation decides."""
    async with patient_timeout(0.0):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1.0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
