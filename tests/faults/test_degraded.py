"""NATS or Postgres is away: every door says so, serves what it can, and says when it is over."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from livefeed.limits import HEAD_CHECK_DEGRADED_SECONDS
from tests.doors import DOORS, EventsSession, PollSession, Session, WebSocketSession
from tests.integration.test_conformance import agree
from tests.servers import OwnServers, Stack, until, update


@pytest.mark.parametrize("away", ["nats", "postgres"])
async def test_clients_are_told_that_updates_may_be_late(
    own_stack: Stack, own_servers: OwnServers, away: str
) -> None:
    """Who stays and who comes meanwhile is told, and told again when it is over; all end exact."""
    stack, server = own_stack, getattr(own_servers, away)
    await stack.start_gateway()
    await stack.start_pool()
    await stack.publish([update(id="p1")])
    await stack.settled()
    async with AsyncExitStack() as opened:
        stayed = [await opened.enter_async_context(door(stack, "alice")) for door in DOORS]
        for session in stayed:
            await session.until_caught_up()
        await server.stop()
        for session in stayed[:2]:
            await told(session, realtime=False)
        came = [
            await opened.enter_async_context(door(stack, "alice"))
            for door in (WebSocketSession, EventsSession)
        ]
        for session in came:
            await told(session, realtime=False)
        if away == "nats":
            # Nobody else has subscribed to what this one wants.
            async with PollSession(stack, "bob") as stranger:
                await stranger.until_caught_up()
            # It comes without a push: the log is looked at instead.
            came.append(await opened.enter_async_context(PollSession(stack, "alice")))
            await past_the_streams(own_servers)
            # Each within `pollAfterMs`, and not when heads are compared in peace.
            async with asyncio.timeout(HEAD_CHECK_DEGRADED_SECONDS + 5):
                for session in (*stayed, *came):
                    await session.until_shown("p1", "late")
        await server.start()
        for session in (*stayed[:2], *came[:2]):
            await told(session, realtime=True)
        await stack.publish([update(id="p2")], "high")
        for session in (*stayed, *came):
            await until(lambda s=session: "p2" in s.ids, seconds=20, what=f"{session.door} goes on")
        await stack.settled()
        await agree(stack, "alice", [*stayed, *came])
        assert all(session.closed is None for session in (*stayed, *came))


async def told(session: Session, *, realtime: bool) -> None:
    def latest() -> bool:
        frames = session.frames_of("degraded")
        return bool(frames) and frames[-1]["realtime"] is realtime

    await until(latest, seconds=20, what=f"{session.door} is told realtime: {realtime}")
    assert [frame["realtime"] for frame in session.frames_of("degraded")] == [False, True][
        : 1 + realtime
    ]


async def past_the_streams(servers: OwnServers) -> None:
    """Write an entry as `deliver` would, while nothing can be published or pushed."""
    connection: Any = await asyncpg.connect(servers.postgres.url)
    try:
        await connection.execute(
            """
            with head as (
                update feed_channel set seq = seq + 1 where name = 'user:alice/home'
                returning id, seq
            ), entry as (
                insert into feed_entry (channel_id, item, facet, seq, explicit, version, ref, kind,
                    born)
                select id, 7, 0, seq, 0, 1, $1, 0, 1 from head
            )
            insert into feed_body (ref, update_id, body, published_at, accepted_at)
            values ($1, 'late', $2, now(), now())
            """,
            b"\7" * 16,
            b'{"updateId":"late","updateType":"new_content","feedType":"home",'
            b'"content":{"id":"late"},"timestamp":"2026-11-23T08:00:00Z","version":null,'
            b'"priority":"high","metadata":{}}',
        )
    finally:
        await connection.close()
