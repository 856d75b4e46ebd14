"""Answers over HTTP where no feed is read: heads, refusals, comments, pipelines, limits."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.app import Gateway
from gateway.heartbeat import Heartbeat
from livefeed.control import Revoked, encode
from livefeed.feed_view import PageKey
from livefeed.revocation import Revocation
from tests.doors import DOORS, EventsSession, PollSession, RefusedAtTheDoor
from tests.inner_gateway import InnerGateway, inner_gateway
from tests.servers import Stack, until

WIRES = pytest.mark.parametrize("wire", ["guarded", "stock"])


async def health(ops_url: str) -> dict[str, Any]:
    """What /healthz says."""
    async with httpx.AsyncClient() as client:
        answer: dict[str, Any] = (await client.get(f"{ops_url}/healthz")).json()
    return answer


class RawHttp:
    """A connection that says and reads bytes."""

    def __init__(self, url: str, token: str) -> None:
        self._at = urlsplit(url)
        self._token = token
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> RawHttp:
        self.reader, self.writer = await asyncio.open_connection(self._at.hostname, self._at.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    def request(self, target: str, method: str = "GET") -> bytes:
        """The bytes of a request."""
        head = f"{method} {target} HTTP/1.1\r\nHost: {self._at.netloc}\r\n"
        return f"{head}Authorization: Bearer {self._token}\r\n\r\n".encode()

    async def until_closed(self, seconds: float = 10) -> bytes:
        """Everything that comes until the server ends it."""
        async with asyncio.timeout(seconds):
            return await self.reader.read()


# HEAD.


@WIRES
@pytest.mark.parametrize("door", ["", "/updates?wait=20", "/events"])
async def test_a_head_is_answered_at_once(stack: Stack, wire: str, door: str) -> None:
    """With the headers of the GET and nothing else; the connection serves on, nobody stays."""
    gateway = await stack.start_gateway(gateway_wire=wire)
    target = f"/v1/feeds/home{door}"
    headers = {"Authorization": f"Bearer {stack.token('alice')}", "Accept-Encoding": "identity"}
    url = stack.url + target.replace("=20", "=0")
    async with (
        httpx.AsyncClient(headers=headers) as client,
        client.stream("GET", url) as answer,
    ):
        wanted = answer.headers
    async with RawHttp(stack.url, stack.token("alice")) as raw:
        began_at = time.monotonic()
        for _ in range(2):
            raw.writer.write(raw.request(target, "HEAD"))
            head = await asyncio.wait_for(raw.reader.readuntil(b"\r\n\r\n"), 5)
            assert head.startswith(b"HTTP/1.1 200 ")
            for name in ("content-type", "cache-control", "content-length"):
                # The length of a long poll's answer is known when it is over.
                if name in wanted and (name, door) != ("content-length", "/updates?wait=20"):
                    assert f"{name}: {wanted[name]}".encode() in head
        raw.writer.write(raw.request("/v1/feeds/home", "GET"))
        answer_head = await asyncio.wait_for(raw.reader.readuntil(b"\r\n\r\n"), 5)
        # Were there a body, this would begin with it.
        assert answer_head.startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - began_at < 5
    await until(lambda: nobody_stays(gateway.ops_url), what="nobody stays")


async def nobody_stays(ops_url: str) -> bool:
    """Whether there is no connection."""
    return (await health(ops_url))["connections"] == 0


async def test_a_head_is_refused_as_a_get_is(stack: Stack) -> None:
    """With the same status, at every door."""
    gateway = await stack.start_gateway()
    poll = PollSession(stack, "bob")
    await poll.open()
    await poll.aclose()
    rows = [
        ({}, {"Authorization": "Bearer no"}, 401),
        ({"cursor": "nonsense"}, {}, 400),
        ({"cursor": poll.cursor}, {}, 400),
    ]
    headers = {"Authorization": f"Bearer {stack.token('alice')}"}
    async with httpx.AsyncClient(base_url=stack.url, timeout=5) as client:
        for door in ("/updates", "/events"):
            for parameters, more, status in rows:
                for method in ("HEAD", "GET"):
                    answer = await client.request(
                        method, f"/v1/feeds/home{door}", params=parameters, headers=headers | more
                    )
                    assert answer.status_code == status, (door, parameters, method)
    assert (await health(gateway.ops_url))["refused"] == {
        "token_invalid": 4,
        "cursor_invalid": 4,
        "cursor_foreign": 4,
    }


@WIRES
async def test_refusals_of_every_door_are_counted(stack: Stack, wire: str) -> None:
    """By code, whether before the token was looked at, after it, or for the feed."""
    gateway = await stack.start_gateway(gateway_wire=wire)
    assert (await health(gateway.ops_url))["refused"] == {}
    token = stack.token("alice", feeds=["news"])
    doors = [door for door in DOORS if door is not PollSession]
    for door in doors:
        session = door(stack, "alice", token="no")
        with pytest.raises(RefusedAtTheDoor):
            await session.open()
        await session.aclose()
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers) as client:
        for path in ("home", "home/events", "home/updates", "HOME", "home/updates?wait=99"):
            assert (await client.get(f"/v1/feeds/{path}")).status_code >= 400
    assert (await health(gateway.ops_url))["refused"] == {
        "token_invalid": len(doors),
        "feed_forbidden": 3,
        "feed_invalid": 1,
        "parameter_invalid": 1,
    }


# Events.


def quick_heartbeat(gateway: Gateway) -> None:
    """Half a second for a round."""
    gateway.heartbeat = Heartbeat(0.5)


async def test_a_silent_stream_has_comments_and_a_busy_one_none(stack: Stack) -> None:
    """Through the real door, by its bytes; the timer ends with the last stream."""
    async with inner_gateway(stack, quick_heartbeat) as inner:
        async with RawHttp(inner.url, inner.token("alice")) as client:
            client.writer.write(client.request("/v1/feeds/home/events"))
            await client.reader.readuntil(b'"caught_up"')
            began_at = time.monotonic()
            for _ in range(3):
                await asyncio.wait_for(client.reader.readuntil(b":\n\n"), 5)
            # Each in the second round of half a second without anything.
            assert 1.5 <= time.monotonic() - began_at < 5
            (connection,) = inner.gateway.connections
            for _ in range(15):
                connection.error("busy", "something to say")
                await asyncio.sleep(0.1)
            await client.reader.readuntil(b"something to say")
            text = client.reader._buffer  # type: ignore[attr-defined]  # what came, and no more
            assert bytes(text).count(b"something to say") == 14
            assert b"\n:\n\n" not in bytes(text)
        heartbeat = inner.gateway.heartbeat
        await until(lambda: not any(heartbeat._slots), what="it is asked no more")
        await until(lambda: heartbeat._timer is None, what="the timer has ended")


async def test_a_stream_of_one_who_was_revoked_meanwhile_is_refused(stack: Stack) -> None:
    """Verified, then revoked while the authorizer is asked: 401 and JSON, not an empty stream."""
    inner: InnerGateway

    async def authorize(user: str, _feed: str) -> bool:
        if user != "bystander":
            one = Revocation("token", user, time.time(), time.time() + 600)
            inner.gateway.revocations._on_revoked(b"", b"", b"", encode(Revoked([one])))
        return True

    async with inner_gateway(stack, authorize=authorize) as inner:
        async with EventsSession(inner, "bystander") as bystander:  # type: ignore[arg-type]
            await bystander.until_caught_up()
            for door in ("events", "updates"):
                headers = {"Authorization": f"Bearer {inner.token(door, jti=door)}"}
                async with httpx.AsyncClient(headers=headers, timeout=5) as client:
                    answer = await client.get(f"{inner.url}/v1/feeds/home/{door}")
                assert answer.status_code == 401, door
                assert answer.headers["content-type"] == "application/json"
                assert answer.json()["error"]["code"] == "token_revoked"
            assert len(inner.gateway.connections) == 1
        assert inner.gateway.admission.refused == {"token_revoked": 2}


# Pipelines.


@pytest.mark.parametrize("together", [True, False], ids=["one packet", "two packets"])
async def test_a_request_before_the_answer_to_the_last_one_is_not_served(
    stack: Stack, together: bool
) -> None:
    """The first is answered in full, the second is not, and the connection ends."""
    gateway = await stack.start_gateway()
    async with RawHttp(stack.url, stack.token("alice")) as client:
        first = client.request("/v1/feeds/home/updates?wait=1")
        second = client.request("/v1/feeds/home")
        if together:
            client.writer.write(first + second)
        else:
            client.writer.write(first)
            await client.writer.drain()
            await asyncio.sleep(0.3)
            client.writer.write(second)
        answer = await client.until_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert json.loads(body)["updates"] == []
    await until(lambda: nobody_stays(gateway.ops_url), what="nobody stays")
    assert "Traceback" not in gateway.output()


async def test_a_client_that_goes_after_such_a_request_is_let_go(stack: Stack) -> None:
    """A stream, and a request behind it: the stream goes on, and ends with its client."""
    gateway = await stack.start_gateway()
    async with RawHttp(stack.url, stack.token("alice")) as client:
        client.writer.write(client.request("/v1/feeds/home/events"))
        await asyncio.wait_for(client.reader.readuntil(b'"caught_up"'), 5)
        client.writer.write(client.request("/v1/feeds/home") * 3)
        await client.writer.drain()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.readuntil(b"HTTP/1.1"), 0.5)
        assert (await health(gateway.ops_url))["connections"] == 1
    await until(lambda: nobody_stays(gateway.ops_url), what="nobody stays")


# Snapshots.


def after(*value: Any) -> str:
    """The text of an `after`."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_limit_and_after_are_what_the_page_says(stack: Stack) -> None:
    """What they may not be is 400; an `after` behind the last item is an empty page."""
    await stack.start_gateway()
    headers = {"Authorization": f"Bearer {stack.token('alice')}"}
    limits = ["0", "201", "1000", "-1", "+5", " 5", "5.0", "", "ten", "٣", "9" * 5_000]
    afters = ["", "x", "ü", "A" * 3, after(), after(1.0, "p1"), after("1", "p1", "me/home")]
    afters += [after(1.0, 2, "me/home"), after(1.0, "p1", "me/home", 1), "x" * 5_000]
    afters += [base64.urlsafe_b64encode(b'[1e999,"p","me/home"]').decode()]
    rows: list[dict[str, str]] = [{"limit": text} for text in limits]
    rows += [{"after": text} for text in afters]
    good = [{"limit": "1"}, {"limit": "200"}, {"after": str(PageKey(-1e300, 0, 1))}]
    async with httpx.AsyncClient(base_url=stack.url, headers=headers) as client:
        for parameters in rows:
            answer = await client.get("/v1/feeds/home", params=parameters)
            found = (answer.status_code, answer.json().get("error", {}).get("code"))
            assert found == (400, "parameter_invalid"), parameters
        for parameters in good:
            answer = await client.get("/v1/feeds/home", params=parameters)
            assert answer.status_code == 200, parameters
            assert (answer.json()["items"], answer.json()["next"]) == ([], None)
