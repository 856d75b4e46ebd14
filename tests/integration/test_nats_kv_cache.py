"""The shared cache on a real NATS server: full, restarted, frozen, and made by somebody else."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
from nats.js.errors import APIError

from livefeed.adapters.cache.levels import Level, Levels
from livefeed.adapters.cache.memory import BoundedMemoryCache
from livefeed.adapters.cache.nats_kv import NatsKvCache
from livefeed.adapters.nats.connection import Connection
from livefeed.breaker import Breaker
from livefeed.cache import SHARED_LIFE_SECONDS_MAX
from livefeed.errors import Unavailable
from livefeed.limits import CACHE_GET_SECONDS_MAX, CACHE_SHARED_VALUE_BYTES_MAX, KIB, MIB
from tests.servers import OwnServers, connected, until

STREAM = "KV_feed_cache"
FULL_CODE = 10077
"""Of a stream that discards what is new."""


@pytest.fixture
async def connection(nats: str) -> AsyncIterator[Connection]:
    """A connection to a server without a bucket."""
    async with connected(nats) as connection:
        yield connection


@pytest.fixture
async def cache(connection: Connection) -> NatsKvCache:
    """A cache that was used once."""
    cache = NatsKvCache(connection)
    await until(lambda: answers(cache), what="the bucket is made")
    return cache


async def answers(cache: NatsKvCache) -> bool:
    """Whether a read comes back."""
    try:
        await cache.get("absent")
    except Unavailable:
        return False
    return True


async def holds(cache: NatsKvCache, key: str) -> bool:
    """Whether a key is there, as far as the cache answers."""
    return await answers(cache) and await cache.exists(key)


async def configuration(connection: Connection) -> Any:
    """The bucket's stream."""
    return (await connection.jetstream().stream_info(STREAM)).config


async def test_values_come_back_as_they_were(cache: NatsKvCache) -> None:
    """Any bytes, none too, under any key; a second gateway finds them."""
    values = {"a": b"value", "*": bytes(range(256)), "a.>": b"", "ä b\r\n": b"x" * 500_000}
    for key, value in values.items():
        assert await cache.set(key, value, ttl=60.0)
    other = NatsKvCache(cache._connection)
    await until(lambda: answers(other), what="the bucket is there")
    assert await other.multi_get(list(values)) == list(values.values())
    assert await other.get("b") is None
    assert await cache.set("a", b"newer")
    assert await other.get("a") == b"newer"
    assert (await cache.exists("a"), await cache.exists("b")) == (True, False)


async def test_no_text_of_a_key_is_in_a_subject(cache: NatsKvCache, connection: Connection) -> None:
    """Wildcards, dots and lengths of a user's making stay in the process."""
    for key in ("*", ">", "a.b", "a" * 10_000):
        await cache.set(key, b"value")
    info = await connection.jetstream().stream_info(STREAM, subjects_filter=">")
    assert info.state.subjects is not None
    assert len(info.state.subjects) == 4
    for subject in info.state.subjects:
        name = subject.removeprefix("$KV.feed_cache.")
        assert len(name) == 40
        assert set(name) <= set("0123456789abcdef")


async def test_the_bucket_is_small_quick_and_ends(
    cache: NatsKvCache, connection: Connection
) -> None:
    """In memory, one value a key, read without the leader, everything with an end."""
    config = await configuration(connection)
    assert (config.storage, config.max_msgs_per_subject) == ("memory", 1)
    assert (config.allow_direct, config.discard) == (True, "old")
    assert config.max_age == SHARED_LIFE_SECONDS_MAX
    assert config.max_bytes == 256 * MIB
    assert (await connection.jetstream().key_value("feed_cache")) is not None


async def test_a_value_ends_with_its_time(cache: NatsKvCache) -> None:
    """Its own, where it has one; nothing of it is left then, and it can be put again."""
    await cache.set("short", b"value", ttl=0.3)
    await cache.set("long", b"value", ttl=60.0)
    assert await cache.get("short") == b"value"
    await asyncio.sleep(0.5)
    await until(lambda: gone(cache, "short"), seconds=4.0, what="the value is gone")
    assert await cache.get("long") == b"value"
    assert await cache.add("short", b"again")
    assert await cache.get("short") == b"again"


