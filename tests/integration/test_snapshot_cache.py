"""Feeds over HTTP through the caches: what is sent again, how old, and what with the log away."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from livefeed_client import fetch_snapshot

from gateway.feed_door import TAG_BYTES, pack
from gateway.memory import MemoryWatch
from livefeed.adapters.cache.memory import BoundedMemoryCache
from tests.inner_gateway import inner_gateway
from tests.redis_server import RedisServer
from tests.servers import OwnServers, Process, Stack, until, update

FRESH_SECONDS = 60
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "ranked_home.py"
DOWN = """
    import asyncio

    async def ranked(request):
        if request.user_id == "broken":
            raise RuntimeError("its database is away")
        if request.user_id == "slow":
            await asyncio.sleep(60)
        return {"items": []}
"""
EMPTY = """
    from livefeed.errors import AfterRefused
    from livefeed.feed_source import SourcePage

    async def ranked(request):
        if request.after is not None:
            raise AfterRefused
        return SourcePage([])
"""


class Reader:
    """A user of one feed."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=5
        )

    async def __aenter__(self) -> Reader:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def get(self, query: str = "", **headers: str) -> httpx.Response:
        """The feed."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._client.get(f"/v1/feeds/home{query}", headers=named)


@pytest.fixture
async def locked_redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis with a password."""
    server = RedisServer(tmp_path / "redis", "--requirepass", "hush")
    try:
        await server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(params=["nats_kv", "redis"])
async def shared(
    request: pytest.FixtureRequest, stack: Stack, tmp_path: Path
) -> AsyncIterator[str]:
    """What the gateways of a stack share pages in: each of the two in turn."""
    if request.param == "nats_kv":
        yield "nats_kv"
        return
    server = RedisServer(tmp_path / "redis")
    try:
        await server.start()
        stack.settings["redis_url"] = server.url
        yield "redis"
    finally:
        server.kill()


def with_password(server: RedisServer) -> str:
    """The URL of `locked_redis`."""
    return server.url.replace("//", "//:hush@")


def reader(stack: Stack, number: int = 0, user: str = "alice") -> Reader:
    """One that reads from a gateway of the stack."""
    return Reader(stack.gateways[number].url, stack.token(user))


async def caches_of(gateway: Process) -> dict[str, dict[str, Any]]:
    """What /healthz says of each level."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{gateway.ops_url}/healthz")
    return {level["name"]: level for level in answer.json()["caches"]["levels"]}


def came_from(answer: httpx.Response) -> str:
    """Where the gateway had it from."""
    assert answer.status_code == 200, answer.text
    return answer.headers["Cache-Status"]


async def test_a_page_is_sent_again_and_the_stream_goes_on_from_it(
    stack: Stack, shared: str
) -> None:
    """From the gateway's memory, then from what the gateways share; it may be young if asked."""
    await stack.start_pool()
    for _ in range(2):
        await stack.start_gateway(snapshot_fresh_seconds=FRESH_SECONDS)
    await stack.publish([update(id="first")])
    await stack.settled()
    async with reader(stack) as here, reader(stack, 1) as there:
        first = await here.get()
        assert came_from(first) == "livefeed; fwd=miss"
        await stack.publish([update(id="second")])
        await stack.settled()
        second = await here.get()
        assert came_from(second) == "livefeed; hit; detail=memory"
        assert second.json() == first.json()
        assert 0 <= int(second.headers["Age"]) < 10
        third = await there.get()
        assert came_from(third) == "livefeed; hit; detail=shared"
        shown = [await caches_of(gateway) for gateway in stack.gateways]
        assert [levels["memory"]["hit"] for levels in shown] == [1, 0]
        assert [levels["shared"]["hit"] for levels in shown] == [0, 1]
        assert {levels["shared"]["kind"] for levels in shown} == {shared}
        streams = await (await stack.nats()).jetstream().streams_info()
        has_bucket = "KV_feed_cache" in {stream.config.name for stream in streams}
        assert has_bucket == (shared == "nats_kv"), "none is made that nobody uses"
        assert third.json() == first.json()
        kept = await stack.snapshot("alice", limit=50)
        assert [item.id for item in kept.items] == ["first"]
        follower = stack.follow("alice", state=kept.state)
        await until(lambda: follower.ids("home") == ["second", "first"], what="it goes on")
        await asyncio.sleep(1.1)
        young = await here.get(Cache_Control="max-age=0")
        assert came_from(young) == "livefeed; fwd=miss"
        assert [item["content"]["id"] for item in young.json()["items"]] == ["second", "first"]


