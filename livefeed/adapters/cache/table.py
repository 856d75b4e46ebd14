"""A cache that all gateways share and that keeps for hours: a table of Postgres, on the primary.

Its keys are hashes of 160 bits: no text of a user is in it, and nobody finds a second key for a
hash, so a hash stands for its key. Decision 0027 says why the table is unlogged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Any, Final

from livefeed.adapters.cache.bytes_cache import BytesCache
from livefeed.adapters.postgres.pool import Pool
from livefeed.cache import decode
from livefeed.errors import Unavailable
from livefeed.limits import (
    CACHE_CLOCK_SECONDS_MAX,
    CACHE_SET_SECONDS_MAX,
    CACHE_TABLE_BYTES_MAX,
    CACHE_TABLE_GET_SECONDS_MAX,
    CACHE_TABLE_READS_AT_ONCE,
    CACHE_TABLE_ROWS_MAX,
    CACHE_TABLE_VALUE_BYTES_MAX,
    CACHE_TABLE_WRITES_AT_ONCE,
)

KEY_BYTES: Final = 20
LIFE_SECONDS_MAX: Final = 2 * 86_400.0
"""Nothing stays for longer, whatever its own time is."""
CHUNK_BYTES: Final = 1_996
"""Of a value in one row of what Postgres keeps it in."""

_GET = "select key, value from feed_page where key = any($1::bytea[]) and ends_at > now()"

# How full the table is, by what Postgres counts for autovacuum: a second old, and for nothing. Of
# two values the one that was made later stays, unless the clock that says so is wrong.
_PUT = """
with room as materialized (
    select pg_stat_get_live_tuples(oid) < $5
        and pg_stat_get_live_tuples(reltoastrelid) < $6 as there
    from pg_class where oid = 'feed_page'::regclass
), put as (
    insert into feed_page as old (key, value, made_at, ends_at)
    select $1, $2, $3, now() + make_interval(secs => $4) from room where there
    on conflict (key) do update
    set value = excluded.value, made_at = excluded.made_at, ends_at = excluded.ends_at
    where old.made_at <= excluded.made_at or old.ends_at <= now()
        or old.made_at > (extract(epoch from now()) + $7) * 1000000
)
select there from room
"""

_DELETE = "delete from feed_page where key = $1 returning true"


class TableCache(BytesCache):
    """Keeps what `livefeed.cache.encode` made in the table `feed_page`.

    What has ended is not given out, and `retain` deletes it. Every call raises Unavailable when the
    primary does not answer in time. A write that is refused, because the table is full, the value
    too large, or too much is written at once, returns False and is counted.

    Args:
        pool: Of the primary.
        rows_max: Values that the table may have.
        bytes_max: Bytes that they may have together.
    """

    NAME = "table"

    def __init__(
        self,
        pool: Pool,
        *,
        rows_max: int = CACHE_TABLE_ROWS_MAX,
        bytes_max: int = CACHE_TABLE_BYTES_MAX,
    ) -> None:
        super().__init__()
        self._pool: Final = pool
        self._rows_max: Final = rows_max
        self._chunks_max: Final = bytes_max // CHUNK_BYTES
        self._reads: Final = asyncio.Semaphore(CACHE_TABLE_READS_AT_ONCE)
        self._writing = 0
        self.refused = 0
        """Writes that were not done."""

    async def _get(self, key: str, encoding: Any = None, _conn: Any = None) -> bytes | None:
        (value,) = await self._multi_get([key])
        return value

    async def _multi_get(
        self, keys: Iterable[str], encoding: Any = None, _conn: Any = None
    ) -> list[bytes | None]:
        hashes = list(map(_hash, keys))
        # Others need the pool too: whoever has no turn in time goes on without the table.
        async with self._in_time(CACHE_TABLE_GET_SECONDS_MAX), self._reads:
            rows = await self._pool.fetch(_GET, hashes)
        found = {row["key"]: row["value"] for row in rows}
        return [found.get(one) for one in hashes]

    async def _set(
        self,
        key: str,
        value: bytes,
        ttl: float | None = None,
        _cas_token: Any = None,
        _conn: Any = None,
    ) -> bool:
        entry = decode(value)
        if entry is None:
            raise TypeError("the table keeps what livefeed.cache.encode made")
        too_large = len(value) > CACHE_TABLE_VALUE_BYTES_MAX
        if too_large or self._writing >= CACHE_TABLE_WRITES_AT_ONCE:
            self.refused += 1
            return False
        seconds = min(ttl or LIFE_SECONDS_MAX, LIFE_SECONDS_MAX)
        bounds = self._rows_max, self._chunks_max, CACHE_CLOCK_SECONDS_MAX
        self._writing += 1
        try:
            (row,) = await self._write(_PUT, _hash(key), value, entry.made_at, seconds, *bounds)
        finally:
            self._writing -= 1
        self.refused += not row["there"]
        return bool(row["there"])

    async def _exists(self, key: str, _conn: Any = None) -> bool:
        return await self._get(key) is not None

    async def _delete(self, key: str, _conn: Any = None) -> int:
        return len(await self._write(_DELETE, _hash(key)))

    async def _clear(self, namespace: str | None = None, _conn: Any = None) -> bool:
        if namespace is not None:
            raise NotImplementedError("this cache has no namespaces: its keys are hashes")
        await self._write("truncate feed_page")
        return True

    async def _write(self, statement: str, *arguments: Any) -> list[Any]:
        async with self._in_time(CACHE_SET_SECONDS_MAX):
            return await self._pool.fetch(statement, *arguments)

    @asynccontextmanager
    async def _in_time(self, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            detail = f"feed_page: no answer within {seconds:g} s"
            raise Unavailable(self._pool.dependency, detail) from error


def _hash(key: str) -> bytes:
    return blake2b(key.encode(), digest_size=KEY_BYTES).digest()
