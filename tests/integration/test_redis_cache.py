"""The shared cache on a real Redis: what it keeps, and what becomes of calls that are given up."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable

import pytest

from livefeed.adapters import redis_client
from livefeed.adapters.cache import redis_cache
from livefeed.adapters.cache.redis_cache import PREFIX, RedisCache
from livefeed.adapters.redis_client import RedisClient
from livefeed.cache import SHARED_LIFE_SECONDS_MAX
from livefeed.errors import Unavailable
from livefeed.limits import (
    CACHE_GET_SECONDS_MAX,
    CACHE_SET_SECONDS_MAX,
    CACHE_SHARED_VALUE_BYTES_MAX,
    KIB,
    REDIS_SECONDS_MAX,
)
from tests.redis_server import RedisServer
from tests.servers import until

LATE_SECONDS = 0.5
"""What a busy computer adds to a bound."""

LARGE = bytes(700 * KIB)
"""More than a socket takes while its server hangs."""

OpenCache = Callable[..., RedisCache]


@pytest.fixture
async def open_cache(redis_server: RedisServer) -> AsyncIterator[OpenCache]:
    """Makes caches on the test's Redis, which are closed with it."""
    caches: list[RedisCache] = []

    def make(**options: int) -> RedisCache:
        caches.append(RedisCache(RedisClient(redis_server.url, **options)))
        return caches[-1]

    yield make
    for cache in caches:
        await cache.close()


@pytest.fixture
async def cache(open_cache: OpenCache) -> RedisCache:
    return open_cache()


async def rest(cache: RedisCache) -> None:
    """Wait until nothing is on its way any more, whoever asked for it."""
    await until(lambda: not cache._client._senders, what="every call has come to its end")


async def connections_made(server: RedisServer) -> int:
    """How many a server has accepted since it was started, the one that asks too."""
    async with server.client() as redis:
        return int((await redis.info("stats"))["total_connections_received"])


@pytest.mark.usefixtures("patient")
async def test_values_come_back_as_they_were(cache: RedisCache, open_cache: OpenCache) -> None:
    """Any bytes, none too, under any key; a second gateway finds them."""
    chance = random.Random(5)
    values = {
        "a": b"value",
        "*": bytes(range(256)),
        "": b"",
        "ä b\r\n": chance.randbytes(500_000),
        "looks like an answer": b"$-1\r\n-OOM not really\r\n*0\r\n:1\r\n",
    }
    values |= {f"random {number}": chance.randbytes(number * 7) for number in range(200)}
    for key, value in values.items():
        assert await cache.set(key, value, ttl=60.0)
    other = open_cache()
    assert await other.multi_get(list(values)) == list(values.values())
    assert await other.get("b") is None
    assert await cache.set("a", b"newer")
    assert await other.get("a") == b"newer"
    assert (await cache.exists("a"), await cache.exists("b")) == (True, False)


@pytest.mark.usefixtures("patient")
async def test_keys_are_short_ours_and_end(cache: RedisCache, redis_server: RedisServer) -> None:
    """No text of a user's making is in one, and none stays for ever."""
    for key in ("*", "livefeed:", "alice\nhome", "a" * 10_000):
        await cache.set(key, b"value")
        await cache.set(f"{key} ends", b"value", ttl=1e9)
        await cache.add(f"{key} was added", b"value", ttl=60.0)
    async with redis_server.client() as redis:
        names = [name.decode() for name in await redis.keys()]
        assert len(names) == 12
        for name in names:
            assert name.startswith(PREFIX)
            assert len(name) == len(PREFIX) + 40
            assert 0 < await redis.pttl(name) <= SHARED_LIFE_SECONDS_MAX * 1000


@pytest.mark.usefixtures("patient")
async def test_a_value_ends_with_its_time(cache: RedisCache) -> None:
    """To the millisecond; it can be put again."""
    await cache.set("short", b"value", ttl=0.25)
    await cache.set("long", b"value", ttl=60.0)
    assert await cache.get("short") == b"value"

    async def gone() -> bool:
        return await cache.get("short") is None

    await until(gone, seconds=2.0, what="the value is gone")
    assert await cache.get("long") == b"value"
    assert await cache.add("short", b"again")
    assert await cache.get("short") == b"again"


@pytest.mark.usefixtures("patient")
async def test_what_is_there_is_not_added(cache: RedisCache) -> None:
    """As aiocache has it; what was deleted can be added again."""
    assert await cache.add("key", b"one")
    with pytest.raises(ValueError, match="there already"):
        await cache.add("key", b"two")
    assert await cache.get("key") == b"one"
    assert await cache.delete("key") == 1
    assert await cache.delete("key") == 0
    assert await cache.add("key", b"two")


@pytest.mark.usefixtures("patient")
async def test_clear_takes_what_is_ours(cache: RedisCache, redis_server: RedisServer) -> None:
    """However many; what others keep in the same database stays."""
    async with redis_server.client() as redis:
        foreign = {f"livefeed:{number}": "theirs" for number in range(2_000)}
        await redis.mset(foreign)
        for number in range(2_000):
            await cache.set(str(number), b"ours")
        assert await redis.dbsize() == 4_000
        await cache.clear()
        assert await redis.dbsize() == 2_000
        assert await redis.exists(*foreign) == 2_000
    with pytest.raises(NotImplementedError):
        await cache.clear("namespace")


