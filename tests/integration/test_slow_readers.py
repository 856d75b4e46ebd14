"""Clients that do not read, or ask for more than they read: nothing grows, nothing is missed."""

import asyncio
import json
import time
from typing import Any

import psutil
import pytest
from livefeed_client import FeedState
from websockets.asyncio.client import ClientConnection, connect

from livefeed.limits import FRAMES_A_SECOND_MAX, HIDDEN_FRAME_SECONDS, HIDDEN_FRAMES_BURST
from tests.servers import Follower, Stack, until, update

MIB = 1024 * 1024
WIRES = pytest.mark.parametrize("wire", ["guarded", "stock"])
"""Both writers: over the frame extension, and over plain ASGI."""


def bare(stack: Stack, user: str, feeds: str = "") -> connect:
    """A connection that reads only when it is asked to."""
    headers = {"Authorization": f"Bearer {stack.token(user)}"}
    url = f"{stack.url.replace('http', 'ws', 1)}/v1/ws?feeds={feeds}"
    return connect(url, additional_headers=headers, max_queue=1, max_size=4 * MIB, compression=None)


async def publish_much(stack: Stack, *, seconds: float) -> dict[str, int]:
    """Publish 8 KB items for everyone, some 100 a second; returns the newest number of each."""
    newest: dict[str, int] = {}
    until_at = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until_at:
        updates = []
        for _ in range(10):
            number += 1
            item = f"p{number % 40}"
            newest[item] = number
            content = {"id": item, "n": number, "x": "x" * 8000}
            updates.append(update(None, audience={"feed": True}, content=content))
        await stack.publish(updates, "high")
        await asyncio.sleep(0.1)
    return newest


def shown(state: FeedState) -> dict[str, int]:
    """The number of each item that a client shows."""
    return {item.id: item.content["n"] for item in state.items("home")}


async def read_slowly(socket: ClientConnection, state: FeedState) -> None:
    """Read a frame now and then."""
    while True:
        state.apply(json.loads(await socket.recv()))
        await asyncio.sleep(0.5)


async def read_until(socket: ClientConnection, state: FeedState, newest: dict[str, int]) -> None:
    """Read on until the client shows the newest of everything."""
    async with asyncio.timeout(20):
        while shown(state) != newest:
            state.apply(json.loads(await socket.recv()))


@WIRES
async def test_a_reader_that_pauses_gets_everything(stack: Stack, wire: str) -> None:
    """It stops reading while it catches up, reads on, and ends with the log."""
    await stack.start_gateway(gateway_wire=wire)
    await stack.start_pool()
    content = [{"id": f"p{number}", "x": "x" * 60_000} for number in range(8)]
    for part in range(15):
        items = [{**one, "id": f"{one['id']}-{part}"} for one in content]
        await stack.publish([update(content=items)])
    await stack.settled()
    async with bare(stack, "alice") as socket:
        await socket.recv()
        await socket.send(json.dumps({"type": "subscribe", "feeds": ["home"]}))
        # What the kernel does not take has to wait in the gateway.
        await asyncio.sleep(1.5)
        seen = set()
        async with asyncio.timeout(20):
            while True:
                frame: dict[str, Any] = json.loads(await socket.recv())
                seen |= {one["content"]["id"] for one in frame.get("updates", ())}
                if frame["type"] == "caught_up":
                    break
    assert len(seen) == 120


