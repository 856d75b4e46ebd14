"""Who comes in and who has to go, on real gateways: caps, rates, age, revocation, the drain."""

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway import authorizer as gateway_authorizer
from gateway import revocations as gateway_revocations
from gateway.app import Gateway, public_app
from gateway.authorizer import Authorize
from gateway.fleet import Fleet
from gateway.listening import listen
from gateway.load_level import Load
from gateway.replicas import Replicas
from gateway.revocations import RevocationWatch
from gateway.server import Access, build_gateway, make_server
from gateway.sessions import Sessions
from livefeed.access import Principal
from livefeed.adapters.postgres.log import renew_epoch_if_changed
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.revocations import add_revocation, read_revocations
from livefeed.control import Revoked, encode
from livefeed.errors import AccessRefused, Unavailable
from livefeed.limits import COMMANDS_A_SECOND, COMMANDS_BURST
from livefeed.revocation import Revocation
from livefeed.settings import load_settings
from tests.servers import OwnServers, Process, Stack, http_status, until


class Door:
    """Opens bare connections to one gateway, which stay open until the end of the test."""

    def __init__(self, stack: Stack, places: AsyncExitStack) -> None:
        self.stack = stack
        self._places = places

    async def open(
        self,
        user: str,
        *,
        gateway: Process | None = None,
        token: str = "",
        address: str | None = None,
    ) -> ClientConnection:
        """A connection that was greeted; raises InvalidStatus when it is refused."""
        url = (gateway or self.stack.gateways[0]).url.replace("http", "ws", 1) + "/v1/ws"
        headers = {"Authorization": f"Bearer {token or self.stack.token(user)}"}
        if address is not None:
            headers["X-Forwarded-For"] = address
        connecting = connect(url, additional_headers=headers, compression=None)
        socket = await self._places.enter_async_context(connecting)
        assert (await frame(socket))["type"] == "connection_established"
        return socket

    async def refusal(self, user: str = "alice", **options: Any) -> tuple[int, str, bool]:
        """The status of a refused connection, its code, and whether it says when to come back."""
        with pytest.raises(InvalidStatus) as refused:
            await self.open(user, **options)
        answer = refused.value.response
        assert answer.body is not None
        error = json.loads(answer.body)["error"]
        comes_back = answer.headers.get("Retry-After", "").isdecimal()
        assert error["retryable"] == comes_back
        return answer.status_code, error["code"], comes_back


@pytest.fixture
async def door(stack: Stack) -> AsyncIterator[Door]:
    async with AsyncExitStack() as places:
        yield Door(stack, places)


async def frame(socket: ClientConnection) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 10))
    return found


