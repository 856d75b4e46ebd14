"""The keys of a JWKS, kept at hand: read again every few minutes, and for a key that is new.

A key that is known is never waited for. One that is not has the keys read at once, and seldom: all
who wait share the read, and tokens with made-up names cost no more than a look into a dict.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from livefeed.errors import AccessRefused, Unavailable
from livefeed.limits import KEYS_PAUSE_SECONDS, KEYS_SECONDS, KEYS_SECONDS_MAX

logger = logging.getLogger(__name__)

ReadKeys = Callable[[], Awaitable[Mapping[str | None, Any]]]
"""Reads the keys by `kid`; raises Unavailable."""


class KeySet:
    """Keys by `kid`, of a server that may be away.

    Args:
        read: Reads all of them.
        clock: Monotonic seconds.
    """

    def __init__(self, read: ReadKeys, *, clock: Callable[[], float]) -> None:
        self._read = read
        self._clock = clock
        self._keys: Mapping[str | None, Any] = {}
        self._believed_until = 0.0
        self._asked_at: float | None = None
        """When an unknown key last had them read."""
        self._reading: asyncio.Task[None] | None = None
        self.fault: str | None = "they were not read yet"
        """Why the last read failed, or None."""

    @property
    def read_once(self) -> bool:
        """Whether there have ever been keys."""
        return bool(self._keys)

    async def run(self) -> None:
        """Read them every few minutes, sooner while that fails, until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(KEYS_SECONDS if self.fault is None else KEYS_PAUSE_SECONDS)

    async def key(self, key_id: str | None) -> Any:
        """The key of this name, or the only one for a token that names none.

        Raises:
            AccessRefused: There is no such key.
            Unavailable: The keys cannot be read now, so that it is not known.
        """
        key = self._find(key_id)
        if key is None and self._may_ask():
            await self.refresh()
            key = self._find(key_id)
        if key is not None:
            return key
        if self.fault is not None:
            raise Unavailable("key server", self.fault)
        raise AccessRefused("token_invalid", "its kid is none of our keys'")

    async def refresh(self) -> None:
        """Read the keys now, or wait for a read that is under way; what fails is in `fault`."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._refresh(), name="keys")
        # Whoever waits may be cancelled; the others still want them.
        await asyncio.shield(self._reading)

    def _find(self, key_id: str | None) -> Any:
        if self._clock() >= self._believed_until:
            return None
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    def _may_ask(self) -> bool:
        if self._reading is not None:
            return True
        now = self._clock()
        if self._asked_at is not None and now - self._asked_at < KEYS_PAUSE_SECONDS:
            return False
        self._asked_at = now
        return True

    async def _refresh(self) -> None:
        began = self._clock()
        try:
            keys = await self._read()
        except Unavailable as error:
            if self.fault != error.detail:
                logger.warning("the keys of tokens are kept as they are: %s", error)
            self.fault = error.detail
        else:
            if self.fault is not None or set(keys) != set(self._keys):
                logger.info("the keys of tokens were read: %d", len(keys))
            self._keys, self.fault = keys, None
            self._believed_until = began + KEYS_SECONDS_MAX
        finally:
            self._reading = None
