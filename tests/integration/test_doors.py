"""The gateway's doors on a real stack: who gets what, and what is answered to who should not."""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest
from livefeed_client import LiveFeedClosed
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from livefeed import subjects
from livefeed.messages import decode_live_message
from tests.servers import Stack, until, update

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_an_update_reaches_every_device_of_its_user(stack: Stack) -> None:
    """Two devices of one user get it live; another user gets nothing."""
    await stack.start_gateway()
    await stack.start_pool()
    phone, laptop, stranger = (stack.follow(user) for user in ("alice", "alice", "bob"))
    for device in (phone, laptop, stranger):
        await device.caught_up()
    await stack.publish([update("alice", id="p1")], "high")
    for device in (phone, laptop):
        await until(lambda device=device: device.ids("home") == ["p1"], what="the update is there")
        (frame,) = device.frames_of("feed_updates")
        assert not frame["replay"]
    assert stranger.ids("home") == []


async def test_a_topic_reaches_everyone_on_the_feed(stack: Stack) -> None:
    """An update for the feed is in everybody's feed, and in no other feed."""
    await stack.start_gateway()
    await stack.start_pool()
    readers = [stack.follow(user, ["home", "other"]) for user in ("alice", "bob")]
    for reader in readers:
        await reader.caught_up()
    await stack.publish([update(None, id="p1", audience={"feed": True})])
    for reader in readers:
        await until(lambda reader=reader: reader.ids("home") == ["p1"], what="the update is there")
        assert reader.items("home")[0].channel == "all/home"
        assert reader.ids("other") == []


async def test_a_device_that_was_away_catches_up(stack: Stack) -> None:
    """It resumes by its cursor and gets what it missed, once."""
    await stack.start_gateway()
    await stack.start_pool()
    device = stack.follow("alice")
    await device.caught_up()
    await stack.publish([update(id="before")])
    await until(lambda: device.ids("home") == ["before"], what="the first is there")
    cursor = device.state.cursor
    await device.aclose()
    await stack.publish([update(id=f"p{number}") for number in range(300)])
    await stack.settled()
    returning = stack.follow("alice", cursor=cursor)
    await returning.caught_up()
    shown = [
        one["content"]["id"] for f in returning.frames_of("feed_updates") for one in f["updates"]
    ]
    assert sorted(shown) == sorted(f"p{number}" for number in range(300))
    assert len(returning.frames_of("feed_updates")) > 1, "300 entries are more than one page"


async def test_users_with_wildcards_in_their_ids_get_their_own(stack: Stack) -> None:
    """`a.*` and `>` are users like any other: they get their own updates and nobody else's."""
    await stack.start_gateway()
    await stack.start_pool()
    names = ["a.*", "a.b", ">", "*", "feed.users.>", "ä/home", "a b"]
    devices = {name: stack.follow(name) for name in names}
    for device in devices.values():
        await device.caught_up()
    await stack.publish([update(name, id=f"for {name}") for name in names])
    for name, device in devices.items():
        await until(lambda d=device, n=name: d.ids("home") == [f"for {n}"], what=name)
    await stack.settled()
    assert all(device.ids("home") == [f"for {name}"] for name, device in devices.items())


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        ({"exp": 1}, 401, "token_expired"),
        ({"exp": None}, 401, "token_invalid"),
        ({"exp": 1e308}, 401, "token_invalid"),
        ({"sub": "a\n"}, 401, "token_invalid"),
        ({"aud": "somebody else"}, 401, "token_invalid"),
        ("forged", 401, "token_invalid"),
        ("none", 401, "token_invalid"),
        ("", 401, "token_invalid"),
        ({"feeds": ["other"]}, 403, "feed_forbidden"),
    ],
)
async def test_a_token_that_does_not_allow_it_opens_no_door(
    gateway: Stack, token: Any, status: int, code: str
) -> None:
    """Neither the WebSocket nor the snapshot answers with anything but the reason."""
    text = _token(gateway, token)
    headers = {"Authorization": f"Bearer {text}"} if text else {}
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{gateway.url}/v1/feeds/home", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    with pytest.raises(InvalidStatus) as refused:
        async with connect(_websocket_url(gateway) + "?feeds=home", additional_headers=headers):
            pass
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body)["error"]["code"] == code


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("same", True),
        ("https://app.example.com", True),
        ("http://app.example.com", False),
        ("https://app.example.com.evil.com", False),
        ("https://evilapp.example.com", False),
        ("https://app.example.com:444", False),
        ("null", False),
    ],
)
async def test_only_pages_of_allowed_origins_connect(
    stack: Stack, origin: str | None, *, allowed: bool
) -> None:
    """An origin is compared whole: scheme, host and port."""
    stack.settings["allowed_origins"] = ["https://app.example.com"]
    await stack.start_gateway()
    headers = {"Authorization": f"Bearer {stack.token('alice')}"}
    if origin is not None:
        headers["Origin"] = stack.url if origin == "same" else origin
    connecting = connect(_websocket_url(stack), additional_headers=headers)
    if allowed:
        async with connecting as socket:
            assert json.loads(await socket.recv())["type"] == "connection_established"
        return
    with pytest.raises(InvalidStatus) as refused:
        await connecting
    assert refused.value.response.status_code == 403