@pytest.mark.usefixtures("patient")
async def test_a_value_that_is_too_large_is_not_sent(
    cache: RedisCache, redis_server: RedisServer
) -> None:
    """It is refused and counted, as it is where NATS has the values."""
    assert not await cache.set("key", bytes(CACHE_SHARED_VALUE_BYTES_MAX + 1))
    await cache.add("key", bytes(CACHE_SHARED_VALUE_BYTES_MAX + 1))
    assert cache.refused == 2
    assert await connections_made(redis_server) == 1, "the test's own"
    assert await cache.set("key", bytes(CACHE_SHARED_VALUE_BYTES_MAX))
    assert await cache.get("key") == bytes(CACHE_SHARED_VALUE_BYTES_MAX)


# Calls that are given up.


async def test_a_cancelled_call_leaves_its_connection_whole(
    open_cache: OpenCache, redis_server: RedisServer
) -> None:
    """Its answer is not the next caller's, which has the same connection."""
    cache = open_cache(connections_max=1)
    await cache.set("first", b"first's")
    await cache.set("second", b"second's")
    made = await connections_made(redis_server)
    redis_server.freeze()
    call = asyncio.create_task(cache.get("first"))
    # It was sent; the server has not read it yet.
    await until(lambda: cache._client._senders, what="the call is on its way")
    await asyncio.sleep(CACHE_GET_SECONDS_MAX / 2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    redis_server.thaw()
    for _ in range(10):
        assert await cache.get("second") == b"second's"
        assert await cache.get("first") == b"first's"
    assert await connections_made(redis_server) == made + 1, "the test's own again"


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("connections", [1, 3])
async def test_no_answer_goes_astray_however_calls_are_given_up(
    open_cache: OpenCache, redis_server: RedisServer, connections: int
) -> None:
    """Thousands of calls on few connections, half of them cancelled at any step on their way."""
    cache, chance = open_cache(connections_max=connections), random.Random(7)
    keys = [f"key {number}" for number in range(50)]
    for key in keys:
        await cache.set(key, key.encode() * 300)

    async def ask(key: str) -> None:
        assert await cache.get(key) == key.encode() * 300

    async def give_up(call: asyncio.Task[None], steps: int) -> None:
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()

    cancelled = 0
    for _ in range(150):
        calls = [asyncio.create_task(ask(chance.choice(keys))) for _ in range(20)]
        givers = [
            asyncio.create_task(give_up(call, chance.randrange(30)))
            for call in chance.sample(calls, 10)
        ]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.gather(*givers)
        given_up = [one for one in ended if isinstance(one, asyncio.CancelledError)]
        cancelled += len(given_up)
        assert [one for one in ended if one is not None and one not in given_up] == []
    assert cancelled > 300
    await rest(cache)
    for key in keys:
        await ask(key)
    assert await connections_made(redis_server) <= connections + 1


async def test_a_server_that_hangs_is_not_waited_for(
    open_cache: OpenCache, redis_server: RedisServer
) -> None:
    """Each call ends within its time, with a connection and without; nothing is left behind, and
    when the server goes on it is used at once."""
    cache, fresh = open_cache(), open_cache()
    await cache.set("key", b"value")
    redis_server.freeze()
    for one in (cache, fresh):
        for call, seconds in (
            (one.get("key"), CACHE_GET_SECONDS_MAX),
            (one.set("key", b"other"), CACHE_SET_SECONDS_MAX),
            (one.delete("other"), CACHE_SET_SECONDS_MAX),
        ):
            began = time.monotonic()
            with pytest.raises(Unavailable, match="no answer within"):
                await call
            assert seconds - 0.01 < time.monotonic() - began < seconds + LATE_SECONDS
    for one in (cache, fresh):
        await rest(one)
        assert not one._client._waiting
    redis_server.thaw()
    assert await cache.get("key") in {b"value", b"other"}
    assert await fresh.set("key", b"newer")
    assert await cache.get("key") == b"newer"


async def test_a_connection_that_comes_too_late_is_there_for_the_next(
    open_cache: OpenCache, redis_server: RedisServer
) -> None:
    """What takes longer to connect than a caller has would else never be connected."""
    cache = open_cache(connections_max=1)
    redis_server.freeze()
    with pytest.raises(Unavailable):
        await cache.get("key")
    redis_server.thaw()
    await rest(cache)
    made = await connections_made(redis_server)
    assert await cache.get("key") is None
    assert await connections_made(redis_server) == made + 1, "the test's own again"


async def test_connections_are_bounded_and_waits_for_them_are_short(
    open_cache: OpenCache, redis_server: RedisServer
) -> None:
    """Many callers share a few; when none comes free they are told so in time."""
    cache = open_cache(connections_max=2)
    await asyncio.gather(*(cache._client.get("key", seconds=10.0) for _ in range(1_000)))
    assert await connections_made(redis_server) <= 2 + 1
    redis_server.freeze()
    began = time.monotonic()
    ended = await asyncio.gather(
        *(cache.get("key") for _ in range(500)),
        *(cache.set("key", b"value") for _ in range(500)),
        return_exceptions=True,
    )
    assert {type(one) for one in ended} == {Unavailable}
    assert time.monotonic() - began < CACHE_SET_SECONDS_MAX + LATE_SECONDS
    assert not cache._client._waiting, "what nobody waits for is not sent later"
    redis_server.thaw()
    await rest(cache)
    assert await connections_made(redis_server) <= 2 + 2


@pytest.mark.usefixtures("patient")
async def test_calls_that_wait_are_bounded(
    open_cache: OpenCache, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more fails at once."""
    monkeypatch.setattr(redis_client, "REDIS_CALLS_MAX", 5)
    cache = open_cache(connections_max=1)
    redis_server.freeze()
    sent = asyncio.create_task(cache.set("sent", b"value"))
    await until(lambda: cache._client._senders, what="it is on its way")
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(cache.set("key", b"value")) for _ in range(5)]
    await until(lambda: len(cache._client._waiting) == 5, what="all the others wait")
    with pytest.raises(Unavailable, match="5 calls wait for it"):
        await cache.get("key")
    redis_server.thaw()
    assert await asyncio.gather(sent, *waiting) == [True] * 6


@pytest.mark.usefixtures("patient")
async def test_what_comes_together_is_sent_together(
    open_cache: OpenCache, redis_server: RedisServer
) -> None:
    """A thousand calls are few messages; large values go in small company, and all come back."""
    cache, chance = open_cache(connections_max=4), random.Random(9)
    values = {str(number): chance.randbytes(number * 20) for number in range(1_000)}
    values |= {f"large {number}": chance.randbytes(600 * KIB) for number in range(12)}
    assert all(await asyncio.gather(*(cache.set(*item, ttl=60.0) for item in values.items())))
    assert await cache.multi_get(list(values)) == list(values.values())
    async with redis_server.client() as redis:
        told = await redis.info("stats")
    assert told["total_reads_processed"] < 800, "commands: 2,024"
    assert told["total_connections_received"] <= 4 + 1


@pytest.mark.usefixtures("patient")
async def test_an_error_is_its_callers_alone(
    open_cache: OpenCache, redis_server: RedisServer
) -> None:
    """Others were sent together with it."""
    cache = open_cache(connections_max=1)
    await cache.set("good", b"value")
    async with redis_server.client() as redis:
        await redis.rpush(redis_cache._name("a list"), "one")
    ended = await asyncio.gather(
        *(cache.get(key) for key in ("good", "a list", "good", "absent")), return_exceptions=True
    )
    assert (ended[0], ended[2], ended[3]) == (b"value", b"value", None)
    assert isinstance(ended[1], Unavailable)
    assert "wrong kind of value" in str(ended[1])


async def test_closing_gives_up_what_runs(open_cache: OpenCache, redis_server: RedisServer) -> None:
    """Callers are told, and no connection stays."""
    cache = open_cache()
    await cache.set("key", b"value")
    redis_server.freeze()
    calls = [asyncio.create_task(cache.set(str(number), LARGE)) for number in range(40)]
    await until(lambda: cache._client._senders, what="calls are on their way")
    await asyncio.sleep(0.05)
    await cache.close()
    assert not cache._client._senders
    for call in calls:
        with pytest.raises(Unavailable, match="closed"):
            await call
    with pytest.raises(Unavailable, match="closed"):
        await cache.get("key")
    redis_server.thaw()
    async with redis_server.client() as redis:

        async def alone() -> bool:
            return len(await redis.client_list()) == 1

        await until(alone, seconds=REDIS_SECONDS_MAX + 2, what="only the test is connected")


async def test_a_server_that_was_started_again_is_used_again(
    cache: RedisCache, redis_server: RedisServer
) -> None:
    """By the same client; while it is away each call ends at once."""
    values = [b"value %d" % number * 100 for number in range(400)]
    await asyncio.gather(
        *(
            cache._client.put("key", value, life_seconds=60.0, only_new=False, seconds=10.0)
            for value in values
        )
    )
    redis_server.kill()
    for call in (cache.get("1"), cache.set("1", b"value"), cache.exists("1"), cache.clear()):
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await call
        assert time.monotonic() - began < CACHE_SET_SECONDS_MAX + LATE_SECONDS
    await redis_server.start()
    # Of its connections none is any good, and no caller has to find that out.
    assert await cache.get("1") is None
    assert await cache.set("1", b"new")
    assert await cache.get("1") == b"new"


@pytest.mark.usefixtures("patient")
async def test_a_large_value_is_read_whole(cache: RedisCache) -> None:
    """In turns with small ones."""
    values = {"large": random.Random(3).randbytes(700 * KIB), "small": b"small"}
    for name, value in values.items():
        await cache.set(name, value)
    for name in [*values] * 5:
        assert await cache.get(name) == values[name]