async def closed(socket: ClientConnection, seconds: float = 10) -> int | None:
    """The code that a connection is closed with, after whatever it is sent."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                await socket.recv()
            except ConnectionClosed:
                return socket.close_code


async def is_open(socket: ClientConnection) -> bool:
    await asyncio.wait_for(await socket.ping(), 10)
    return True


async def test_an_address_has_its_share_and_a_gateway_its_room(door: Door) -> None:
    """Counted by what our proxy saw, not by what a client claims; what has left makes room."""
    await door.stack.start_gateway(
        trusted_proxies=["127.0.0.0/8"], connections_per_address_max=2, connections_max=4
    )
    first = await door.open("a", address="198.51.100.7")
    await door.open("b", address="203.0.113.1, 198.51.100.7")
    too_many = (429, "too_many_connections", True)
    assert await door.refusal(address="198.51.100.7") == too_many
    assert await door.refusal(address="203.0.113.2, 198.51.100.7") == too_many
    # A token that is refused takes no place.
    for _ in range(3):
        assert (await door.refusal(address="198.51.100.9", token="x"))[:2] == (401, "token_invalid")
    await door.open("c", address="198.51.100.9")
    await door.open("d", address="2001:db8::1")
    assert await door.refusal(address="198.51.100.10") == (503, "full", True)
    await first.close()

    async def room() -> bool:
        try:
            return await is_open(await door.open("e", address="198.51.100.7"))
        except InvalidStatus:
            return False

    await until(room, what="the place is free again")


async def test_what_comes_too_fast_is_told_to_wait(door: Door) -> None:
    """Beyond the bucket a connection is refused before its token is looked at."""
    await door.stack.start_gateway(accepts_a_second=0.01)
    await door.open("alice")
    assert await door.refusal(token="x") == (503, "busy", True)


async def test_who_is_over_its_share_uses_up_nobodys(door: Door) -> None:
    """What is refused for its address takes nothing of the rate that all share."""
    await door.stack.start_gateway(
        trusted_proxies=["127.0.0.0/8"], connections_per_address_max=1, accepts_a_second=0.4
    )
    await door.open("a", address="198.51.100.7")
    for _ in range(3):
        refused = await door.refusal(address="198.51.100.7")
        assert refused == (429, "too_many_connections", True)
    await door.open("b", address="198.51.100.8")


async def test_a_gateway_that_leaves_refuses_and_waits_for_the_balancer(door: Door) -> None:
    """Not ready and 503 at once; who is there stays until the wait is over, and is sent then."""
    gateway = await door.stack.start_gateway(drain_wait_seconds=1.5, drain_seconds=0)
    socket = await door.open("alice")
    left_at = time.monotonic()  # Before: it may have begun to leave when the call is back.
    gateway.signal(signal.SIGTERM)

    async def not_ready() -> bool:
        return await http_status(f"{gateway.ops_url}/readyz") == 503

    await until(not_ready, what="it is not ready")
    assert await door.refusal() == (503, "draining", True)
    assert await is_open(socket)
    sent = await frame(socket)
    assert time.monotonic() - left_at >= 1.5
    assert (sent["type"], sent["reason"]) == ("reconnect", "drain")
    assert await closed(socket) == 1012
    assert await gateway.wait() == 0


async def test_a_user_has_so_many_connections_on_all_gateways(door: Door) -> None:
    """The oldest goes with 4504, wherever it is; others do not notice."""
    door.stack.settings["connections_per_user_max"] = 3
    here = await door.stack.start_gateway()
    there = await door.stack.start_gateway()
    bob = await door.open("bob", gateway=here)
    sockets = []
    for gateway in (here, there, here, there, there):
        sockets.append(await door.open("alice", gateway=gateway))
        await asyncio.sleep(0.01)  # The order in which they come is known by their clocks.
    assert await closed(sockets[0]) == 4504
    assert await closed(sockets[1]) == 4504
    # On one gateway nobody has to be asked.
    sockets += [await door.open("alice", gateway=here) for _ in range(3)]
    assert await closed(sockets[2]) == 4504
    assert [await closed(one) for one in sockets[3:5]] == [4504, 4504]
    assert all([await is_open(one) for one in (bob, *sockets[5:])])


async def test_without_nats_all_come_in_and_are_counted_afterwards(
    own_stack: Stack, own_servers: OwnServers
) -> None:
    """While gateways cannot ask each other nobody is turned away for it."""
    own_stack.settings["connections_per_user_max"] = 1
    here = await own_stack.start_gateway()
    there = await own_stack.start_gateway()
    async with AsyncExitStack() as places:
        door = Door(own_stack, places)
        await own_servers.nats.stop()
        older = await door.open("alice", gateway=here)
        newer = await door.open("alice", gateway=there)
        await asyncio.sleep(1.2)  # Longer than a question takes.
        assert await is_open(older)
        await own_servers.nats.start()
        assert await closed(older, 15) == 4504
        assert await is_open(newer)


async def test_an_old_connection_is_sent_away_to_come_back(door: Door) -> None:
    """`reconnect` and 1012; nothing is wrong with it."""
    await door.stack.start_gateway(connection_age_seconds_max=1)
    socket = await door.open("alice")
    sent = await frame(socket)
    assert (sent["type"], sent["reason"]) == ("reconnect", "age")
    assert await closed(socket) == 1012


async def test_too_many_frames_are_errors_and_then_the_end(door: Door) -> None:
    """A burst passes; what is beyond is answered, not carried out, and the tenth closes."""
    await door.stack.start_gateway()
    other, socket = await door.open("bob"), await door.open("alice")
    text = json.dumps({"type": "visibility", "state": "hidden"})
    for _ in range(COMMANDS_BURST):
        await socket.send(text)
    # What a second lets through, and ten more, in much less than a second.
    for _ in range(COMMANDS_A_SECOND + 10):
        await socket.send(text)
    assert (await frame(socket))["code"] == "too_many_frames"
    assert await closed(socket) == 4500
    assert await is_open(other)


async def test_a_revoked_user_is_out_until_a_newer_token(door: Door) -> None:
    """Connections are closed with 4505 on every gateway, and no door opens; a newer token is good.

    A gateway that starts later knows it too.
    """
    stack = door.stack
    here, there = await stack.start_gateway(), await stack.start_gateway()
    issued = int(time.time()) - 10
    old = stack.token("alice", iat=issued)
    sockets = [await door.open("alice", gateway=one, token=old) for one in (here, there)]
    bob = await door.open("bob", token=stack.token("bob", iat=issued))
    done = await stack.command("revoke", "--user", "alice", "--for", "600")
    assert (done.returncode, done.stderr) == (0, "")
    assert [await closed(socket) for socket in sockets] == [4505, 4505]
    assert await door.refusal(token=old) == (401, "token_revoked", False)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {old}"}) as client:
        answer = await client.get(f"{stack.url}/v1/feeds/home")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "token_revoked")
    newer = await door.open("alice", token=stack.token("alice", iat=int(time.time()) + 2))
    await newer.send(json.dumps({"type": "refresh", "token": old}))
    assert (await frame(newer))["code"] == "token_revoked"
    assert await is_open(newer)
    assert await is_open(bob)
    here.kill()
    later = await stack.start_gateway()
    assert await door.refusal(token=old, gateway=later) == (401, "token_revoked", False)


async def test_a_revoked_token_is_out_alone(door: Door) -> None:
    """Another token of the same user stays; the list has it until it is over."""
    stack = door.stack
    await stack.start_gateway()
    lost = await door.open("alice", token=stack.token("alice", jti="lost"))
    kept = await door.open("alice", token=stack.token("alice", jti="kept"))
    done = await stack.command("revoke", "--token-id", "lost", "--for", "600", "--json")
    assert done.returncode == 0, done.stderr
    assert await closed(lost) == 4505
    assert await is_open(kept)
    listed = await stack.command("revoke", "--list", "--json")
    assert listed.stdout == done.stdout
    assert {"kind": "token", "name": "lost"}.items() <= json.loads(done.stdout).items()
    wrong = await stack.command("revoke", "--user", "alice", "--list")
    assert wrong.returncode == 2
    assert "give one of" in wrong.stderr


@asynccontextmanager
async def primary(stack: Stack) -> AsyncIterator[Pool]:
    pool = Pool(
        stack.database_url,
        dependency="primary",
        connections_max=2,
        timeout_seconds=5,
        application="tests",
        on_connect=renew_epoch_if_changed,
    )
    try:
        yield pool
    finally:
        await pool.close()


async def test_a_missed_announcement_is_found(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was stored and not heard of is read; before the first read nobody passes."""
    monkeypatch.setattr(gateway_revocations, "REVOCATION_READ_SECONDS", 0.2)
    alice = Principal("alice", ("*",), 2e9)
    async with primary(stack) as pool, asyncio.TaskGroup() as tasks:
        watch = RevocationWatch(await stack.nats(), pool)
        with pytest.raises(Unavailable):
            watch.check(alice)
        news = asyncio.Event()
        running = tasks.create_task(watch.run(news.set))
        await until(lambda: watch.known, what="it was read")
        watch.check(alice)
        await add_revocation(pool, "user", "alice", seconds=1)
        await asyncio.wait_for(news.wait(), 10)
        with pytest.raises(AccessRefused):
            watch.check(alice)
        await until(lambda: not watch.covers(alice), what="it is over")
        await until(lambda: len(watch) == 0, what="it is forgotten")
        running.cancel()


