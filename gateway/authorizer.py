"""Whether a user may follow a feed, beside the token's claim: asks the function of an operator."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from livefeed.access import Principal
from livefeed.errors import AccessRefused, Unavailable
from livefeed.identity import is_feed
from livefeed.limits import (
    AUTHORIZE_AT_ONCE,
    AUTHORIZE_SECONDS_MAX,
    AUTHORIZED_MAX,
    AUTHORIZED_SECONDS,
)
from livefeed.protocol import ERRORS

WARNING_SECONDS: Final = 1.0
FAULT_CHARACTERS_MAX: Final = 300

logger = logging.getLogger(__name__)

Authorize = Callable[[str, str], Awaitable[Any]]
"""Of a user id and a feed; only True is a yes."""


class Authorizer:
    """Asks about each user and feed, and believes the answer for a while.

    An answer that does not come, or is no bool, is no answer: the feed is `unavailable`. It fails
    closed, and such a failure is not remembered.

    Args:
        authorize: The function; None where the claim alone decides.
        clock: Monotonic seconds.
    """

    def __init__(self, authorize: Authorize | None, *, clock: Callable[[], float]) -> None:
        self._authorize = authorize
        self._clock = clock
        self._answers: dict[tuple[str, str], tuple[bool, float]] = {}
        """The oldest first, each with when it was given."""
        self._asking: dict[tuple[str, str], asyncio.Task[bool | None]] = {}
        self._turns = asyncio.Semaphore(AUTHORIZE_AT_ONCE)
        self._warned_at = -WARNING_SECONDS

    async def refusals(self, principal: Principal, feeds: Iterable[str]) -> dict[str, str]:
        """Error codes by feed, of those that it refuses; the claim's own are not asked about."""
        if self._authorize is None:
            return {}
        asked = [feed for feed in dict.fromkeys(feeds) if is_feed(feed)]
        asked = [feed for feed in asked if principal.may_follow(feed)]
        codes = await asyncio.gather(*(self._code(principal.user_id, feed) for feed in asked))
        return {feed: code for feed, code in zip(asked, codes, strict=True) if code is not None}

    async def require(self, principal: Principal, feed: str) -> None:
        """Raises AccessRefused or Unavailable unless the token and the function allow a feed."""
        code = None if principal.may_follow(feed) else "feed_forbidden"
        code = code or (await self.refusals(principal, [feed])).get(feed)
        if code == "unavailable":
            raise Unavailable("authorizer", f"it does not say who may follow {feed}")
        if code is not None:
            raise AccessRefused(code, ERRORS[code])

    async def _code(self, user_id: str, feed: str) -> str | None:
        allowed = self._remembered(user_id, feed)
        if allowed is None:
            allowed = await self._asked(user_id, feed)
        return "unavailable" if allowed is None else None if allowed else "feed_forbidden"

    async def _asked(self, user_id: str, feed: str) -> bool | None:
        """Its answer, asked for once for all who want to know it now; None where there is none."""
        place = (user_id, feed)
        if place not in self._asking:
            task = asyncio.create_task(self._learn(user_id, feed), name="authorize")
            self._asking[place] = task
            task.add_done_callback(lambda _: self._asking.pop(place))
        asking = self._asking[place]
        # Not with the task: whoever asked first may go away, the others still want to know.
        await asyncio.wait({asking})
        return asking.result()

    async def _learn(self, user_id: str, feed: str) -> bool | None:
        try:
            allowed = await self._ask(user_id, feed)
        except Unavailable as error:
            self._warn(error)
            return None
        self._remember(user_id, feed, allowed=allowed)
        return allowed

    async def _ask(self, user_id: str, feed: str) -> bool:
        assert self._authorize is not None
        try:
            async with asyncio.timeout(AUTHORIZE_SECONDS_MAX), self._turns:
                allowed = await self._authorize(user_id, feed)
        except TimeoutError as error:
            detail = f"no answer within {AUTHORIZE_SECONDS_MAX:g} s"
            raise Unavailable("authorizer", detail) from error
        except Exception as error:
            # The code of whoever runs this livefeed: whatever it raises, nobody gets in by it.
            raise Unavailable("authorizer", repr(error)[:FAULT_CHARACTERS_MAX]) from error
        if not isinstance(allowed, bool):
            raise Unavailable("authorizer", f"it must return a bool, not {type(allowed).__name__}")
        return allowed

    def _remembered(self, user_id: str, feed: str) -> bool | None:
        answer, now = self._answers.get((user_id, feed)), self._clock()
        return answer[0] if answer and now - answer[1] < AUTHORIZED_SECONDS else None

    def _remember(self, user_id: str, feed: str, *, allowed: bool) -> None:
        self._answers.pop((user_id, feed), None)
        self._answers[user_id, feed] = (allowed, self._clock())
        if len(self._answers) > AUTHORIZED_MAX:
            del self._answers[next(iter(self._answers))]

    def _warn(self, error: Unavailable) -> None:
        # Once a second: ten thousand clients may ask in it.
        if self._clock() - self._warned_at >= WARNING_SECONDS:
            self._warned_at = self._clock()
            logger.warning("the authorizer refuses for now: %s", error)
