"""What is peculiar to the doors over HTTP: pages of other origins, slow readers, waits that end."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.doors import EventsSession, PollSession
from tests.servers import Stack, until, update

MIB = 1024 * 1024
APP = "https://app.example.com"


async def test_pages_of_allowed_origins_may_read(stack: Stack) -> None:
    """A preflight and an answer name the origin; another one is not named, or refused."""
    stack.settings["allowed_origins"] = [APP]
    await stack.start_gateway()
    headers = {"Authorization": f"Bearer {stack.token('alice')}"}
    async with httpx.AsyncClient(base_url=stack.url) as client:
        for path in ("/v1/feeds/home", "/v1/feeds/home/updates?wait=0"):
            answer = await client.get(path, headers={**headers, "Origin": APP})
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == APP
            asked = {
                "Origin": APP,
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "authorization,last-event-id",
            }
            assert (await client.options(path, headers=asked)).status_code == 200
            answer = await client.options(path, headers={**asked, "Origin": "https://evil.example"})
            assert "access-control-allow-origin" not in answer.headers
        # What is refused says why to the page too.
        answer = await client.get("/v1/feeds/home/updates", headers={"Origin": APP})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, APP)
        evil = {**headers, "Origin": "https://evil.example"}
        answer = await client.get("/v1/feeds/home/events", headers=evil)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_forbidden")


async def test_a_token_may_come_as_a_password(gateway: Stack) -> None:
    """Of the user `bearer` and no other; what is no base64 is refused too."""
    token = gateway.token("alice")
    rows = {f"bearer:{token}": 200, f"alice:{token}": 401, "bearer": 401, "bearer:": 401}
    given = {f"Basic {base64.b64encode(text.encode()).decode()}": rows[text] for text in rows}
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        for text, status in {**given, "Basic ü": 401, "Basic": 401}.items():
            headers = [(b"Authorization", text.encode("latin-1"))]
            answer = await client.get("/v1/feeds/home", headers=headers)
            assert answer.status_code == status, text


async def test_what_a_client_has_left_is_let_go(gateway: Stack) -> None:
    """A stream and a wait whose client is gone are no connections any more."""
    async with EventsSession(gateway, "alice") as events, PollSession(gateway, "alice") as poll:
        await events.until_caught_up()
        await poll.until_caught_up()
        await until(lambda: connections(gateway, 2), what="both are counted")
    await until(lambda: connections(gateway, 0), what="both are let go")


async def test_a_wait_is_as_long_as_it_says(gateway: Stack) -> None:
    """With nothing new it is answered when its time is over, with the same cursor."""
    poll = PollSession(gateway, "alice")
    await poll.open()
    cursor, began_at = poll.cursor, time.monotonic()
    body = await poll.poll(wait=1)
    assert 0.9 <= time.monotonic() - began_at < 10
    assert body == {"updates": [], "cursor": cursor, "floor": {}, "more": False}
    await poll.aclose()


async def test_a_stream_that_is_not_read_waits_for_its_reader(stack: Stack) -> None:
    """The gateway does not grow by what it holds; the reader that goes on ends with the log."""
    gateway = await stack.start_gateway()
    await stack.start_pool()
    content = [{"id": f"p{number}", "x": "x" * 60_000} for number in range(8)]
    for part in range(25):
        items = [{**one, "id": f"{one['id']}-{part}"} for one in content]
        await stack.publish([update(content=items)])
    await stack.settled()
    process = psutil.Process(gateway.pid)
    before = process.memory_info().rss
    streams = [await unread_stream(stack) for _ in range(5)]
    await until(lambda: connections(stack, 5), what="they are connected")
    # What the kernel does not take has to wait in the gateway: a bounded part of 60 MiB.
    await asyncio.sleep(1.5)
    assert process.memory_info().rss - before < 40 * MIB
    for reader, writer in streams:
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        seen: set[str] = set()
        async with asyncio.timeout(30):
            while (frame := await next_frame(reader))["type"] != "caught_up":
                seen |= {one["content"]["id"] for one in frame.get("updates", ())}
        assert len(seen) == 200
        writer.close()


async def test_who_reads_nothing_is_cut_and_who_reads_slowly_is_served(stack: Stack) -> None:
    """A stream, and an answer after which the connection is closed."""
    stack.settings["token_grace_seconds"] = 0
    await stack.start_gateway()
    await stack.start_pool()
    for part in range(25):
        items = [{"id": f"p{number}-{part}", "x": "x" * 60_000} for number in range(8)]
        await stack.publish([update(content=items)])
    await stack.settled()
    _, closed = await unread_stream(stack, exp=int(time.time()) + 2)
    await until(lambda: connections(stack, 1), what="it is connected")
    # Sooner than it would be cut.
    await until(lambda: connections(stack, 0), seconds=8, what="its token has run out")
    closed.close()
    _, silent = await unread_stream(stack)
    await until(lambda: connections(stack, 1), what="it is connected")
    parts = urlsplit(stack.url)
    reader, slow = await asyncio.open_connection(parts.hostname, parts.port, limit=64 * 1024)
    head = f"GET /v1/feeds/home?limit=200 HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    token = f"Authorization: Bearer {stack.token('alice')}\r\n"
    slow.write(f"{head}{token}Connection: close\r\n\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    (length,) = [
        int(line.split(b":")[1])
        for line in answer.splitlines()
        if line.lower().startswith(b"content-length")
    ]
    got = 0
    async with asyncio.timeout(60):
        for _ in range(24):
            got += len(await reader.readexactly(min(length - got, length // 24)))
            await asyncio.sleep(0.5)
        got += len(await reader.read(-1))
    assert got == length
    await until(lambda: connections(stack, 0), what="the silent one is cut")
    silent.close()
    slow.close()


async def test_a_snapshot_is_continued(stack: Stack) -> None:
    """Its state and cursor are enough: nothing is sent again, and counters wait for their item."""
    await stack.start_gateway()
    await stack.start_pool()
    likes = [counters(name, 1) for name in ("p1", "late")]
    await stack.publish([*(update(id=f"p{number}") for number in range(5)), *likes])
    await stack.settled()
    snapshot = await stack.snapshot("alice", limit=2)
    assert len(snapshot.items) == snapshot.unread == 5
    follower = stack.follow("alice", state=snapshot.state)
    await follower.caught_up()
    assert follower.frames_of("feed_updates") == []
    await stack.publish([update(id="late"), update(id="p0", kind="content_removal")])
    await until(lambda: set(follower.ids("home")) == {"p1", "p2", "p3", "p4", "late"}, what="it")
    engaged = {item.id: item.engagement for item in follower.items("home") if item.engagement}
    assert engaged == {name: {"id": name, "likes": 1} for name in ("p1", "late")}


async def test_a_snapshot_may_ask_for_less(stack: Stack) -> None:
    """A filter is that of the other doors, and hides nothing of where the feed is."""
    await stack.start_gateway()
    await stack.start_pool()
    await stack.publish([update(id="p1"), update(id="p2"), counters("p1", 1)])
    await stack.settled()
    await stack.publish([update(id="p2", kind="content_update")])
    await stack.settled()
    shown = {}
    async with httpx.AsyncClient(
        base_url=stack.url, headers={"Authorization": f"Bearer {stack.token('alice')}"}
    ) as client:
        for types in ("new_content", "content_update", "engagement_update", "content_removal"):
            page = (await client.get("/v1/feeds/home", params={"types": types})).json()
            shown[types] = [(item["content"] or item["engagement"])["id"] for item in page["items"]]
            assert page["cursor"].endswith("all/home=0,me/home=4")
            assert page["unread"] == (types in {"new_content", "content_update"})
    assert shown == {
        "new_content": ["p1"],
        "content_update": ["p2"],
        "engagement_update": ["p1"],
        "content_removal": [],
    }


# Helpers.


def counters(item: str, likes: int) -> dict[str, Any]:
    return update(id=item, kind="engagement_update", content={"id": item, "likes": likes})


@pytest.fixture
async def gateway(stack: Stack) -> Stack:
    """A stack with a gateway alone."""
    await stack.start_gateway()
    return stack


async def connections(stack: Stack, number: int) -> bool:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{stack.gateways[0].ops_url}/healthz")
    return bool(answer.json()["connections"] == number)


async def unread_stream(
    stack: Stack, **claims: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream of events of which nothing is read yet."""
    parts = urlsplit(stack.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=4 * MIB)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    head = f"GET /v1/feeds/home/events HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    writer.write(f"{head}Authorization: Bearer {stack.token('alice', **claims)}\r\n\r\n".encode())
    await writer.drain()
    return reader, writer


async def next_frame(reader: asyncio.StreamReader) -> dict[str, Any]:
    while True:
        line = await reader.readline()
        if line.startswith(b"data: "):
            frame: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
            return frame