async def gone(cache: NatsKvCache, key: str) -> bool:
    return await cache.get(key) is None


async def test_what_is_there_is_not_added(cache: NatsKvCache) -> None:
    """As aiocache has it; what was deleted can be added again."""
    assert await cache.add("key", b"one")
    with pytest.raises(ValueError, match="there already"):
        await cache.add("key", b"two")
    assert await cache.delete("key") == 1
    assert await cache.delete("key") == 0
    assert await cache.add("key", b"two")
    await cache.set("other", b"value")
    await cache.clear()
    assert await cache.multi_get(["key", "other"]) == [None, None]


async def test_what_others_leave_in_a_values_place_is_none(
    cache: NatsKvCache, connection: Connection
) -> None:
    """NATS's own clients delete by a message without a value."""
    await cache.set("key", b"value")
    bucket = await connection.jetstream().key_value("feed_cache")
    await bucket.delete(cache._subject("key").removeprefix("$KV.feed_cache."))
    assert await cache.get("key") is None


async def test_a_full_bucket_takes_what_is_new_and_lets_the_oldest_go(
    connection: Connection,
) -> None:
    """It stays within its bytes; what was put again is young; own times end as ever."""
    cache = NatsKvCache(connection, bytes_max=64 * KIB)
    await until(lambda: answers(cache), what="the bucket is made")
    for number in range(100):
        assert await cache.set(str(number), bytes(4 * KIB), ttl=60.0)
        assert await cache.set("again", b"%d" % number, ttl=60.0)
        state = (await connection.jetstream().stream_info(STREAM)).state
        assert state.bytes <= 64 * KIB
    assert await cache.get("again") == b"99"
    kept = [number for number in range(100) if await cache.get(str(number)) is not None]
    assert kept == list(range(100 - len(kept), 100)), "the newest"
    assert 10 <= len(kept) <= 16
    assert cache.refused == 0
    assert await cache.set("short", b"value", ttl=0.3)
    await until(lambda: gone(cache, "short"), seconds=4.0, what="the value is gone")


async def test_a_bucket_that_refused_when_full_is_mended(connection: Connection) -> None:
    """As NATS's own clients make one: what is in it stays, until it has to go for what is new."""
    bucket = await connection.jetstream().create_key_value(bucket="feed_cache", max_bytes=64 * KIB)
    cache = NatsKvCache(connection, bytes_max=64 * KIB)

    async def fill() -> None:
        for number in range(30):
            name = cache._subject(str(number)).removeprefix("$KV.feed_cache.")
            await bucket.put(name, bytes(4 * KIB))

    with pytest.raises(APIError) as refused:
        await fill()
    assert refused.value.err_code == FULL_CODE
    await until(lambda: answers(cache), what="the bucket is mended")
    assert (await configuration(connection)).discard == "old"
    assert await cache.get("0") == bytes(4 * KIB)
    assert await cache.set("29", b"new")
    assert await cache.get("29") == b"new"


async def test_a_value_that_is_too_large_does_not_cost_the_connection(
    cache: NatsKvCache, connection: Connection
) -> None:
    """A server cuts whoever sends more than it takes."""
    assert not await cache.set("key", bytes(CACHE_SHARED_VALUE_BYTES_MAX))
    assert not await cache.set("key", bytes(2 * MIB))
    assert cache.refused == 2
    assert await cache.set("key", bytes(CACHE_SHARED_VALUE_BYTES_MAX - 2 * KIB), ttl=60.0)
    assert connection.is_connected


async def test_a_bucket_that_is_there_is_mended_and_keeps_its_values(
    connection: Connection,
) -> None:
    """One that was made otherwise: with a history, on disk, without direct reads."""
    jetstream = connection.jetstream()
    bucket = await jetstream.create_key_value(
        bucket="feed_cache", history=5, storage="file", description="ours", direct=False
    )
    cache = NatsKvCache(connection)
    key = cache._subject("key").removeprefix("$KV.feed_cache.")
    await bucket.put(key, b"older")
    await bucket.put(key, b"value")
    await until(lambda: answers(cache), what="the bucket is mended")
    assert await cache.get("key") == b"value"
    config = await configuration(connection)
    assert (config.allow_direct, config.max_bytes) == (True, 256 * MIB)
    assert (config.storage, config.description, config.discard) == ("file", "ours", "old")
    assert (await jetstream.stream_info(STREAM)).state.messages == 2