async def test_readers_of_every_kind_end_exact_under_load(stack: Stack) -> None:
    """Normal, hidden, slow, and one that reads nothing: few frames each, and all of the log."""
    await stack.start_gateway()
    await stack.start_pool()
    normal = [stack.follow(user) for user in ("alice", "bob")]
    hidden = [stack.follow(user) for user in ("alice", "carol", "dave")]
    for reader in (*normal, *hidden):
        await reader.caught_up()
    for reader in hidden:
        await reader.client.set_visibility(visible=False)
    began_at = time.monotonic()
    slow, silent = await bare(stack, "alice", "home"), await bare(stack, "erin", "home")
    state = FeedState()
    reading = asyncio.create_task(read_slowly(slow, state))
    newest = await publish_much(stack, seconds=6)
    await stack.settled()

    def is_exact(reader: Follower) -> bool:
        return shown(reader.state) == newest

    for reader in normal:
        await until(lambda reader=reader: is_exact(reader), what="a normal reader has all")
    seconds = time.monotonic() - began_at
    for reader in normal:
        frames = reader.frames_of("feed_updates")
        assert len(frames) <= FRAMES_A_SECOND_MAX * (seconds + 1)
        assert any(frame["replay"] for frame in frames), "the load was above the budget"
    for reader in hidden:
        most = HIDDEN_FRAMES_BURST + 2 + seconds / HIDDEN_FRAME_SECONDS
        assert len(reader.frames_of("feed_updates")) <= most
        await reader.client.set_visibility(visible=True)
    for reader in hidden:
        await until(lambda reader=reader: is_exact(reader), what="a hidden one has all once shown")
    reading.cancel()
    await read_until(slow, state, newest)
    await read_until(silent, FeedState(), newest)


async def test_who_does_not_read_answers_is_not_listened_to(stack: Stack) -> None:
    """A flood of frames that each get an answer leaves the gateway's memory flat."""
    gateway = await stack.start_gateway()
    other = stack.follow("bob")
    await other.caught_up()
    process = psutil.Process(gateway.pid)
    before = process.memory_info().rss
    names = [f"f-{number:060d}" for number in range(128)]
    token = stack.token("alice", feeds=["other"])
    url = stack.url.replace("http", "ws", 1) + "/v1/ws"
    frame = json.dumps({"type": "subscribe", "feeds": names})
    async with connect(
        url, additional_headers={"Authorization": f"Bearer {token}"}, max_queue=1, compression=None
    ) as socket:

        async def flood() -> None:
            for _ in range(3000):
                await socket.send(frame)

        await asyncio.wait([asyncio.create_task(flood())], timeout=3)
    assert process.memory_info().rss - before < 30 * MIB
    assert other.error is None


async def test_many_feeds_far_behind_fill_no_memory(stack: Stack) -> None:
    """A reader of many feeds that never reads holds a few pages in the gateway, not all of them."""
    gateway = await stack.start_gateway()
    await stack.start_pool()
    feeds = [f"f{number}" for number in range(16)]
    for feed in feeds:
        content = [{"id": f"p{number}", "x": "x" * 60_000} for number in range(8)]
        await stack.publish([update(feed=feed, content=content) for _ in range(2)])
        more = [{"id": f"q{number}", "x": "x" * 60_000} for number in range(8)]
        await stack.publish([update(feed=feed, content=more)])
    await stack.settled()
    process = psutil.Process(gateway.pid)
    before = process.memory_info().rss
    sockets = []
    for _ in range(5):
        socket = await bare(stack, "alice")
        await socket.send(json.dumps({"type": "subscribe", "feeds": feeds}))
        sockets.append(socket)
    # Long enough for every page to come, were all of them asked for.
    await asyncio.sleep(2)
    grown = process.memory_info().rss - before
    for socket in sockets:
        socket.transport.abort()
    assert grown < 60 * MIB, f"{grown / MIB:.0f} MiB"


@WIRES
async def test_a_reader_that_is_gone_is_forgotten(stack: Stack, wire: str) -> None:
    """Connections that break off leave nothing behind."""
    gateway = await stack.start_gateway(gateway_wire=wire)
    for _ in range(20):
        socket = await bare(stack, "alice")
        socket.transport.abort()
    status = f"{gateway.ops_url}/healthz"

    async def none_left() -> bool:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(status.split(":")[2].split("/", maxsplit=1)[0])
        )
        writer.write(b"GET /healthz HTTP/1.0\r\nHost: x\r\n\r\n")
        body = (await reader.read()).partition(b"\r\n\r\n")[2]
        writer.close()
        await writer.wait_closed()
        return json.loads(body)["connections"] == 0

    await until(none_left, seconds=10, what="no connection is left")
