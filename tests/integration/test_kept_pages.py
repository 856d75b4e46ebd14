"""Pages of a feed source that are kept in the database, on the real stack: by whom, for whom."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import httpx
import pytest
from livefeed_client import Item, Snapshot, fetch_snapshot
from nats.js.errors import NotFoundError

from livefeed.adapters.embedded import PostgresServer
from livefeed.cli.feed_sources import pages_of_source
from livefeed.errors import Misconfigured
from livefeed.nats_roles import CACHE_BUCKET
from livefeed.settings import load_settings
from tests.inner_gateway import InnerGateway, inner_gateway
from tests.servers import OwnServers, Process, Stack, frozen, until, update

Away = Callable[[PostgresServer], AbstractAsyncContextManager[None]]
HOUR = 3_600
ANSWER_SECONDS_MAX = 0.5
BUSY_COMPUTER_SECONDS = 0.5
"""What an answer may take beside its bound where the computer has other work."""

# It shows what the log has, oldest first, and fails while a file says so.
SOURCE = """
    import json
    from pathlib import Path

    from sqlalchemy import text

    from livefeed.feed_source import SourcePage

    BROKEN = Path(__file__).with_name("broken")
    ROWS = text(
        "select body from feed_channel channel join feed_entry entry on channel_id = channel.id"
        " join feed_body using (ref) where name = :name and facet = 0 and kind <> 2"
        " and entry.seq > floor order by entry.seq"
    )

    async def ranked(request):
        if BROKEN.exists():
            raise RuntimeError("its database is away")
        async with request.sessions() as session:
            name = f"user:{request.user_id}/{request.feed}"
            rows = (await session.execute(ROWS, {"name": name})).all()
        return SourcePage([json.loads(row.body)["content"] for row in rows])
"""


class Kept:
    """A stack whose feed source's pages are kept, and what is in its caches.

    Args:
        stack: The stack; nothing is started yet.
        settings: Of its gateways.
    """

    def __init__(self, stack: Stack, **settings: Any) -> None:
        self.stack = stack
        stack.plug_in(SOURCE, feed_source="ranked")
        defaults = {"snapshot_fresh_seconds": 60, "feed_source_pages_seconds": HOUR}
        stack.settings.update(defaults | settings)
        self.modules = stack.directory / "modules"

    def break_source(self) -> None:
        """Have the source fail from now on."""
        (self.modules / "broken").touch()

    async def get(self, number: int, user: str = "alice", **headers: str) -> httpx.Response:
        """A page from a gateway, in time."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Authorization"] = f"Bearer {self.stack.token(user)}"
        url = f"{self.stack.gateways[number].url}/v1/feeds/home"
        async with httpx.AsyncClient(timeout=5) as client:
            began = time.monotonic()
            answer = await client.get(url, headers=named)
        assert time.monotonic() - began < ANSWER_SECONDS_MAX + BUSY_COMPUTER_SECONDS
        return answer

    async def came_from(self, number: int, user: str = "alice", **headers: str) -> str:
        """Where a gateway had a page from."""
        answer = await self.get(number, user, **headers)
        assert answer.status_code == 200, answer.text
        return str(answer.headers["Cache-Status"])

    async def rows(self) -> list[asyncpg.Record]:
        """What is in the table."""
        connection = await asyncpg.connect(self.stack.database_url)
        try:
            return await connection.fetch("select key, made_at from feed_page order by made_at")
        finally:
            await connection.close()

    async def written(self, number: int) -> None:
        """Wait until so many pages are in the table."""

        async def there() -> bool:
            return len(await self.rows()) == number

        await until(there, what=f"{number} pages are in the table")

    async def empty_shared(self) -> None:
        """Take everything out of the bucket that gateways share."""
        with contextlib.suppress(NotFoundError):
            await (await self.stack.nats()).jetstream().purge_stream(f"KV_{CACHE_BUCKET}")


def ids(answer: httpx.Response) -> list[str]:
    """Of the items of a page."""
    return [item["content"]["id"] for item in answer.json()["items"]]


async def test_a_gateway_has_a_page_from_the_table(stack: Stack) -> None:
    """When nobody nearer has it; then all have it again, and the stream goes on from it."""
    kept = Kept(stack)
    await stack.start_pool()
    for _ in range(3):
        await stack.start_gateway()
    await stack.publish([update(id="first")])
    await stack.settled()
    first = await kept.get(0)
    assert first.headers["Cache-Status"] == "livefeed; fwd=miss"
    await kept.written(1)
    await kept.empty_shared()
    await stack.publish([update(id="second")])
    await stack.settled()
    second = await kept.get(1)
    assert second.headers["Cache-Status"] == "livefeed; hit; detail=table"
    assert second.headers["ETag"] == first.headers["ETag"]
    assert second.json() == first.json()
    assert ids(second) == ["first"]
    assert await kept.came_from(1) == "livefeed; hit; detail=memory"

    async def shared() -> bool:
        return await kept.came_from(2) == "livefeed; hit; detail=shared"

    await until(shared, what="it is shared again")
    snapshot = await stack.snapshot("alice", url=stack.gateways[1].url, limit=50)
    follower = stack.follow("alice", state=snapshot.state)
    await until(lambda: set(follower.ids("home")) == {"first", "second"}, what="it goes on")
    assert len(await kept.rows()) == 1


