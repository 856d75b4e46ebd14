"""Whatever way updates take through lanes and workers, the order key decides what is shown."""

import json
import random
from datetime import datetime
from typing import Any

from livefeed.entry import BORN_UNKNOWN, born_of, feed_rank
from livefeed.identity import update_ref
from livefeed.order import microseconds, order_key
from livefeed.topology import LANE_STREAM
from livefeed.update import CONTENT_REMOVAL, ENGAGEMENT_UPDATE, KINDS
from livefeed.window import QUIET_ARRIVALS_MAX
from tests.servers import Follower, Stack, until, update

STAMPS = [f"2026-11-23T08:00:0{second}Z" for second in range(3)]
ITEMS = ["a", "b", "c", "d", "e"]

Key = tuple[str, bool]
"""An item, and whether it is its engagement."""


def expected(updates: list[dict[str, Any]]) -> list[tuple[str, Any, Any]]:
    """`(id, number, likes)` of what must be shown, in feed order, from the order keys alone."""
    newest: dict[Key, tuple[Any, int, dict[str, Any]]] = {}
    born: dict[str, int] = {}
    for one in updates:
        kind = KINDS.index(one["updateType"])
        stamp = microseconds(datetime.fromisoformat(one["timestamp"]))
        contents = one["content"] if isinstance(one["content"], list) else [one["content"]]
        for content in contents:
            ref = update_ref(one["updateId"], content["id"])
            order = order_key(version=one.get("version"), timestamp_microseconds=stamp, ref=ref)
            key = (content["id"], kind == ENGAGEMENT_UPDATE)
            newest[key] = max(newest.get(key, (order, kind, content)), (order, kind, content))
            if kind != ENGAGEMENT_UPDATE:
                known = born.get(content["id"], BORN_UNKNOWN)
                born[content["id"]] = min(known, born_of(kind, stamp))
    shown = [
        (feed_rank(content.get("rank"), born[item]), item, content)
        for (item, engagement), (_, kind, content) in newest.items()
        if not engagement and kind != CONTENT_REMOVAL
    ]
    return [
        (item, content["n"], newest[item, True][2]["n"] if (item, True) in newest else None)
        for _, item, content in sorted(shown, key=lambda one: (-one[0], one[1]))
    ]


def an_update(choices: random.Random, number: int, **audience: Any) -> dict[str, Any]:
    """A random update: any kind, one item or several, any priority, versions and equal stamps."""
    contents = [
        {"id": item, "n": number} for item in choices.sample(ITEMS, choices.choice([1, 1, 1, 3]))
    ]
    if choices.random() < 0.2:
        contents = [{**content, "rank": choices.randint(0, 9)} for content in contents]
    return update(
        kind=choices.choice(KINDS),
        content=contents if len(contents) > 1 else contents[0],
        timestamp=choices.choice(STAMPS),
        version=choices.choice([None, None, choices.randint(0, 20)]),
        priority=choices.choice(["high", "medium", "low"]),
        **audience,
    )


async def test_the_order_key_decides_on_the_real_stack(stack: Stack) -> None:
    """Lists of items, equal timestamps, versions among timestamps, all kinds and lanes, doubled."""
    await stack.start_gateway()
    await stack.start_pool(worker_processes_max=2)
    seed = random.randrange(2**32)
    choices = random.Random(seed)
    audiences: list[dict[str, Any]] = [
        {"user": "alice", "feed": "mine"},
        {"user": None, "audience": {"users": ["alice", "bob"]}, "feed": "shared"},
        {"user": None, "audience": {"feed": True}, "feed": "topic"},
    ]
    sent = {
        audience["feed"]: [an_update(choices, number, **audience) for number in range(150)]
        for audience in audiences
    }
    every = [one for updates in sent.values() for one in updates]
    # A twin with the same id is refused by the stream's window; one whose id the window has
    # forgotten is not, and must change nothing either.
    choices.shuffle(every)
    reader = stack.follow("alice", list(sent))
    await reader.caught_up()
    await stack.publish(every[:200])
    await stack.publish([*every[100:], *every[:50]])
    await stack.settled()
    for feed, updates in sent.items():
        await until(
            lambda feed=feed, updates=updates: _shown(reader.items(feed)) == expected(updates),
            seconds=10,
            what=f"{feed} is as the order keys say (seed {seed})",
        )
        snapshot = await stack.snapshot("alice", feed)
        assert _shown(snapshot.items) == expected(updates), f"seed {seed}"