async def test_a_foreign_cursor_is_an_error_and_gives_nothing(stack: Stack) -> None:
    """Another user's cursor is refused; the connection stays, and gets no foreign update."""
    await stack.start_gateway()
    await stack.start_pool()
    await stack.publish([update("alice", id="secret")])
    await stack.settled()
    alice = stack.follow("alice")
    await alice.caught_up()
    assert alice.state.cursor is not None
    cursor = {"epoch": alice.state.cursor.epoch, "positions": dict(alice.state.cursor.positions)}
    async with _open(stack, "bob") as socket:
        for one, code in [
            (cursor, "cursor_foreign"),
            ({"epoch": "x.y", "positions": {}}, "cursor_invalid"),
            ({**cursor, "epoch": cursor["epoch"][:-1] + "x"}, "cursor_invalid"),
            ({**cursor, "positions": {"user:alice/home": 0}}, "cursor_foreign"),
        ]:
            frame = {"type": "subscribe", "feeds": ["home"], "cursor": one}
            answer = await _ask(socket, frame)
            assert (answer["type"], answer["code"]) == ("error", code)
        answer = await _ask(socket, {"type": "subscribe", "feeds": ["home"]})
        assert answer == {"type": "caught_up", "feeds": ["home"]}


async def test_a_forged_position_hides_nothing(stack: Stack) -> None:
    """A position ahead of the log is answered by a reset and everything from the beginning."""
    await stack.start_gateway()
    await stack.start_pool()
    await stack.publish([update("alice", id="p1")])
    await stack.settled()
    async with _open(stack, "alice") as socket:
        cursor = {"epoch": socket.epoch, "positions": {"me/home": 10**6}}
        await socket.send(json.dumps({"type": "subscribe", "feeds": ["home"], "cursor": cursor}))
        frames = []
        while not frames or frames[-1]["type"] != "caught_up":
            frames.append(await _next(socket))
    kinds = [frame["type"] for frame in frames]
    assert kinds == ["reset", "feed_updates", "caught_up"]
    assert frames[0]["reason"] == "position_ahead"


async def test_a_feed_outside_the_claim_is_an_error(stack: Stack) -> None:
    """One that is asked for beside an allowed one is refused alone."""
    await stack.start_gateway()
    await stack.start_pool()
    await stack.publish([update("alice", feed="secret", id="p1")])
    token = stack.token("alice", feeds=["home", "news-*"])
    async with _open(stack, "alice", token=token, query="?feeds=home,secret") as socket:
        assert socket.established["subscribedFeeds"] == ["home"]
        frames = [await _next(socket), await _next(socket)]
        assert {frame["type"] for frame in frames} == {"error", "caught_up"}
        (error,) = [frame for frame in frames if frame["type"] == "error"]
        assert error["code"] == "feed_forbidden"
        answer = await _ask(socket, {"type": "subscribe", "feeds": ["secret"]})
        assert answer["code"] == "feed_forbidden"
        answer = await _ask(socket, {"type": "subscribe", "feeds": ["news-sport"]})
        assert answer["type"] == "caught_up"


async def test_bad_frames_are_answered_and_then_end_the_connection(stack: Stack) -> None:
    """Each gets an error; too many close with 4500, and no other connection notices."""
    await stack.start_gateway()
    other = stack.follow("bob")
    await other.caught_up()
    async with _open(stack, "alice") as socket:
        for text in ("x", "[]", '{"type":"subscribe"}', b"bytes", "{" * 9):
            await socket.send(text)
            assert (await _next(socket))["code"] == "frame_invalid"
        await socket.send("x" * 20_000)
        assert (await _next(socket))["code"] == "frame_too_large"
        for _ in range(4):
            await socket.send("x")
        await socket.wait_closed()
        assert socket.close_code == 4500
    assert other.error is None
    assert other.frames_of("error") == []


