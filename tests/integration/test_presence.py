"""Presence from a real client through a real gateway to what prioritize reads."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest

from livefeed.adapters.postgres.context import read_contexts
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.presence import PresenceTable
from livefeed.limits import PRESENCE_REPORT_SECONDS, PRESENCE_ROWS_MAX, PRESENCE_SEEN_SECONDS_MAX
from tests.servers import OwnServers, Stack, until

ONLINE, LOOKING, OFFLINE = (True, False), (True, True), (False, False)


@pytest.fixture
async def pool(stack: Stack) -> AsyncIterator[Pool]:
    pool = make_pool(stack.database_url)
    yield pool
    await pool.close()


def make_pool(url: str) -> Pool:
    return Pool(
        url, dependency="primary", connections_max=2, timeout_seconds=5, application="tests"
    )


async def context(pool: Pool, user: str, feed: str = "home") -> tuple[bool, bool]:
    """Whether a user is online, and has a feed on the screen."""
    (found,) = await read_contexts(pool, [(user, feed)])
    return found.online, found.on_screen


async def becomes(
    pool: Pool, expected: tuple[bool, bool], user: str = "alice", feed: str = "home"
) -> None:
    async def so() -> bool:
        return await context(pool, user, feed) == expected

    await until(so, what=f"{user} in {feed} is {expected}")


async def versions(pool: Pool) -> list[tuple[str, str]]:
    """Each row of presence with its version: another one when it was written again."""
    rows = await pool.fetch(
        "select user_id, xmin::text || ctid::text from feed_presence order by 1"
    )
    return [tuple(row) for row in rows]


async def test_presence_follows_the_client(stack: Stack, pool: Pool) -> None:
    """Connected and looking, hidden, looking at another feed, back, gone: each is reported."""
    await stack.start_gateway()
    assert await context(pool, "alice") == OFFLINE
    phone = stack.follow("alice")
    await becomes(pool, LOOKING)
    assert await context(pool, "alice", "other") == ONLINE
    assert await context(pool, "bob") == OFFLINE
    await phone.client.set_visibility(visible=False)
    await becomes(pool, ONLINE)
    laptop = stack.follow("alice", ["other"])
    await becomes(pool, LOOKING, feed="other")
    assert await context(pool, "alice") == ONLINE, "the phone is hidden still"
    await laptop.client.unsubscribe(["other"])
    await becomes(pool, ONLINE, feed="other")
    await laptop.client.subscribe(["home"])
    await becomes(pool, LOOKING)
    await laptop.aclose()
    await becomes(pool, ONLINE)
    await phone.aclose()
    await becomes(pool, OFFLINE)
    assert await versions(pool) == []


async def test_nothing_is_written_while_nothing_changes(stack: Stack, pool: Pool) -> None:
    """A device more, and frames that change nothing, leave the row as it is; others come and go."""
    await stack.start_gateway()
    stack.follow("alice")
    await becomes(pool, LOOKING)
    before = await versions(pool)
    tablet = stack.follow("alice")
    await tablet.caught_up()
    await tablet.client.set_visibility(visible=False)
    await tablet.client.seen()
    visitor = stack.follow("bob")
    await becomes(pool, LOOKING, "bob")  # so a report was made since
    await visitor.aclose()
    await becomes(pool, OFFLINE, "bob")
    assert await versions(pool) == before


async def test_a_user_is_online_through_any_gateway(stack: Stack, pool: Pool) -> None:
    """Gateways report apart: what is on the screen at one is, whatever the other says."""
    first, second = await stack.start_gateway(), await stack.start_gateway()
    phone = stack.follow("alice", gateway=first)
    laptop = stack.follow("alice", ["other"], gateway=second)
    await becomes(pool, LOOKING)
    await becomes(pool, LOOKING, feed="other")
    await phone.aclose()
    await becomes(pool, ONLINE)
    assert await context(pool, "alice", "other") == LOOKING
    await laptop.aclose()
    await becomes(pool, OFFLINE)


async def test_a_gateway_that_dies_counts_no_more(stack: Stack, pool: Pool) -> None:
    """After SIGKILL its rows count until it was silent for the bound, and then no more."""
    gateway = await stack.start_gateway()
    stack.follow("alice")
    await becomes(pool, LOOKING)
    gateway.kill()
    await silence(pool, PRESENCE_SEEN_SECONDS_MAX - 20)
    assert await context(pool, "alice") == LOOKING
    await silence(pool, 20.1)
    assert await context(pool, "alice") == OFFLINE


async def silence(pool: Pool, seconds: float) -> None:
    """Let this time have passed since any gateway was seen."""
    await pool.fetch(
        "update feed_gateway set seen_at = seen_at - make_interval(secs => $1)", seconds
    )


async def test_a_gateway_that_drains_takes_back_what_it_reported(stack: Stack, pool: Pool) -> None:
    """SIGTERM leaves no row, of no user and not of the gateway."""
    gateway = await stack.start_gateway()
    for user in ("alice", "bob"):
        stack.follow(user)
        await becomes(pool, LOOKING, user)
    gateway.signal(signal.SIGTERM)
    assert await gateway.wait() == 0
    assert await versions(pool) == []
    assert await pool.fetch("select from feed_gateway") == []


async def test_presence_is_reported_again_after_a_crash_of_postgres(
    own_stack: Stack, own_servers: OwnServers
) -> None:
    """The server forgets unlogged tables; the clients stay, notice nothing, and are reported."""
    gateway = await own_stack.start_gateway()
    phone, laptop = own_stack.follow("alice"), own_stack.follow("bob")
    await phone.caught_up()
    pool = make_pool(own_stack.database_url)
    await becomes(pool, LOOKING, "bob")
    await becomes(pool, LOOKING)
    own_servers.postgres.kill()
    await laptop.client.set_visibility(visible=False)
    await until(lambda: "cannot be reported" in gateway.output(), what="the gateway has noticed")
    await asyncio.sleep(2.5 * PRESENCE_REPORT_SECONDS)  # it tries again, and is silent about it
    await own_servers.postgres.start()
    await becomes(pool, LOOKING)
    await becomes(pool, ONLINE, "bob")
    await pool.close()
    await until(lambda: "reported again" in gateway.output(), what="the gateway says so")
    assert gateway.output().count("presence cannot be reported") == 1
    assert len(phone.frames_of("connection_established")) == 1
    assert not phone.frames_of("error")


async def test_a_gateway_whose_row_was_deleted_comes_under_another_id(database: str) -> None:
    """It was silent for too long: what it had reported does not count again by its return."""
    pool = make_pool(database)
    table = PresenceTable(pool)
    assert not await table.seen()
    await table.put({"alice": ("home",), "bob": ()})
    assert await table.seen()
    assert await context(pool, "alice") == LOOKING
    await pool.fetch("delete from feed_gateway")
    assert not await table.seen()
    assert await context(pool, "alice") == OFFLINE
    await table.put({"bob": ("home", "news")})
    assert [await context(pool, "bob", feed) for feed in ("home", "news", "x")] == [
        LOOKING,
        LOOKING,
        ONLINE,
    ]
    await pool.close()


async def test_leaving_takes_back_any_number(database: str) -> None:
    """More users than one statement deletes; another gateway's stay."""
    pool = make_pool(database)
    table, other = PresenceTable(pool), PresenceTable(pool)
    await table.seen()
    await other.seen()
    for start in range(0, 2 * PRESENCE_ROWS_MAX + 1, PRESENCE_ROWS_MAX):
        await table.put({f"u{start + number}": ("home",) for number in range(PRESENCE_ROWS_MAX)})
    await other.put({"alice": ("home",)})
    await table.take_back(["u0", "u1", "nobody"])
    assert await context(pool, "u0") == OFFLINE
    await table.leave()
    assert [user for user, _ in await versions(pool)] == ["alice"]
    assert await context(pool, "alice") == LOOKING
    await pool.close()