async def test_who_wants_it_young_has_it_made_and_kept(stack: Stack) -> None:
    """From then on the table has the new one."""
    kept = Kept(stack)
    await stack.start_pool()
    for _ in range(2):
        await stack.start_gateway()
    assert ids(await kept.get(0)) == []
    await kept.written(1)
    (before,) = await kept.rows()
    await stack.publish([update(id="new")])
    await stack.settled()
    await asyncio.sleep(1.1)
    await kept.empty_shared()
    young = await kept.get(1, Cache_Control="max-age=0")
    assert (young.headers["Cache-Status"], ids(young)) == ("livefeed; fwd=miss", ["new"])

    async def newer() -> bool:
        (after,) = await kept.rows()
        return bool(after["made_at"] > before["made_at"])

    await until(newer, what="the new one is in the table")


async def test_a_page_is_of_its_user_its_log_and_its_source(stack: Stack) -> None:
    """None of another user, of an epoch before, or of a source before is ever sent."""
    kept = Kept(stack)
    await stack.start_pool()
    await stack.start_gateway()
    await stack.publish([update(user, id=f"of-{user}") for user in ("alice", "bob")])
    await stack.settled()
    assert ids(await kept.get(0)) == ["of-alice"]
    bobs = await kept.get(0, "bob")
    assert (bobs.headers["Cache-Status"], ids(bobs)) == ("livefeed; fwd=miss", ["of-bob"])
    await kept.written(2)
    await kept.empty_shared()
    stack.plug_in(SOURCE.replace("ranked", "ranked_anew"), feed_source="ranked_anew")
    await stack.start_gateway()
    assert await kept.came_from(1) == "livefeed; fwd=miss"
    await kept.written(3)
    await kept.empty_shared()
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute("update feed_epoch set epoch = 'renewed'")
    await connection.close()
    await stack.start_gateway()
    renewed = await kept.get(2)
    assert renewed.headers["Cache-Status"] == "livefeed; fwd=miss"
    assert renewed.json()["cursor"].startswith("renewed.")
    await kept.written(4)


async def test_pages_of_the_log_are_never_in_the_table(stack: Stack) -> None:
    """They come from the same database: with the setting, and without a source."""
    stack.settings.update(snapshot_fresh_seconds=60, feed_source_pages_seconds=HOUR)
    await stack.start_pool()
    await stack.publish([update(id=f"p{number}") for number in range(30)])
    await stack.settled()
    async with inner_gateway(stack) as inner, httpx.AsyncClient() as client:
        headers = {"Authorization": f"Bearer {inner.token('alice')}"}
        for query in ("", "?limit=5", "?types=new_content"):
            answer = await client.get(f"{inner.url}/v1/feeds/home{query}", headers=headers)
            assert answer.status_code == 200
        levels = inner.gateway.snapshots.levels
        assert {name for name, _ in levels.counts} == {"memory", "shared", "load"}
        await until(lambda: not levels._tasks, what="all is written")
    connection = await asyncpg.connect(stack.database_url)
    assert await connection.fetchval("select count(*) from feed_page") == 0
    await connection.close()


async def test_a_source_that_fails_is_made_up_for_by_the_table(stack: Stack) -> None:
    """By a gateway that never had the page, and when it is past its time too, which is said."""
    kept = Kept(stack, snapshot_fresh_seconds=0.1, feed_source_pages_seconds=3)
    await stack.start_pool()
    await stack.start_gateway()
    await stack.publish([update(id="kept")])
    await stack.settled()
    assert ids(await kept.get(0)) == ["kept"]
    await kept.written(1)
    kept.break_source()
    await kept.empty_shared()
    await stack.start_gateway()
    for _ in range(40):
        answer = await kept.get(1)
        assert (answer.status_code, ids(answer)) == (200, ["kept"])
        await asyncio.sleep(0.1)
    assert "ttl=-" in answer.headers["Cache-Status"]
    refused = await kept.get(1, "bob")
    assert refused.status_code == 503


@contextlib.asynccontextmanager
async def stopped(server: PostgresServer) -> AsyncIterator[None]:
    """A server that is away for a while."""
    await server.stop()
    yield
    await server.start()


@contextlib.asynccontextmanager
async def hanging(server: PostgresServer) -> AsyncIterator[None]:
    """A server that answers nothing for a while."""
    with frozen(server):
        yield