async def test_revoking_again_never_shortens(stack: Stack) -> None:
    """It counts from now, and as long as the longer one; over is over."""
    async with primary(stack) as pool:
        first = await add_revocation(pool, "user", "alice", seconds=600)
        again = await add_revocation(pool, "user", "alice", seconds=1)
        assert again.revoked_at > first.revoked_at
        assert again.until == first.until
        await add_revocation(pool, "token", "t1", seconds=0)
        assert (await read_revocations(pool)).revocations == [again]


@asynccontextmanager
async def gateway_here(stack: Stack, authorize: Authorize) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway in this process that serves its doors and does nothing beside, and its URL."""
    settings = load_settings(**stack.settings)
    with listen("127.0.0.1", 0, "LIVEFEED_GATEWAY_PORT") as door:
        async with primary(stack) as pool, asyncio.TaskGroup() as tasks:
            access = Access(authorize=authorize)
            gateway = build_gateway(settings, await stack.nats(), pool, Replicas(), access)
            await gateway.revocations._read()
            server = make_server(public_app(gateway), guarded=True)
            serving = tasks.create_task(server.serve([door]))
            await server.serving.wait()
            yield gateway, f"ws://127.0.0.1:{door.getsockname()[1]}/v1/ws"
            server.should_exit = True
            await serving


async def test_a_token_that_is_revoked_during_its_refresh_is_not_good(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verified, then revoked while the authorizer is asked: the connection is closed."""
    monkeypatch.setattr(gateway_authorizer, "AUTHORIZED_SECONDS", 0)
    asked: list[str] = []

    async def authorize(_user: str, feed: str) -> bool:
        asked.append(feed)
        if len(asked) == 2:
            one = Revocation("token", "newer", time.time(), time.time() + 600)
            gateway.revocations._on_revoked(b"", b"", b"", encode(Revoked([one])))
        return True

    async with gateway_here(stack, authorize) as (gateway, url):
        headers = {"Authorization": f"Bearer {stack.token('alice', jti='older')}"}
        async with connect(f"{url}?feeds=home", additional_headers=headers) as socket:
            assert (await frame(socket))["type"] == "connection_established"
            newer = stack.token("alice", jti="newer")
            await socket.send(json.dumps({"type": "refresh", "token": newer}))
            assert await closed(socket) == 4505
    assert asked == ["home", "home"]


async def test_a_step_that_fails_is_not_the_end(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong in what runs beside the doors is logged, and the next step is done."""
    failed: Counter[type] = Counter()
    steps = {Fleet: "_step", Sessions: "_decide", Load: "_take_sample", RevocationWatch: "_read"}

    def fail(part: object) -> None:
        failed[type(part)] += 1
        raise OverflowError

    for kind, step in steps.items():
        monkeypatch.setattr(kind, step, fail)
    async with primary(stack) as pool, asyncio.TaskGroup() as tasks:
        settings = load_settings(**stack.settings)
        gateway = build_gateway(settings, await stack.nats(), pool, Replicas(), Access())
        parts = (gateway.fleet, gateway.sessions, gateway.load)
        running = [tasks.create_task(part.run()) for part in parts]
        running.append(tasks.create_task(gateway.revocations.run(lambda: None)))
        await until(lambda: all(failed[kind] >= 2 for kind in steps), what="each went on")
        for one in running:
            one.cancel()