async def test_a_removal_that_overtakes_its_content_wins(stack: Stack) -> None:
    """The removal is in the high lane, the content still gathers in the low one."""
    stack.settings["window_low_seconds"] = 5
    await stack.start_gateway()
    await stack.start_pool()
    reader = stack.follow("alice")
    await reader.caught_up()
    # The lanes have workers of their own: those of high must run, or it is they who are late.
    await stack.publish([update(id="urgent", priority="high")], "high")
    await until(lambda: reader.ids("home") == ["urgent"], what="high is served")
    busy = await _make_low_busy(stack)
    content = update(id="p1", priority="low", version=1)
    removal = update(id="p1", kind="content_removal", content={"id": "p1"}, version=2)
    await _place(stack, content)
    await stack.publish([removal])
    await until(lambda: _told(reader, "p1"), what="the removal came")
    assert _told(reader, "p1") == ["content_removal"]
    assert busy[-1] not in reader.ids("home"), "the removal overtook nothing"
    await stack.settled()
    await until(lambda: set(busy) <= set(reader.ids("home")), what="the busy lane was flushed")
    assert "p1" not in reader.ids("home")
    assert _told(reader, "p1") == ["content_removal"], "the content never showed"


async def test_the_same_update_again_moves_no_head(stack: Stack) -> None:
    """Published again after the window of ids, it reaches no client and changes no position."""
    await stack.start_gateway()
    await stack.start_pool()
    updates = [update(id=f"p{number}") for number in range(20)]
    reader = stack.follow("alice")
    await reader.caught_up()
    await stack.publish(updates)
    await until(lambda: len(reader.ids("home")) == 20, what="all are there")
    frames, positions = len(reader.frames), dict(reader.state.cursor.positions)
    nats = await stack.nats()
    for one in updates:
        # Without an id the stream cannot know that it saw it.
        await nats.jetstream().publish("feed.updates.high.tests", json.dumps(one).encode())
    await stack.settled()
    later = stack.follow("alice")
    await later.caught_up()
    assert dict(later.state.cursor.positions) == positions
    assert len(reader.frames) == frames


async def _make_low_busy(stack: Stack) -> list[str]:
    """Give the low lane so many messages that it gathers for its whole window; returns items."""
    # Updates that are placed together share messages, but for those of different partitions.
    audience = {"users": ["alice", *(f"user{number}" for number in range(100))]}
    items: list[str] = []
    messages = 0
    while messages <= QUIET_ARRIVALS_MAX:
        items.append(f"busy{len(items)}")
        messages += await _place(stack, update(id=items[-1], audience=audience, priority="low"))
    return items


async def _place(stack: Stack, one: dict[str, Any]) -> int:
    """Publish an update and wait until it is in its lanes; returns in how many messages."""
    jetstream = (await stack.nats()).jetstream()

    async def placed() -> int:
        return (await jetstream.stream_info(LANE_STREAM)).state.last_seq - before

    before = 0
    before = await placed()
    await stack.publish([one])
    return await until(placed, what="it is in its lanes")


def _told(reader: Follower, item: str) -> list[str]:
    """The kinds of the updates of an item that a client was told of, in order."""
    return [
        one["updateType"]
        for frame in reader.frames_of("feed_updates")
        for one in frame["updates"]
        if one["content"]["id"] == item
    ]


def _shown(items: Any) -> list[tuple[str, Any, Any]]:
    return [
        (item.id, item.content["n"], item.engagement["n"] if item.engagement else None)
        for item in items
    ]