async def test_the_bucket_is_made_without_who_has_no_more_time(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes longer for it than a read may take: the first read is Unavailable."""
    cache = NatsKvCache(connection)
    ask = cache._questions.ask

    async def slow(subject: str, payload: bytes, **options: Any) -> Any:
        await asyncio.sleep(2 * CACHE_GET_SECONDS_MAX)
        return await ask(subject, payload, **options)

    monkeypatch.setattr(cache._questions, "ask", slow)
    with pytest.raises(Unavailable, match="within"):
        await cache.get("key")
    await until(lambda: cache._ready, seconds=2.0, what="the bucket is made all the same")


async def test_a_server_that_forgot_the_bucket_gets_it_again(own_servers: OwnServers) -> None:
    """While it is away each call ends at once; afterwards it is used without anybody's help."""
    async with connected(own_servers.nats.url) as connection:
        cache = NatsKvCache(connection)
        await until(lambda: answers(cache), what="the bucket is made")
        await cache.set("key", b"value")
        own_servers.nats.kill()
        await until(lambda: not connection.is_connected, what="the connection is lost")
        for call in (cache.get("key"), cache.set("key", b"value"), cache.clear()):
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await call
            assert time.monotonic() - began < 0.3
        await own_servers.nats.start()
        await until(lambda: answers(cache), what="the cache is back")
        assert await cache.get("key") is None
        assert await cache.set("key", b"value")
        assert await cache.get("key") == b"value"


async def test_a_bucket_that_is_deleted_under_way_is_made_again(
    cache: NatsKvCache, connection: Connection
) -> None:
    """By a person, or by somebody else's program: reads go on, and what is made then is shared."""
    levels, loads = levels_on(cache, Breaker()), itertools.count()

    async def load() -> bytes:
        return b"value %d" % next(loads)

    assert (await levels.get("before", load, deadline_seconds=5.0)).level == "loaded"
    await until(lambda: holds(cache, "before"), what="it is shared")
    await connection.jetstream().delete_stream(STREAM)
    for number in range(10):
        began = time.monotonic()
        found = await levels.get(f"meanwhile {number}", load, deadline_seconds=5.0)
        assert found.level == "loaded"
        assert time.monotonic() - began < 1.0
    await until(lambda: answers(cache), what="the bucket is there again")
    assert await cache.get("before") is None
    assert (await levels.get("before", load, deadline_seconds=5.0)).level == "memory"

    async def is_shared() -> bool:
        key = f"after {next(loads)}"
        await levels.get(key, load, deadline_seconds=5.0)
        await until(lambda: not levels._tasks, what="it is written")
        return await holds(cache, key)

    await until(is_shared, what="what is made is shared again")
    await levels.close()


async def test_levels_do_without_nats_and_take_it_back(own_servers: OwnServers) -> None:
    """Reads go on while it is away, its breaker opens and spares them the wait; it closes by
    itself when NATS is back, and what is made then is shared again."""
    loads = 0

    async def load() -> bytes:
        nonlocal loads
        loads += 1
        return b"value"

    async def level_of(levels: Levels, key: str) -> str:
        return (await levels.get(key, load, deadline_seconds=5.0)).level

    async with connected(own_servers.nats.url) as connection:
        breaker = Breaker()
        cache = NatsKvCache(connection)
        one, other = (levels_on(cache, breaker), levels_on(NatsKvCache(connection), Breaker()))
        await until(lambda: answers(cache), what="the bucket is made")
        assert await level_of(one, "before") == "loaded"
        await until(lambda: holds(cache, "before"), what="it is shared")
        assert await level_of(other, "before") == "shared"
        pid = own_servers.nats.pid
        os.kill(pid, signal.SIGSTOP)
        for number in range(5):
            assert await level_of(one, f"hangs {number}") == "loaded"
        assert breaker.state == "open"
        own_servers.nats.kill()
        began = time.monotonic()
        for number in range(50):
            assert await level_of(one, f"away {number}") == "loaded"
        assert await level_of(one, "before") == "memory"
        assert time.monotonic() - began < 1.0
        await own_servers.nats.start()
        numbers = itertools.count()

        async def back() -> bool:
            await level_of(one, f"back {next(numbers)}")
            return breaker.state == "closed"

        await until(back, what="the breaker closes")
        assert await level_of(one, "after") == "loaded"
        await until(lambda: answers(cache), what="the cache is used")
        await until(lambda: holds(cache, "after"), what="it is shared")
        await one.close()
        await other.close()


async def test_a_full_bucket_is_of_use(connection: Connection) -> None:
    """What one gateway has made last, another one finds; nothing is refused."""
    one = levels_on(NatsKvCache(connection, bytes_max=64 * KIB), Breaker())
    other = levels_on(NatsKvCache(connection, bytes_max=64 * KIB), Breaker())
    caches = [levels._levels[1].cache for levels in (one, other)]
    for cache in caches:
        await until(lambda cache=cache: answers(cache), what="the bucket is there")

    async def load() -> bytes:
        return bytes(4 * KIB)

    for number in range(30):
        found = await one.get(str(number), load, deadline_seconds=5.0)
        assert found.value == bytes(4 * KIB)
    await until(lambda: not one._tasks, what="all is written")
    assert one.counts["shared", "error"] == one.counts["shared", "refused"] == 0
    assert (await other.get("29", load, deadline_seconds=5.0)).level == "shared"
    assert (await other.get("0", load, deadline_seconds=5.0)).level == "loaded"
    assert other._levels[1].breaker.state == "closed"
    await one.close()
    await other.close()


async def test_a_value_that_is_not_taken_does_not_disturb_a_read(connection: Connection) -> None:
    """It is counted; the breaker stays closed."""
    cache, breaker = NatsKvCache(connection), Breaker()
    await until(lambda: answers(cache), what="the bucket is made")
    levels = levels_on(cache, breaker)

    async def load() -> bytes:
        return bytes(CACHE_SHARED_VALUE_BYTES_MAX)

    for number in range(5):
        assert (await levels.get(str(number), load, deadline_seconds=5.0)).level == "loaded"
    await until(lambda: not levels._tasks, what="all is written")
    assert levels.counts["shared", "refused"] == cache.refused == 5
    assert levels.counts["shared", "error"] == 0
    assert breaker.state == "closed"


def levels_on(cache: NatsKvCache, breaker: Breaker) -> Levels:
    """A gateway's levels on real clocks."""
    return Levels(
        [
            Level("memory", BoundedMemoryCache(), 60.0, 3600.0, Breaker()),
            Level("shared", cache, 300.0, 3600.0, breaker),
        ],
        wall=time.time,
        clock=time.monotonic,
        chance=random.random,
        loads_max=4,
    )


async def test_a_server_that_hangs_is_not_waited_for(own_servers: OwnServers) -> None:
    """A read is Unavailable within its time, with and without a bucket, and leaves nothing."""
    async with connected(own_servers.nats.url) as connection:
        cache, first = NatsKvCache(connection), NatsKvCache(connection)
        await until(lambda: answers(cache), what="the bucket is made")
        pid = own_servers.nats.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            stopped = psutil.Process(pid)
            await until(lambda: stopped.status() == psutil.STATUS_STOPPED, what="it is stopped")
            for one in (cache, first):
                began = time.monotonic()
                with pytest.raises(Unavailable, match="within"):
                    await one.get("key")
                took = time.monotonic() - began
                assert CACHE_GET_SECONDS_MAX - 0.01 < took < CACHE_GET_SECONDS_MAX + 0.1
            questions = cache._questions
            began = time.monotonic()
            with pytest.raises(Unavailable, match="within"):
                await questions.ask("nobody", b"", seconds=0.05)
            assert time.monotonic() - began < 1.0
            assert not questions._waiting
        finally:
            os.kill(pid, signal.SIGCONT)
        await until(lambda: answers(cache), what="it answers again")
        await until(lambda: answers(first), what="it answers the other")
        await first.close()