async def test_a_token_that_runs_out_closes_the_connection(stack: Stack) -> None:
    """It is warned, and has some seconds for a refresh; 4001: come back with a new token."""
    await stack.start_gateway(token_grace_seconds=1)
    soon = int(time.time()) + 1
    async with (
        _open(stack, "alice", token=stack.token("alice", exp=soon)) as closing,
        _open(stack, "alice", token=stack.token("alice", exp=soon)) as staying,
    ):
        foreign = {"type": "refresh", "token": stack.token("bob")}
        assert (await _ask(staying, foreign))["code"] == "token_invalid"
        for one in (closing, staying):
            warning = await _next(one)
            assert (warning["code"], warning["retryable"]) == ("token_expired", True)
        await staying.send(json.dumps({"type": "refresh", "token": stack.token("alice")}))
        await asyncio.wait_for(closing.wait_closed(), 10)
        assert closing.close_code == 4001
        answer = await _ask(staying, {"type": "subscribe", "feeds": ["home"]})
        assert answer["type"] == "caught_up"


async def test_the_client_refreshes_by_itself(stack: Stack) -> None:
    """A client that is given a function stays connected over the end of its token."""
    await stack.start_gateway(token_grace_seconds=5)
    tokens = [stack.token("alice", exp=int(time.time()) + 1), stack.token("alice")]
    device = stack.follow("alice", token=lambda: tokens.pop(0))
    await until(lambda: device.frames_of("error") and not tokens, what="warned, and refreshed")
    await device.client.subscribe(["other"])
    await until(lambda: len(device.frames_of("caught_up")) == 2, what="the other feed is there")
    assert len(device.frames_of("connection_established")) == 1


async def test_a_terminal_refusal_ends_the_client(stack: Stack) -> None:
    """A client whose token allows none of its feeds does not come back."""
    await stack.start_gateway()
    client = stack.connect("alice", ["home"], token=stack.token("alice", feeds=["other"]))
    with pytest.raises(LiveFeedClosed) as closed:
        await anext(client)
    assert closed.value.code == 403


async def test_a_trace_travels_from_the_publisher_to_the_live_message(stack: Stack) -> None:
    """The header of the publisher is the header of the live batch."""
    await stack.start_pool()
    nats = await stack.nats()
    seen: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
    nats.subscribe_direct(
        subjects.live_user("alice"),
        lambda _subject, _reply, headers, payload: seen.put_nowait((headers, payload)),
    )
    await nats.flush()
    one = update("alice")
    await nats.jetstream().publish(
        subjects.updates("high", "tests"),
        json.dumps(one).encode(),
        headers={"Nats-Msg-Id": one["updateId"], "traceparent": TRACE},
    )
    headers, payload = await asyncio.wait_for(seen.get(), 10)
    assert f"traceparent: {TRACE}".encode() in headers
    assert decode_live_message(payload).channels[0].channel == "user:alice/home"


async def test_a_leaving_gateway_sends_its_clients_to_another(stack: Stack) -> None:
    """SIGTERM: not ready, everyone told to come back, 1012, exit 0; nothing is missed."""
    first = await stack.start_gateway(drain_seconds=0.5)
    await stack.start_pool()
    devices = [stack.follow(f"user-{number}") for number in range(20)]
    for device in devices:
        await device.caught_up()
    leaving = asyncio.create_task(first.stop())
    await stack.publish([update(f"user-{number}", id="meanwhile") for number in range(20)])
    assert await leaving == 0
    assert all(device.frames_of("reconnect") for device in devices)
    await first.start()
    for device in devices:
        await until(lambda d=device: d.ids("home") == ["meanwhile"], what="caught up")


# Helpers.


@pytest.fixture
async def gateway(stack: Stack) -> Stack:
    """A stack with a gateway alone."""
    await stack.start_gateway()
    return stack


def _token(stack: Stack, given: Any) -> str:
    if isinstance(given, dict):
        return stack.token("alice", **given)
    if given == "forged":
        head, claims, _ = stack.token("alice").split(".")
        return f"{head}.{claims}.{'A' * 43}"
    if given == "none":
        _, claims, _ = stack.token("alice").split(".")
        return f"eyJhbGciOiJub25lIn0.{claims}."
    return ""


def _websocket_url(stack: Stack) -> str:
    return stack.url.replace("http", "ws", 1) + "/v1/ws"


class _open:  # noqa: N801 - used like a function
    """A bare connection that has read its first frame."""

    def __init__(self, stack: Stack, user: str, *, token: str = "", query: str = "") -> None:
        headers = {"Authorization": f"Bearer {token or stack.token(user)}"}
        self._connect = connect(_websocket_url(stack) + query, additional_headers=headers)

    async def __aenter__(self) -> Any:
        socket: Any = await self._connect.__aenter__()
        socket.established = await _next(socket)
        socket.epoch = socket.established["epoch"]
        return socket

    async def __aexit__(self, *error: object) -> None:
        await self._connect.__aexit__(*error)  # type: ignore[arg-type]


async def _next(socket: Any) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 10))
    return frame


async def _ask(socket: Any, frame: dict[str, Any]) -> dict[str, Any]:
    await socket.send(json.dumps(frame))
    return await _next(socket)