async def test_old_pages_and_the_stream_after_them_are_the_log(stack: Stack, shared: str) -> None:
    """Pages of any age out of any level, while updates come, items go and engagement changes:
    whoever goes on from one ends where the log is."""
    await stack.start_pool()
    for _ in range(2):
        await stack.start_gateway(snapshot_fresh_seconds=FRESH_SECONDS)
    chance, followers, levels = random.Random(11), [], set()
    for step in range(12):
        kinds = ["new_content", "new_content", "engagement_update", "content_removal"]
        await stack.publish(
            update(id=f"p{chance.randrange(12)}", kind=chance.choice(kinds)) for _ in range(5)
        )
        if step % 3 == 0:
            await stack.settled()
        async with reader(stack, step % 2) as alice:
            young = {} if step % 4 else {"Cache_Control": "max-age=0"}
            levels.add(came_from(await alice.get("?limit=50", **young)))
        kept = await stack.snapshot("alice", limit=50, url=stack.gateways[step % 2].url)
        followers.append(stack.follow("alice", state=kept.state, gateway=stack.gateways[step % 2]))
    await stack.settled()
    await asyncio.sleep(1.1)
    log = await stack.snapshot("alice", limit=50, age_seconds_max=1)
    wanted = [(item.id, item.content, item.engagement) for item in log.items]
    for follower in followers:
        await until(
            lambda one=follower: (
                [(item.id, item.content, item.engagement) for item in one.items("home")] == wanted
            ),
            what="it has what the log has",
        )
    assert {"livefeed; hit; detail=memory", "livefeed; hit; detail=shared"} <= levels, levels


@pytest.mark.parametrize("fault", ["hangs", "is away"])
async def test_a_shared_cache_that_fails_delays_nobody(
    stack: Stack, locked_redis: RedisServer, fault: str
) -> None:
    """Pages come from the log in time; it is said why; within 5 s of its return Redis is used
    again, and what one gateway makes the other one finds. A gateway leaves without it too."""
    stack.settings["redis_url"] = with_password(locked_redis)
    for _ in range(2):
        await stack.start_gateway(snapshot_fresh_seconds=FRESH_SECONDS)
    numbers, slowest, late = itertools.count(), 0.0, 0
    # One for all: to make one takes longer than a page.
    client = httpx.AsyncClient(base_url=stack.gateways[0].url, timeout=5)

    async def ask() -> None:
        """The page of a user who was never seen before."""
        nonlocal slowest, late
        bearer = {"Authorization": f"Bearer {stack.token(f'user-{next(numbers)}')}"}
        began = time.monotonic()
        answer = await client.get("/v1/feeds/home", headers=bearer)
        slowest = max(slowest, time.monotonic() - began)
        if answer.status_code == 503:
            late += 1
        else:
            assert came_from(answer) == "livefeed; fwd=miss"

    async def breaker() -> str:
        return str((await caches_of(stack.gateways[0]))["shared"]["breaker"])

    async def asked_until(state: str) -> bool:
        await asyncio.gather(*(ask() for _ in range(5)))
        return await breaker() == state

    await until(lambda: asked_until("closed"), what="all is well")
    slowest, late = 0.0, 0
    if fault == "hangs":
        locked_redis.freeze()
    else:
        locked_redis.kill()
    await until(lambda: asked_until("open"), what="the breaker opens")
    for _ in range(20):
        await asyncio.gather(*(ask() for _ in range(5)))
    assert slowest < 1.0, "half a second, and what a busy computer adds"
    assert late <= 2, "of a hundred, on a computer that is too busy to read the log in time"
    if fault == "hangs":
        locked_redis.thaw()
    else:
        await locked_redis.start()
    await until(lambda: asked_until("closed"), seconds=5 + 5, what="the breaker closes")

    async def is_shared() -> bool:
        user = f"late-{next(numbers)}"
        async with reader(stack, 0, user) as here, reader(stack, 1, user) as there:
            assert came_from(await here.get()) == "livefeed; fwd=miss"
            # It is put there behind the answer.
            await asyncio.sleep(0.05)
            return came_from(await there.get()) == "livefeed; hit; detail=shared"

    await until(is_shared, what="the other gateway finds what this one makes")
    print(f"slowest {slowest * 1e3:.0f} ms")
    locked_redis.freeze()
    await asyncio.gather(*(ask() for _ in range(5)))
    await client.aclose()
    assert await stack.gateways[0].stop() == 0
    output = stack.gateways[0].output()
    assert "the shared cache (redis) is left alone until it answers: redis is" in output
    assert "the shared cache (redis) is used again" in output
    assert "Traceback" not in output
    assert "hush" not in output


