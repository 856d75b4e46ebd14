"""Which tokens are revoked, as this gateway knows it: heard at once, or read some seconds later."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from typing import Final

from livefeed import subjects
from livefeed.access import Principal
from livefeed.adapters.nats.connection import Connection as Nats
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.revocations import read_revocations
from livefeed.control import Revoked, decode
from livefeed.errors import AccessRefused, Unavailable
from livefeed.limits import (
    REVOCATION_OVERLAP_SECONDS,
    REVOCATION_READ_SECONDS,
    REVOCATIONS_MAX,
)
from livefeed.protocol import ERRORS
from livefeed.revocation import Revocation, Revocations

logger = logging.getLogger(__name__)

FIRST_READ_RETRY_SECONDS: Final = 0.5


class RevocationWatch:
    """Keeps up with what is revoked.

    Until it was read once nobody is let in; when it cannot be read again, what is known counts.
    """

    def __init__(self, nats: Nats, pool: Pool) -> None:
        self._nats: Final = nats
        self._pool: Final = pool
        self._revocations: Final = Revocations()
        self._read_at: float | None = None
        """When the last read was, by Postgres's clock."""
        self._on_news: Callable[[], None] = lambda: None

    @property
    def known(self) -> bool:
        """Whether it was read."""
        return self._read_at is not None

    def __len__(self) -> int:
        return len(self._revocations)

    def covers(self, principal: Principal) -> bool:
        """Whether the principal's token is revoked."""
        return self._revocations.covers(principal, time.time())

    def check(self, principal: Principal) -> None:
        """Let a principal pass.

        Raises:
            AccessRefused: Its token is revoked.
            Unavailable: It is not known yet what is.
        """
        if not self.known:
            raise Unavailable("primary", "the revocations could not be read yet")
        if self.covers(principal):
            raise AccessRefused("token_revoked", ERRORS["token_revoked"])

    async def run(self, on_news: Callable[[], None]) -> None:
        """Listen, and read now and then, until cancelled; `on_news` is called after some came."""
        self._on_news = on_news
        self._nats.subscribe_direct(subjects.CONTROL_REVOCATIONS, self._on_revoked)
        while True:
            try:
                await self._read()
            except Exception:
                logger.exception("a read of the revocations failed")
            seconds = REVOCATION_READ_SECONDS if self.known else FIRST_READ_RETRY_SECONDS
            # Never later than promised: what differs between gateways is how much earlier.
            await asyncio.sleep(seconds * (0.8 + 0.2 * random.random()))

    async def _read(self) -> None:
        since = None if self._read_at is None else self._read_at - REVOCATION_OVERLAP_SECONDS
        try:
            found = await read_revocations(self._pool, since)
        except Unavailable as error:
            logger.warning("revocations cannot be read, what is known of them counts: %s", error)
            return
        if len(found.revocations) == REVOCATIONS_MAX:
            logger.warning(
                "there are more revocations than %d; the oldest are not known here", REVOCATIONS_MAX
            )
        self._read_at = found.read_at
        self._revocations.forget(time.time())
        self._learn(found.revocations)

    def _learn(self, revocations: Iterable[Revocation]) -> None:
        if self._revocations.learn(revocations):
            self._on_news()

    def _on_revoked(self, _subject: bytes, _reply: bytes, _headers: bytes, payload: bytes) -> None:
        revoked = decode(payload, Revoked)
        if revoked is not None:
            self._learn(revoked.revocations)
