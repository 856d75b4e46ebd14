"""What our caches share: bytes are given back as they were put, and each call has its own time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from aiocache.base import BaseCache
from aiocache.serializers import NullSerializer


class BytesCache(BaseCache):  # type: ignore[misc]  # aiocache has no types
    """A cache of bytes, by aiocache's interface; a backend has the calls for one key."""

    def __init__(self) -> None:
        # Without aiocache's timeout, which makes a task for each call.
        super().__init__(serializer=NullSerializer(), timeout=None)

    async def _multi_get(
        self, keys: Iterable[str], encoding: Any = None, _conn: Any = None
    ) -> list[bytes | None]:
        return list(await asyncio.gather(*(self._get(key) for key in keys)))

    async def _multi_set(
        self, pairs: Iterable[tuple[str, bytes]], ttl: float | None = None, _conn: Any = None
    ) -> bool:
        return all([await self._set(key, value, ttl) for key, value in pairs])


def hashed(key: str) -> str:
    """A key for a server, of one length and plain characters: no text of a user goes there."""
    return blake2b(key.encode(), digest_size=20).hexdigest()


def is_there(key: str) -> ValueError:
    """What aiocache's `add` raises for a key that has a value."""
    return ValueError(f"{key} is there already; use set to replace it")
