"""A Redis for what may be missing: each call has its time, and what fails is not tried again.

The one module that knows the library.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, OutOfMemoryError, RedisError

from livefeed.errors import Unavailable
from livefeed.limits import (
    MIB,
    REDIS_CALLS_MAX,
    REDIS_CONNECTIONS_MAX,
    REDIS_SECONDS_MAX,
)
from livefeed.redis_health import RedisFacts

Command = tuple[str | bytes | int, ...]
Put = Literal["stored", "there", "full"]
"""What became of a value: there is one already; the server has no memory for it."""

DETAIL_CHARACTERS_MAX: Final = 300
"""Of what a server says of an error: another kind of server may say anything."""
CLOSED: Final = OSError("it is closed")
CALLS_AT_ONCE: Final = 64
"""Calls that are sent together at the most."""
BYTES_AT_ONCE: Final = 1 * MIB
"""Bytes of values from which on no more is sent together."""
KEYS_AT_ONCE: Final = 500
"""About how many keys a server looks at for one answer of `keys`."""


class RedisClient:
    """One server.

    Calls that come together are sent together. They are sent by tasks, which no caller's leaving
    disturbs: what was sent is answered, or its connection given up by its own time. So no answer is
    ever the next caller's, and a connection that took longer to make than a caller had is there for
    the next one. Whatever goes wrong is Unavailable.

    Args:
        url: As `check_redis_url` has it.
        connections_max: Most connections.
    """

    def __init__(self, url: str, *, connections_max: int = REDIS_CONNECTIONS_MAX) -> None:
        pool = ConnectionPool.from_url(
            url,
            max_connections=connections_max,
            socket_connect_timeout=REDIS_SECONDS_MAX,
            socket_timeout=REDIS_SECONDS_MAX,
            retry=Retry(NoBackoff(), 0),
            # A connection begins with nothing that a user of few rights may not say.
            protocol=2,
            driver_info=None,
        )
        self._redis = Redis.from_pool(pool)
        self._connections_max = connections_max
        self._waiting: OrderedDict[asyncio.Future[Any], Command] = OrderedDict()
        """What nobody has sent yet, and somebody waits for; the oldest first."""
        self._senders: set[asyncio.Task[None]] = set()
        """Each has a connection of its own."""
        self._closed = False

    async def get(self, key: str, *, seconds: float) -> bytes | None:
        """A value as it was put."""
        value: bytes | None = await self._ask(seconds, "GET", key)
        return value

    async def put(
        self, key: str, value: bytes, *, life_seconds: float, only_new: bool, seconds: float
    ) -> Put:
        """Store a value for a time; with `only_new` not in another one's place."""
        milliseconds = max(1, round(life_seconds * 1000))
        only = ("NX",) if only_new else ()
        try:
            stored = await self._ask(seconds, "SET", key, value, "PX", milliseconds, *only)
        except OutOfMemoryError:
            return "full"
        return "stored" if stored else "there"

    async def exists(self, key: str, *, seconds: float) -> bool:
        """Whether there is a value."""
        return bool(await self._ask(seconds, "EXISTS", key))

    async def delete(self, keys: Sequence[str | bytes], *, seconds: float) -> int:
        """Take values out; returns how many there were."""
        return int(await self._ask(seconds, "UNLINK", *keys)) if keys else 0

    async def keys(self, prefix: str, *, seconds: float) -> AsyncIterator[list[bytes]]:
        """All keys with a prefix of plain characters, some at a time; `seconds` is for each time.

        One that comes or goes meanwhile may be there or not, and any may come twice.
        """
        place = b"0"
        while True:
            place, found = await self._ask(
                seconds, "SCAN", place, "MATCH", f"{prefix}*", "COUNT", KEYS_AT_ONCE
            )
            yield found
            if int(place) == 0:
                return

    async def facts(self, *, seconds: float) -> RedisFacts:
        """What the server says of itself."""
        told: dict[str, Any] = await self._ask(seconds, "INFO")
        return RedisFacts(
            version=str(told.get("redis_version", "")),
            is_replica=told.get("role") == "slave",
            policy=str(told.get("maxmemory_policy", "")),
            bytes_max=int(told.get("maxmemory", 0)),
            bytes_used=int(told.get("used_memory", 0)),
            evicted=int(told.get("evicted_keys", 0)),
        )

    async def close(self) -> None:
        """Give up what runs and what waits, and every connection."""
        self._closed = True
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)
        _give(dict.fromkeys(self._waiting, CLOSED))
        # A server that hangs does not take what a connection has still to send.
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    async def _ask(self, seconds: float, *command: str | bytes | int) -> Any:
        """The answer to a command.

        Raises:
            Unavailable: None came in time, or it is an error.
            OutOfMemoryError: The server has no memory for what was to be stored.
        """
        if self._closed:
            raise Unavailable("redis", str(CLOSED))
        if len(self._waiting) >= REDIS_CALLS_MAX:
            raise Unavailable("redis", f"{REDIS_CALLS_MAX} calls wait for it")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[answer] = command
        if len(self._senders) < self._connections_max:
            self._senders.add(asyncio.create_task(self._send(), name="redis-sender"))
        try:
            async with asyncio.timeout(seconds):
                found = await answer
        except TimeoutError as error:
            raise Unavailable("redis", f"no answer within {seconds:g} s") from error
        finally:
            self._waiting.pop(answer, None)
        if isinstance(found, OutOfMemoryError):
            raise found
        if isinstance(found, Exception):
            raise Unavailable("redis", _told(found)) from found
        return found

    async def _send(self) -> None:
        """Send what waits on one connection, some of it at a time, until nothing does."""
        try:
            while batch := self._next():
                await self._send_batch(batch)
        finally:
            # Here, not when the task is done: until then a call that comes would wait for it.
            self._senders.discard(asyncio.current_task())

    async def _send_batch(self, batch: dict[asyncio.Future[Any], Command]) -> None:
        found: list[Any] = [CLOSED] * len(batch)
        try:
            found = await self._answers(batch.values())
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait get it
            found = [error] * len(batch)
        finally:
            _give(dict(zip(batch, found, strict=True)))

    def _next(self) -> dict[asyncio.Future[Any], Command]:
        """What was asked for first: no more than others should have to wait for."""
        batch: dict[asyncio.Future[Any], Command] = {}
        size = 0
        while self._waiting and len(batch) < CALLS_AT_ONCE and size < BYTES_AT_ONCE:
            answer, command = self._waiting.popitem(last=False)
            batch[answer] = command
            size += sum(len(part) for part in command if isinstance(part, bytes))
        return batch

    async def _answers(self, commands: Iterable[Command]) -> list[Any]:
        """The answer to each, an error too; raises what concerns all of them."""
        pipeline: Any = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        found: list[Any] = await pipeline.execute(raise_on_error=False)
        return found


def _give(found: Mapping[asyncio.Future[Any], Any]) -> None:
    """Give answers to those who are there still."""
    for answer, one in found.items():
        if not answer.done():
            answer.set_result(one)


def _told(error: Exception) -> str:
    if isinstance(error, AuthenticationError):
        return f"it does not take the user and password of its URL ({error})"
    return (str(error) or type(error).__name__)[:DETAIL_CHARACTERS_MAX]
