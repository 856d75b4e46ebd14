"""`seen` markers: what a device says that it has shown is counted no more."""

from __future__ import annotations

from typing import Any

import pytest

from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.seen import Marker, Seen, mark_seen
from livefeed.limits import SEEN_DEVICES_MAX
from tests.doors import WebSocketSession
from tests.servers import Stack, until, update


async def test_what_any_device_has_shown_is_read(stack: Stack) -> None:
    """The furthest device counts; engagement makes nothing unread, a change of content does."""
    await stack.start_gateway()
    await stack.start_pool()
    await stack.publish([update(id=f"p{number}") for number in range(3)])
    await stack.settled()
    assert (await stack.snapshot("alice")).unread == 3
    phone = stack.follow("alice")
    await phone.caught_up()
    await phone.client.seen("phone")
    await until(lambda: unread(stack, 0), what="everything is read")
    await stack.publish([update(id="p0", kind="engagement_update", content={"id": "p0", "n": 1})])
    await stack.publish([update(id="p1", kind="content_update"), update(id="p3")])
    await stack.settled()
    assert (await stack.snapshot("alice")).unread == 2
    # A device that is behind takes nothing back, and nobody has shown what was not sent.
    async with WebSocketSession(stack, "alice") as laptop:
        await laptop.until_caught_up()
        for seq in (1, 10**9):
            cursor = {"epoch": laptop.state.cursor.epoch, "positions": {"me/home": seq}}
            await laptop.send({"type": "seen", "device": "laptop", "cursor": cursor})
            await until(lambda seq=seq: unread(stack, 2 if seq == 1 else 0), what="it is noted")
        for device in ("a\0b", "a\nb", "\x7f"):
            refused = len(laptop.frames_of("error"))
            await laptop.send({"type": "seen", "device": device, "cursor": cursor})
            await until(lambda n=refused: len(laptop.frames_of("error")) > n, what="it is refused")
        foreign = {"epoch": laptop.state.cursor.epoch[:-1] + "x", "positions": {}}
        await laptop.send({"type": "seen", "device": "laptop", "cursor": foreign})
        await until(lambda: len(laptop.frames_of("error")) == 4, what="a bad cursor is refused")
    await stack.publish([update(id="p4")])
    await stack.settled()
    printed = await stack.command(
        "snapshot", "--user", "alice", "--feed", "home", "--url", stack.url
    )
    assert "5 items, 1 unread" in printed.stdout


async def unread(stack: Stack, number: int) -> bool:
    return (await stack.snapshot("alice")).unread == number


@pytest.fixture
async def pool(database: str) -> Any:
    pool = Pool(
        database, dependency="primary", connections_max=2, timeout_seconds=5, application="tests"
    )
    yield pool
    await pool.close()


async def channel_of(pool: Pool, name: str, head: int) -> str:
    """Make a channel with this head; returns the log's epoch."""
    await pool.fetch("insert into feed_channel (name, seq) values ($1, $2)", name, head)
    ((epoch,),) = await pool.fetch("select epoch from feed_epoch")
    return str(epoch)


async def furthest_seen(
    pool: Pool, user_id: str, channels: list[str], epoch: str
) -> dict[str, int]:
    """How far any device of a user has shown channels; one without a marker is left out."""
    rows = await pool.fetch(
        "select channel, max(position) as position from feed_seen where user_id = $1"
        " and channel = any($2::text[]) and epoch = $3 group by channel",
        user_id,
        channels,
        epoch,
    )
    return {row["channel"]: row["position"] for row in rows}


async def test_markers_only_rise_within_an_epoch(pool: Pool) -> None:
    """A late or repeated marker changes nothing; none is about another log, or above its head."""
    marker = Marker("alice", "user:alice/home", "phone")
    nowhere = Marker("alice", "user:alice/other", "phone")
    epoch = await channel_of(pool, marker.channel, 9)
    for seen, furthest in [(5, 5), (3, 5), (8, 8), (10**15, 9)]:
        await mark_seen(pool, {marker: Seen(epoch, seen), nowhere: Seen(epoch, seen)})
        found = await furthest_seen(pool, "alice", [marker.channel, nowhere.channel], epoch)
        assert found == {marker.channel: furthest}
    await mark_seen(pool, {marker: Seen("of another log", 2)})
    assert await furthest_seen(pool, "alice", [marker.channel], epoch) == {marker.channel: 9}
    await pool.fetch("update feed_epoch set epoch = 'restored'")
    assert await furthest_seen(pool, "alice", [marker.channel], "restored") == {}
    await mark_seen(pool, {marker: Seen("restored", 2)})
    assert await furthest_seen(pool, "alice", [marker.channel], "restored") == {marker.channel: 2}
    assert await furthest_seen(pool, "bob", [marker.channel], "restored") == {}


async def test_the_devices_of_a_user_are_bounded(pool: Pool) -> None:
    """However many names a client makes up, the furthest stay and the others go."""
    channel = "topic:home"
    epoch = await channel_of(pool, channel, 100)
    names = [f"d{number}" for number in range(3 * SEEN_DEVICES_MAX)]
    for start in range(0, len(names), 10):
        await mark_seen(
            pool,
            {
                Marker(user, channel, name): Seen(epoch, 100 - number)
                for number, name in enumerate(names[start : start + 10], start)
                for user in ("alice", "bob")
            },
        )
    kept = await pool.fetch("select device from feed_seen where user_id = 'alice'")
    assert {row["device"] for row in kept} == set(names[:SEEN_DEVICES_MAX])
    assert await furthest_seen(pool, "alice", [channel], epoch) == {channel: 100}
