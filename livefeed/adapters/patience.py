"""Waiting with a deadline, on a loop that may itself be late.

A loop that was busy with something else for a while has not looked at what came meanwhile, and its
timers are due: a server that answered in a millisecond would be found not to have answered in time,
by hundreds of callers at once. So a deadline that is noticed late is put off once, by as much.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final

LATE_SECONDS_MIN: Final = 0.02
"""A timer that is later than this was held up."""
GRACE_SECONDS_MAX: Final = 0.25
"""A deadline is put off by no more."""


class patient_timeout:  # noqa: N801 - used like `asyncio.timeout`
    """As `asyncio.timeout`: raises TimeoutError when what is inside takes longer.

    Args:
        seconds: How long it may take, from the entry on.
    """

    __slots__ = ("_cancelling", "_due_at", "_expired", "_loop", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._expired = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._due_at = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._due_at, self._due)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if (
            self._expired
            and self._task.uncancel() <= self._cancelling
            and (kind is asyncio.CancelledError)
        ):
            raise TimeoutError from error

    def _due(self) -> None:
        grace = _grace(self._loop.time() - self._due_at)
        if grace:
            self._timer = self._loop.call_later(grace, self._over)
        else:
            self._over()

    def _over(self) -> None:
        self._expired = True
        self._task.cancel()


async def patient_wait(future: asyncio.Future[Any], seconds: float) -> bool:
    """Wait until a future is done, at most so long; whether it is. It is not cancelled."""
    loop = asyncio.get_running_loop()
    due_at = loop.time() + seconds
    await asyncio.wait({future}, timeout=max(0.0, seconds))
    grace = 0.0 if future.done() else _grace(loop.time() - due_at)
    if grace:
        await asyncio.wait({future}, timeout=grace)
    return future.done()


def _grace(late: float) -> float:
    """How much longer to wait when a deadline was noticed late."""
    return min(late, GRACE_SECONDS_MAX) if late > LATE_SECONDS_MIN else 0.0