async def test_a_redis_that_refuses_is_named(stack: Stack, locked_redis: RedisServer) -> None:
    """A wrong password costs no page; the log says what is wrong, and nobody says the password."""
    url = locked_redis.url.replace("//", "//:not-this@")
    gateway = await stack.start_gateway(redis_url=url)
    for number in range(4):
        async with reader(stack, 0, f"user-{number}") as one:
            assert came_from(await one.get()) == "livefeed; fwd=miss"

    async def opened() -> bool:
        return (await caches_of(gateway))["shared"]["breaker"] == "open"

    await until(opened, what="the breaker opens")
    assert "redis is unavailable: it does not take the user and password" in gateway.output()
    stack.settings["redis_url"] = url
    shown = await stack.command("config")
    assert f"LIVEFEED_REDIS_URL={locked_redis.url.replace('//', '//:***@')}" in shown.stdout
    async with httpx.AsyncClient() as client:
        told = (await client.get(f"{gateway.ops_url}/healthz")).text
    for text in (gateway.output(), shown.stdout, shown.stderr, told):
        assert "not-this" not in text


async def test_the_same_page_is_a_304_and_small(stack: Stack) -> None:
    """The tag is of the body, so it is the same from each gateway; gzip for whoever takes it."""
    await stack.start_pool()
    for _ in range(2):
        await stack.start_gateway()
    await stack.publish([update(id=f"p{number}") for number in range(30)])
    await stack.settled()
    async with reader(stack) as here, reader(stack, 1) as there:
        plain = await here.get(Accept_Encoding="identity")
        packed = await there.get(Accept_Encoding="br, gzip;q=0.5")
        refused = await there.get(Accept_Encoding="gzip;q=0")
        assert "Content-Encoding" not in plain.headers
        assert "Content-Encoding" not in refused.headers
        assert packed.headers["Content-Encoding"] == "gzip"
        assert int(packed.headers["Content-Length"]) < len(plain.content) / 3
        assert packed.json() == plain.json() == refused.json()
        tag = plain.headers["ETag"]
        assert packed.headers["ETag"] == tag
        same = await there.get(If_None_Match=f'"other", {tag}')
        assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)
        await stack.publish([update(id="new")])
        await stack.settled()
        assert (await here.get(If_None_Match=tag)).status_code == 200


async def test_what_was_read_is_answered_with_everything_away(
    own_stack: Stack, own_servers: OwnServers
) -> None:
    """Within 500 ms, marked as stale when it is; what nobody has read is a 503; then it is back."""
    await own_stack.start_pool()
    await own_stack.start_gateway(snapshot_fresh_seconds=0.5)
    await own_stack.publish([update(id="kept")])
    await own_stack.settled()
    async with reader(own_stack) as alice, reader(own_stack, user="bob") as bob:
        before = await alice.get()
        await asyncio.sleep(0.7)
        await own_servers.postgres.stop()
        own_servers.nats.kill()
        slowest = 0.0
        for _ in range(30):
            began = time.monotonic()
            answer = await alice.get()
            slowest = max(slowest, time.monotonic() - began)
            assert "ttl=-" in came_from(answer)
            assert answer.json() == before.json()
            await asyncio.sleep(0.05)
        began = time.monotonic()
        refused = await bob.get()
        slowest = max(slowest, time.monotonic() - began)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert slowest < 1.0, "half a second, and what a busy computer adds"
        print(f"slowest {slowest * 1e3:.0f} ms")
        await own_servers.nats.start()
        await own_servers.postgres.start()

        async def back() -> bool:
            answer = await bob.get()
            return answer.status_code == 200 and "ttl" not in came_from(await alice.get())

        await until(back, seconds=5 + 5, what="pages are made again")
    assert "Traceback" not in own_stack.gateways[0].output()