@pytest.mark.parametrize("away", [stopped, hanging])
async def test_without_the_primary_the_other_levels_serve(
    own_stack: Stack, own_servers: OwnServers, away: Away
) -> None:
    """What was read is sent, what was not is made on the replica; then the table is used again."""
    replica = await own_servers.start_replica()
    kept = Kept(own_stack, replica_urls=[replica.url])
    await own_stack.start_gateway()
    assert await kept.came_from(0) == "livefeed; fwd=miss"
    await kept.written(1)
    await until(lambda: near(own_stack.gateways[0]), what="the replica is known to be near")
    async with away(own_servers.postgres):
        assert await kept.came_from(0) == "livefeed; hit; detail=memory"
        for number in range(10):
            assert await kept.came_from(0, f"away{number}") == "livefeed; fwd=miss"
            assert await kept.came_from(0, f"away{number}") == "livefeed; hit; detail=memory"
    numbers = iter(range(1_000))

    async def written_again() -> bool:
        await kept.came_from(0, f"back{next(numbers)}")
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            return len(await kept.rows()) > 1
        return False

    await until(written_again, seconds=10, what="pages are in the table again")
    assert "Traceback" not in own_stack.gateways[0].output()


async def near(gateway: Process) -> bool:
    """Whether a gateway knows its replica as close behind."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{gateway.ops_url}/healthz")
    return bool(answer.json()["replicas"][0]["lag_seconds"] == 0.0)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_page_of_the_table_and_what_follows_are_the_log(
    stack: Stack, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many updates came between; read through any gateway at any time."""
    choices = random.Random(seed)
    kept = Kept(stack)
    monkeypatch.syspath_prepend(kept.modules)
    monkeypatch.delitem(sys.modules, "feed_plugins", raising=False)
    await stack.start_pool()
    read: list[Snapshot] = []
    async with contextlib.AsyncExitStack() as running:
        inner = [await running.enter_async_context(inner_with_source(stack)) for _ in range(2)]
        for _ in range(20):
            await stack.publish([some_update(choices) for _ in range(choices.randrange(1, 8))])
            if choices.random() < 0.5:
                await stack.settled()
            one = choices.choice(inner)
            memory, *_ = one.gateway.snapshots.levels._levels
            if choices.random() < 0.7:
                await memory.cache.clear()
                await kept.empty_shared()
            # Nobody asks for it younger than a second.
            young = 1 if choices.random() < 0.2 else None
            read.append(await read_page(one, age_seconds_max=young))
        await stack.settled()
        counts = [one.gateway.snapshots.levels.counts for one in inner]
        assert sum(count["table", "hit"] for count in counts) > 3
        whole = stack.follow("alice", url=inner[0].url)
        await whole.caught_up()
        wanted = shown(whole.items("home"))
        assert any(shown(page.items) != wanted for page in read)
        for page in read:
            follower = stack.follow("alice", state=page.state, url=inner[0].url)
            await follower.caught_up()
            assert not follower.frames_of("reset")
            assert shown(follower.items("home")) == wanted


async def read_page(inner: InnerGateway, **options: Any) -> Snapshot:
    """Alice's feed from a gateway."""
    return await fetch_snapshot(
        inner.url, token=inner.token("alice"), feed="home", limit=200, **options
    )


def shown(items: Iterable[Item]) -> dict[str, Any]:
    """The contents by their ids."""
    return {item.id: item.content for item in items}


@contextlib.asynccontextmanager
async def inner_with_source(stack: Stack) -> AsyncIterator[InnerGateway]:
    """A gateway in this process, whose source is the one of the stack."""
    async with pages_of_source(load_settings(**stack.settings)) as pages:
        assert pages is not None
        async with inner_gateway(stack, pages=pages) as inner:
            yield inner


def some_update(choices: random.Random) -> dict[str, Any]:
    """Something new, something newer, or a removal; most stay the newest of their item."""
    kinds = ["new_content", "content_update", "content_update", "content_removal"]
    return update(id=f"p{choices.randrange(60)}", kind=choices.choice(kinds))


@pytest.mark.parametrize(("fresh", "kept"), [(60, 300), (60, 60), (0, 3_600)])
def test_a_time_that_makes_no_sense_is_refused(fresh: float, kept: float) -> None:
    """Where pages are fresh for as long without the table, or never."""
    with pytest.raises(Misconfigured, match="FEED_SOURCE_PAGES_SECONDS must be 0, or more"):
        load_settings(snapshot_fresh_seconds=fresh, feed_source_pages_seconds=kept)
    assert load_settings(snapshot_fresh_seconds=fresh).feed_source_pages_seconds == 0
    assert load_settings(feed_source_pages_seconds=301).feed_source_pages_seconds == 301
