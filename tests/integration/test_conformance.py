"""One log, three doors: whatever is done, each of them shows the same, and that is the log."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from livefeed_client import FeedState

from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.reads import read_pages
from livefeed.channel import channels_of
from livefeed.cursor import client_epoch
from livefeed.feed_view import FeedItem, public_item
from tests.doors import DOORS, EventsSession, PollSession, RefusedAtTheDoor, Session
from tests.reference_feed import items_of
from tests.servers import Stack, until, update

CONTENT = "new_content,content_update"


async def test_every_door_shows_the_log(stack: Stack) -> None:
    """First read, live, removal, away, back: exactly the log each time, and each update once."""
    await running(stack)
    metadata = {"source": "posts", "experimentId": "blue-button", "secret": "x"}
    await stack.publish([update(id="p1"), update(id="p2", metadata=metadata), topic(id="t1")])
    await stack.settled()
    async with AsyncExitStack() as opened:
        sessions = [await opened.enter_async_context(door(stack, "alice")) for door in DOORS]
        for session in sessions:
            await session.until_caught_up()
            await session.until_shown("p1", "p2", "t1")
            # Who published, and for which experiment; other fields are not passed on.
            (given,) = [one["metadata"] for one in session.updates if one["metadata"]]
            assert given == {"source": "posts", "experimentId": "blue-button"}
        await stack.publish([update(id="p3"), update(id="p1", kind="content_removal")], "high")
        await stack.publish([update(id="p2", kind="engagement_update", content=likes("p2", 5))])
        for session in sessions:
            await session.until_shown("p2", "p3", "t1")
        await stack.settled()
        await agree(stack, "alice", sessions)
    away = [update(id=f"a{number}") for number in range(3)]
    await stack.publish([*away, update(id="p3", kind="content_removal"), topic(id="t2")])
    await stack.settled()
    # Each goes on where the one before it was: a cursor is of the log, not of a door.
    for before, door in zip(sessions, (*DOORS[1:], DOORS[0]), strict=True):
        async with door(stack, "alice", cursor=before.cursor, state=before.state) as session:
            await session.until_caught_up()
            await session.until_shown("p2", "t1", "a0", "a1", "a2", "t2")
            await agree(stack, "alice", [session])
            assert len(session.updates) == 5, "what is newer than the cursor, and nothing else"


async def test_many_pages_come_whole(stack: Stack) -> None:
    """More than fits a page, and more than fits an answer, comes in order and to its end."""
    await running(stack)
    large = [{"id": f"p{number}", "x": "x" * 6_000} for number in range(400)]
    for start in range(0, 400, 40):
        await stack.publish([update(content=large[start : start + 40])])
    await stack.settled()
    for door in DOORS:
        async with door(stack, "alice") as session:
            await session.until_caught_up()
            await agree(stack, "alice", [session])
            assert len(session.updates) == 400
            assert len(session.frames_of("feed_updates")) > 1


async def test_a_cursor_of_another_log_is_reset(stack: Stack) -> None:
    """What the client held is dropped, and the feed comes from its beginning."""
    await running(stack)
    await stack.publish([update(id="p1")])
    await stack.settled()
    async with PollSession(stack, "alice") as session:
        own = session.state.cursor.epoch
    foreign = client_epoch("f" * 32, "alice")
    for epoch, reason in ((foreign, "epoch_changed"), (own, "position_ahead")):
        for door in DOORS:
            state = FeedState()
            state.apply({"type": "connection_established", "epoch": epoch})
            state.apply(ghost())
            async with door(stack, "alice", cursor=f"{epoch}:me/home=99", state=state) as back:
                await back.until_caught_up()
                await back.until_shown("p1")
                reasons = [frame["reason"] for frame in back.frames_of("reset")]
                assert reasons == [reason], back.door
                await agree(stack, "alice", [back])


async def test_every_door_refuses_the_same(stack: Stack) -> None:
    """The same code through each door; over HTTP the status that the page says."""
    await stack.start_gateway()
    async with PollSession(stack, "alice") as session:
        cursor = session.cursor
    epoch = str(cursor).partition(":")[0]
    expired = stack.token("alice", exp=int(time.time()) - 60)
    rows: list[tuple[str, int, dict[str, Any]]] = [
        ("token_expired", 401, {"token": expired}),
        ("token_invalid", 401, {"token": "x"}),
        ("feed_forbidden", 403, {"token": stack.token("alice", feeds=["other"])}),
        ("feed_invalid", 400, {"feed": "Home"}),
        ("cursor_foreign", 400, {"user": "bob", "cursor": cursor}),
        ("cursor_invalid", 400, {"cursor": "x:me/home=1"}),
        ("cursor_invalid", 400, {"cursor": f"{epoch}:user/home=1"}),
        ("parameter_invalid", 400, {"types": "removals"}),
        ("parameter_invalid", 400, {"types": ""}),
    ]
    for code, status, given in rows:
        for door in DOORS:
            asked = door(stack, given.get("user", "alice"), **without(given, "user"))
            with pytest.raises(RefusedAtTheDoor) as refused:
                await asked.open()
            await asked.aclose()
            assert refused.value.code == code, (door.door, given)
            assert refused.value.status in {status, None}, (door.door, given)
    for wait in ("-1", "31", "1.5", "x", ""):
        asked = PollSession(stack, "alice")
        asked.parameters = {"wait": wait}
        with pytest.raises(RefusedAtTheDoor) as refused:
            await asked.open()
        await asked.aclose()
        assert refused.value.code == "parameter_invalid", wait


async def test_a_filter_hides_updates_and_nothing_else(stack: Stack) -> None:
    """Live and caught up, each filter shows its facet of the log; a removal always comes."""
    await running(stack)
    before = [update(id="p1"), update(id="p1", kind="engagement_update", content=likes("p1", 1))]
    await stack.publish(before)
    await stack.settled()
    async with AsyncExitStack() as opened:
        content = [
            await opened.enter_async_context(door(stack, "alice", types=CONTENT)) for door in DOORS
        ]
        counted = [
            await opened.enter_async_context(door(stack, "alice", types="engagement_update"))
            for door in DOORS
        ]
        for session in (*content, *counted):
            await session.until_caught_up()
        await stack.publish([update(id="p1", kind="engagement_update", content=likes("p1", 2))])
        await stack.settled()
        await stack.publish([update(id="p2"), update(id="p1", kind="content_removal")])
        for session in content:
            await session.until_shown("p2")
            assert kinds(session) <= {"new_content", "content_update", "content_removal"}
            assert [item.engagement for item in session.items] == [None]
        await stack.publish([update(id="p2", kind="engagement_update", content=likes("p2", 3))])
        for session in counted:
            await until_liked(session, "p2", 3)
            assert kinds(session) == {"engagement_update"}
            assert session.items == []
    # What was hidden is behind the cursor, or comes when the filter is gone.
    for door in DOORS:
        async with door(stack, "alice") as session:
            await session.until_caught_up()
            await agree(stack, "alice", [session])


async def test_a_token_that_runs_out_ends_every_door(stack: Stack) -> None:
    """4001 over a WebSocket and a stream; a long poll is answered, and the next one is 401."""
    await stack.start_gateway(token_grace_seconds=1)
    # Still good for 4 s at the door, and over for who is inside.
    token = stack.token("alice", exp=int(time.time()) - 1)
    async with AsyncExitStack() as opened:
        sessions = [
            await opened.enter_async_context(door(stack, "alice", token=token)) for door in DOORS
        ]
        for session in sessions:
            await until_closed(session)
        assert [session.closed for session in sessions] == [4001, 4001, 401]


async def test_a_leaving_gateway_ends_every_door(stack: Stack) -> None:
    """A stream is told when to come back and why it ended; a long poll is answered at once."""
    gateway = await stack.start_gateway()
    async with EventsSession(stack, "alice") as events, PollSession(stack, "alice") as poll:
        await events.until_caught_up()
        await poll.until_caught_up()
        assert await gateway.stop() == 0
        (frame,) = events.frames_of("reconnect")
        assert (frame["reason"], events.closed) == ("drain", 1012)
        assert poll.frames_of("reset") == []


# Helpers.


async def running(stack: Stack) -> None:
    await stack.start_gateway()
    await stack.start_pool()


def topic(id: str) -> dict[str, Any]:  # noqa: A002 - what the wire calls it
    return update(None, id=id, audience={"feed": True})


def likes(id: str, number: int) -> dict[str, Any]:  # noqa: A002 - what the wire calls it
    return {"id": id, "likes": number}


def without(given: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in names}


def kinds(session: Session) -> set[str]:
    return {one["updateType"] for one in session.updates}


def ghost() -> dict[str, Any]:
    """A frame with an item that the log does not have."""
    one = {"channel": "me/home", "seq": 99, "rank": 1.0, "updateType": "new_content"}
    one |= {"updateId": "u", "timestamp": "t", "version": None, "content": {"id": "ghost"}}
    return {"type": "feed_updates", "updates": [one], "cursor": {"me/home": 99}, "floor": {}}


async def until_liked(session: Session, item_id: str, number: int) -> None:
    await until(
        lambda: likes(item_id, number) in [one["content"] for one in session.updates],
        what=f"{session.door} counts",
    )


async def until_closed(session: Session) -> None:
    await until(lambda: session.closed, what=f"{session.door} is closed")


async def agree(stack: Stack, user: str, sessions: list[Session]) -> None:
    """Every client shows what the log holds."""
    expected = await the_log(stack, user)
    for session in sessions:
        shown = [(one.channel, one.id, one.content, one.engagement) for one in session.items]
        assert shown == expected, session.door


async def the_log(stack: Stack, user: str, feed: str = "home") -> list[tuple[Any, ...]]:
    """What the log holds of a feed, in feed order, read without a gateway."""
    pool = Pool(
        stack.database_url,
        dependency="primary",
        connections_max=1,
        timeout_seconds=10,
        application="tests",
    )
    found: list[FeedItem] = []
    try:
        for number, channel in enumerate(channels_of(user, feed)):
            (page,) = await read_pages(pool, [(channel, 0)], entries_max=10_000, bytes_max=2**30)
            found += map(public_item, items_of(channel, number, page.updates))
    finally:
        await pool.close()
    decoded = [
        (
            one.channel,
            *(part and msgspec.json.decode(part) for part in (one.content, one.engagement)),
        )
        for one in sorted(found, key=FeedItem.order)
    ]
    return [(channel, one["id"], one, likes) for channel, one, likes in decoded if one]