async def test_many_askers_cost_one_read(stack: Stack) -> None:
    """Of a page that nobody has, whoever of them is first."""
    stack.settings["snapshot_fresh_seconds"] = FRESH_SECONDS
    await stack.start_pool()
    await stack.publish([update(id="hot")])
    async with inner_gateway(stack) as inner:
        await stack.settled()
        async with Reader(inner.url, inner.token("alice")) as alice:
            answers = await asyncio.gather(*(alice.get() for _ in range(200)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert inner.gateway.snapshots.levels.counts["load", "started"] == 1


async def test_the_python_client_reads_what_is_kept(stack: Stack) -> None:
    """And goes on from it: a snapshot and its stream are the log."""
    await stack.start_pool()
    await stack.start_gateway(snapshot_fresh_seconds=FRESH_SECONDS)
    token = stack.token("alice")
    await stack.publish([update(id="first")])
    await stack.settled()
    await fetch_snapshot(stack.url, token=token, feed="home")
    await stack.publish([update(id="second")])
    await stack.settled()
    kept = await fetch_snapshot(stack.url, token=token, feed="home")
    assert [item.id for item in kept.items] == ["first"]
    await asyncio.sleep(1.1)
    young = await fetch_snapshot(stack.url, token=token, feed="home", age_seconds_max=1)
    assert [item.id for item in young.items] == ["second", "first"]


@pytest.mark.parametrize("query", ["?x=1", "?limit=0", "?after=!", "?types=nothing"])
async def test_parameters_fill_no_cache(stack: Stack, query: str) -> None:
    """Each invented one would be another page."""
    await stack.start_gateway()
    async with reader(stack) as alice:
        answer = await alice.get(query)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "parameter_invalid"


async def test_a_source_that_fails_is_said_and_left_alone(stack: Stack) -> None:
    """Raised, late, or no page: a 503 in time, and no traceback."""
    stack.plug_in(DOWN, feed_source="ranked")
    gateway = await stack.start_gateway()
    for user in ("broken", "slow", "odd"):
        async with reader(stack, user=user) as one:
            began = time.monotonic()
            answer = await one.get()
            assert time.monotonic() - began < 1.0
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "unavailable"
    assert "feed source" in gateway.output()
    assert "Traceback" not in gateway.output()


async def test_an_invented_after_is_no_failure_of_the_source(stack: Stack) -> None:
    """The client is told; the breaker stays closed, so the others are served."""
    stack.plug_in(EMPTY, feed_source="ranked")
    await stack.start_gateway()
    async with reader(stack) as alice:
        for number in range(5):
            answer = await alice.get(f"?after={number}")
            assert answer.status_code == 400
            assert answer.json()["error"]["code"] == "parameter_invalid"
        assert came_from(await alice.get()) == "livefeed; fwd=miss"


SCHEMA = """
create table app_profile (user_id text primary key, topics text[] not null);
create table app_follow (follower text, author text, primary key (follower, author));
create table app_post (id text primary key, author text, topic text, title text,
    created_at timestamptz not null);
insert into app_profile values ('alice', '{birds}');
insert into app_follow values ('alice', 'carol');
insert into app_post values
    ('old', 'dave', 'cars', 'An old car', '2026-11-01'),
    ('bird', 'dave', 'birds', 'A bird', '2026-11-02'),
    ('new', 'dave', 'cars', 'A new car', '2026-11-02 01:00'),
    ('carol', 'carol', 'cars', 'From Carol', '2026-11-01 20:00');
"""


async def test_the_example_ranks_a_feed_and_the_stream_goes_on(
    own_stack: Stack, own_servers: OwnServers
) -> None:
    """The source of docs/examples, on the application's own tables, read from a replica."""
    own_stack.plug_in(EXAMPLE.read_text(), feed_source="ranked_home")
    replica = await own_servers.start_replica()
    connection = await asyncpg.connect(own_servers.postgres.url)
    await connection.execute(SCHEMA)
    await connection.close()
    await own_stack.start_pool()
    await own_stack.start_gateway(replica_urls=[replica.url])
    async with reader(own_stack) as alice:

        async def replicated() -> Any:
            return (await alice.get()).status_code == 200

        await until(replicated, seconds=15, what="the replica has the tables")
        page = (await alice.get("?limit=3")).json()
        assert [item["content"]["id"] for item in page["items"]] == ["carol", "bird", "new"]
        rest = (await alice.get(f"?limit=3&after={page['next']}")).json()
        assert [item["content"]["id"] for item in rest["items"]] == ["old"]
        assert rest["next"] is None
        assert (await alice.get("?after=x")).status_code == 400
    snapshot = await fetch_snapshot(own_stack.url, token=own_stack.token("alice"), feed="home")
    assert [item.id for item in snapshot.items] == ["carol", "bird", "new", "old"]


def test_memory_is_given_back_before_it_is_full() -> None:
    """Halved at 80 %, emptied at 90 %."""
    share = 0.5
    cache = BoundedMemoryCache()
    watch = MemoryWatch(lambda: share, cache)

    async def fill() -> None:
        for number in range(100):
            await cache.set(f"k{number}", b"x" * 10_000, ttl=60)

    asyncio.run(fill())
    watch.look()
    assert cache.entries == 100
    share = 0.8
    watch.look()
    assert 45 <= cache.entries <= 50
    share = 0.9
    watch.look()
    assert cache.entries == 0
    assert (watch.shrunk, watch.emptied) == (1, 1)


def test_the_body_is_the_same_bytes() -> None:
    """Compressed at another moment too: the tag and the shared cache lean on it."""
    body = json.dumps({"items": list(range(100))}).encode()
    first = pack(body)
    time.sleep(1.1)
    assert pack(body) == first
    assert gzip.decompress(first[TAG_BYTES:]) == body
