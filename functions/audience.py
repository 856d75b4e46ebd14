"""Who an update is for, and what is known about them: both asked in bulk, the second remembered.

What cannot be known of a recipient is never in the way of an update; who the recipients are, is.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from functions.lane_plan import Contexts
from livefeed.breaker import Attempt, Breaker
from livefeed.context import RecipientContext
from livefeed.errors import LivefeedError, Unavailable, UpdateRefused
from livefeed.identity import is_id
from livefeed.limits import CONTEXT_SECONDS, CONTEXTS_MAX

logger = logging.getLogger(__name__)

CONTEXTS_AT_ONCE: Final = 5_000
"""Recipients of one query."""

Recipient = tuple[str, str]
"""User and feed."""
ReadContexts = Callable[[Sequence[Recipient]], Awaitable[Sequence[RecipientContext]]]


class AudiencePage(NamedTuple):
    """What a resolver is asked for: the next of an actor's audience."""

    actor: str
    after: str
    """The last user of the page before; empty for the first."""
    limit: int
    removal: bool
    """Whether something is removed: that is for those who follow no more, too."""
    accepted_at: int
    """Microseconds since 1970. Who followed only later gets removals, but nothing else: what is
    removed already might come after its removal."""


AudienceResolver = Callable[[AudiencePage], Awaitable[Sequence[Any]]]
"""Returns at most `limit` user ids, in an order that does not change; fewer are the last."""


async def resolve(resolver: AudienceResolver, page: AudiencePage) -> list[str]:
    """A page of an audience.

    Raises:
        Unavailable: The resolver's source is away; the update waits.
        UpdateRefused: The resolver cannot say, or says what cannot be.
    """
    try:
        users = list(await resolver(page))
    except LivefeedError:
        raise
    except (OSError, TimeoutError) as error:
        raise Unavailable("audience resolver", repr(error)) from error
    except Exception as error:
        # The code of whoever runs this livefeed: what it raises for one actor must stop no other.
        logger.exception("the audience resolver failed for actor %r", page.actor)
        raise _cannot_say(f"failed: {error!r}") from error
    if len(users) > page.limit or (users and users[-1] == page.after):
        raise _cannot_say(f"returned {len(users)} users after {page.after!r}")
    if not all(isinstance(user, str) and is_id(user) for user in users):
        raise _cannot_say("returned what is no user id")
    return users


def _cannot_say(fault: str) -> UpdateRefused:
    return UpdateRefused("unsupported_audience", f"the audience resolver {fault}")


class ContextCache:
    """What was read about recipients in the last seconds.

    Two generations, so that no entry has a clock of its own: the younger becomes the older after a
    third of the time, or when half of the room is used, and is dropped when it is older than two.

    Args:
        read: Reads many at once; raises Unavailable.
        clock: Monotonic seconds.
        jitter: 0..1, random, spreads the probes of many workers.
    """

    def __init__(
        self,
        read: ReadContexts,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._read = read
        self._clock = clock
        self._jitter = jitter
        self._young: dict[Recipient, RecipientContext] = {}
        self._old: dict[Recipient, RecipientContext] = {}
        self._aged_at = clock()
        self._breaker = Breaker()

    async def of(self, recipients: Iterable[Recipient]) -> Contexts:
        """What is known about each; who is not in the answer is unknown."""
        self._age()
        found: dict[Recipient, RecipientContext] = {}
        missing: dict[Recipient, None] = {}
        for recipient in recipients:
            context = self._young.get(recipient) or self._old.get(recipient)
            if context is None:
                missing[recipient] = None
            else:
                found[recipient] = context
        wanted = list(missing)
        for start in range(0, len(wanted), CONTEXTS_AT_ONCE):
            found |= await self._ask(wanted[start : start + CONTEXTS_AT_ONCE])
        return found

    async def _ask(self, recipients: list[Recipient]) -> dict[Recipient, RecipientContext]:
        if not self._breaker.allows(self._clock()):
            return {}
        try:
            with Attempt(self._breaker, self._clock, self._jitter, failures=(Unavailable,)):
                contexts = await self._read(recipients)
        except Unavailable as error:
            logger.debug("recipients are taken as unknown: %s", error)
            return {}
        read = dict(zip(recipients, contexts, strict=True))
        self._young |= read
        return read

    def _age(self) -> None:
        seconds = self._clock() - self._aged_at
        if seconds >= CONTEXT_SECONDS / 3 or len(self._young) >= CONTEXTS_MAX // 2:
            self._old = self._young if seconds < CONTEXT_SECONDS * 2 / 3 else {}
            self._young = {}
            self._aged_at += seconds
