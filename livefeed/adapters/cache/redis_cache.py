"""A cache that all gateways share: keys of a Redis that begin with our prefix."""

from __future__ import annotations

from typing import Any, Final

from livefeed.adapters.cache.bytes_cache import BytesCache, hashed, is_there
from livefeed.adapters.redis_client import Put, RedisClient
from livefeed.cache import SHARED_LIFE_SECONDS_MAX
from livefeed.limits import (
    CACHE_GET_SECONDS_MAX,
    CACHE_SET_SECONDS_MAX,
    CACHE_SHARED_VALUE_BYTES_MAX,
)

PREFIX: Final = "livefeed:feed:1:"
"""Of all our keys; another number when what stands in values is another format."""


class RedisCache(BytesCache):
    """Keeps bytes in a Redis, each with an end.

    Every call raises Unavailable when Redis does not answer in time, or answers with an error. A
    write that is refused, because the value is too large or the server has no memory left, returns
    False and is counted: whatever was there for its key may still be.

    Args:
        client: The server.
    """

    NAME = "redis"

    def __init__(self, client: RedisClient) -> None:
        super().__init__()
        self._client = client
        self.refused = 0
        """Writes that were not taken."""

    async def _get(self, key: str, encoding: Any = None, _conn: Any = None) -> bytes | None:
        return await self._client.get(_name(key), seconds=CACHE_GET_SECONDS_MAX)

    async def _set(
        self,
        key: str,
        value: bytes,
        ttl: float | None = None,
        _cas_token: Any = None,
        _conn: Any = None,
    ) -> bool:
        return await self._put(key, value, ttl, only_new=False) == "stored"

    async def _add(
        self, key: str, value: bytes, ttl: float | None = None, _conn: Any = None
    ) -> bool:
        put = await self._put(key, value, ttl, only_new=True)
        if put == "there":
            raise is_there(key)
        return put == "stored"

    async def _exists(self, key: str, _conn: Any = None) -> bool:
        return await self._client.exists(_name(key), seconds=CACHE_GET_SECONDS_MAX)

    async def _delete(self, key: str, _conn: Any = None) -> int:
        return await self._client.delete([_name(key)], seconds=CACHE_SET_SECONDS_MAX)

    async def _clear(self, namespace: str | None = None, _conn: Any = None) -> bool:
        if namespace is not None:
            raise NotImplementedError("this cache has no namespaces: its keys are hashes")
        async for keys in self._client.keys(PREFIX, seconds=CACHE_SET_SECONDS_MAX):
            await self._client.delete(keys, seconds=CACHE_SET_SECONDS_MAX)
        return True

    async def _close(self, *_arguments: Any, _conn: Any = None, **_options: Any) -> None:
        await self._client.close()

    async def _put(self, key: str, value: bytes, ttl: float | None, *, only_new: bool) -> Put:
        if len(value) > CACHE_SHARED_VALUE_BYTES_MAX:
            self.refused += 1
            return "full"
        life_seconds = SHARED_LIFE_SECONDS_MAX if ttl is None else min(ttl, SHARED_LIFE_SECONDS_MAX)
        put = await self._client.put(
            _name(key),
            value,
            life_seconds=life_seconds,
            only_new=only_new,
            seconds=CACHE_SET_SECONDS_MAX,
        )
        self.refused += put == "full"
        return put


def _name(key: str) -> str:
    return PREFIX + hashed(key)
