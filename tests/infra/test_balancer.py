"""Two gateways behind the balancer that docs/operations/balancer.md describes."""

import asyncio
import itertools
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from websockets.asyncio.client import connect

from livefeed.adapters.http import get
from livefeed.adapters.process import Child, Launch
from tests.servers import (
    ROOT,
    Follower,
    Process,
    Stack,
    http_status,
    require,
    server_port,
    until,
    update,
)

CONFIGURATION = ROOT / "docs" / "operations" / "haproxy.cfg"
CLIENTS = 32
WINDOW_SECONDS = 2.0
"""Over how long a leaving gateway sends its clients away."""


@dataclass
class Balanced:
    """Two gateways, and haproxy in front of them."""

    stack: Stack
    gateways: Sequence[Process]
    url: str
    connected_at: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def follow(self, user: str) -> Follower:
        """A client that comes through the balancer."""
        return self.stack.follow(user, url=self.url, on_status=self._on_status)

    def _on_status(self, status: str, detail: str) -> None:
        if status == "connected":
            self.connected_at.append(time.monotonic())
        elif status == "refused":
            self.refused.append(detail)


@pytest.fixture
async def balanced(stack: Stack) -> AsyncIterator[Balanced]:
    """Gateways and a balancer with the configuration that is shipped, but for the ports."""
    haproxy = require(
        shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin"),
        "haproxy is not installed (Debian's `haproxy`)",
    )
    stack.settings |= {
        "trusted_proxies": ["127.0.0.0/8"],
        "drain_wait_seconds": 2.5,
        "drain_seconds": WINDOW_SECONDS,
        "shed_connections_min": 4,
    }
    front = server_port()
    ports = {8000: front, **{port: server_port() for port in range(8080, 8084)}}
    text = CONFIGURATION.read_text()
    for shipped, own in ports.items():
        assert str(shipped) in text
        text = text.replace(str(shipped), str(own))
    configuration = stack.directory / "haproxy.cfg"
    configuration.write_text(text)
    gateways = [
        await stack.start_gateway(
            gateway_port=ports[port],
            ops_port=ports[port + 1],
            node_lock_file=str(stack.directory / f"gateway-{number}.lock"),
        )
        for number, port in enumerate((8080, 8082))
    ]
    launch = Launch(stack.directory / "logs" / "haproxy.log", stack.directory)
    balancer = Child([haproxy, "-db", "-f", str(configuration)], launch)
    try:
        found = Balanced(stack, gateways, f"http://127.0.0.1:{front}")
        await until(lambda: http_status(f"{found.url}/"), what="the balancer listens")
        yield found
    finally:
        balancer.kill()


async def test_a_rolling_restart_is_not_noticed(balanced: Balanced) -> None:
    """Both gateways restart under load: no client is refused, none misses anything, they come back
    no faster than planned, and the one that came up empty gets clients of the other. Then one is
    killed, and its clients miss nothing either."""
    stack = balanced.stack
    await stack.start_pool()
    users = [f"user-{number}" for number in range(CLIENTS)]
    clients = {user: balanced.follow(user) for user in users}
    for client in clients.values():
        await client.caught_up(seconds=20)
    beside = [
        asyncio.create_task(publish(stack, users)),
        asyncio.create_task(come_and_go(balanced)),
    ]
    for gateway in balanced.gateways:
        began_at = time.monotonic()
        assert await gateway.stop() == 0
        came_at = [at for at in balanced.connected_at if at >= began_at]
        assert len(came_at) >= CLIENTS / 4
        # The plan is an even spread; half a window is long enough for chance to even out.
        most = busiest(came_at, WINDOW_SECONDS / 2)
        print(f"{len(came_at)} came back, at most {most} of them in half of the window")
        assert most <= 1.5 * len(came_at) / 2
        await gateway.start()
        await until(
            lambda one=gateway: shed_to(one), seconds=20, what="it gets clients by shedding"
        )
    assert balanced.refused == []
    publishing, coming = beside
    await cancelled(coming)
    killed, other = balanced.gateways
    killed.kill()
    await until(lambda: all_at(other), seconds=20, what="the killed one's clients are at the other")
    await cancelled(publishing)
    await stack.settled()
    for user, client in clients.items():
        assert client.error is None
        reasons = {frame["reason"] for frame in client.frames_of("reconnect")}
        assert reasons <= {"drain", "shed"}
        snapshot = await stack.snapshot(user, url=balanced.url)
        wanted = [(item.id, item.content) for item in snapshot.items]
        await until(lambda c=client, w=wanted: shown(c) == w, what=f"{user} has what the log has")


async def publish(stack: Stack, users: Sequence[str]) -> None:
    """Publish for one user after the other, and for everyone, until cancelled."""
    for number in itertools.count():
        one = update(users[number % len(users)], id=f"p{number}")
        every = update(None, id=f"all-{number % 7}", audience={"feed": True})
        await asyncio.shield(stack.publish([one, every] if number % 10 == 0 else [one], "high"))
        await asyncio.sleep(0.02)


async def come_and_go(balanced: Balanced) -> None:
    """Open one connection after the other: whoever comes is let in, whatever is restarted."""
    url = balanced.url.replace("http", "ws", 1) + "/v1/ws"
    headers = {"Authorization": f"Bearer {balanced.stack.token('somebody')}"}
    while True:
        async with connect(url, additional_headers=headers) as socket:
            await socket.recv()
        await asyncio.sleep(0.1)


def shown(client: Follower) -> list[tuple[str, object]]:
    return [(item.id, item.content) for item in client.items("home")]


def busiest(times: Sequence[float], seconds: float) -> int:
    """The most of some times that lie within one span."""
    return max(sum(start <= at < start + seconds for at in times) for start in times)


async def cancelled(task: asyncio.Task[None]) -> None:
    """End a task that had to go on until now."""
    assert not task.done(), task
    task.cancel()
    await asyncio.wait([task])


async def all_at(gateway: Process) -> bool:
    """Whether every client is connected to one gateway."""
    return await connections(gateway) == CLIENTS


async def connections(gateway: Process) -> int:
    """How many connections a gateway has."""
    answer = await get(f"{gateway.ops_url}/healthz", seconds_max=5)
    found: int = json.loads(answer.body)["connections"]
    return found


async def shed_to(gateway: Process) -> bool:
    """Whether a gateway that came up empty has some clients."""
    return await connections(gateway) >= 2
