"""Several processes of a gateway on one port: who serves, who takes over, and how they leave."""

import os
import signal
import socket
from collections import Counter

import httpx
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.servers import Follower, Process, Stack, http_status, until, update

WORKERS = 2


async def start(stack: Stack, workers: int = WORKERS) -> Process:
    """Start a gateway of some processes, and wait until all of them serve."""
    gateway = await stack.start_gateway(
        wait=False, ops_port=free_ports(workers), gateway_workers=workers
    )
    await until(lambda: "workers are ready" in gateway.output(), seconds=30, what="all are ready")
    return gateway


def free_ports(count: int) -> int:
    """The first of some free ports in a row."""
    for first in range(19_000 + os.getpid() % 500 * 2, 20_000):
        taken = [is_taken(port) for port in range(first, first + count)]
        if not any(taken):
            return first
    raise AssertionError("no free ports")


def is_taken(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def pids(gateway: Process) -> list[int]:
    """The processes that serve."""
    return [child.pid for child in psutil.Process(gateway.pid).children()]


def public_connections(gateway: Process, pid: int) -> int:
    """Clients that are connected to one of the processes."""
    port = httpx.URL(gateway.url).port
    return sum(
        one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port
        for one in psutil.Process(pid).net_connections("tcp")
    )


def ops_urls(gateway: Process, workers: int = WORKERS) -> list[str]:
    """Where each process answers."""
    url = httpx.URL(gateway.ops_url)
    return [f"http://127.0.0.1:{(url.port or 0) + number}" for number in range(workers)]


async def followed_by_all(stack: Stack, gateway: Process) -> list[Follower]:
    """Clients until each process has one."""
    followers = []
    while not all(public_connections(gateway, pid) for pid in pids(gateway)):
        assert len(followers) < 60, "the kernel gives all of them to one process"
        follower = stack.follow("alice")
        followers.append(follower)
        await follower.caught_up()
    return followers


async def sees(followers: list[Follower], ids: list[str]) -> None:
    """Wait until all of them show exactly these."""
    for follower in followers:
        await until(lambda f=follower: f.ids("home") == ids, seconds=20, what=f"{ids} are shown")


async def test_a_killed_worker_is_replaced_and_its_clients_end_exact(stack: Stack) -> None:
    """Clients of both processes get what comes, also those whose process was killed meanwhile."""
    gateway = await start(stack)
    await stack.start_pool()
    followers = await followed_by_all(stack, gateway)
    await stack.publish([update(id="p1")], "high")
    await sees(followers, ["p1"])
    killed, other = pids(gateway)
    here = public_connections(gateway, killed)
    os.kill(killed, signal.SIGKILL)
    await stack.publish([update(id="p2")], "high")
    await sees(followers, ["p2", "p1"])
    assert here > 0
    await until(lambda: len(pids(gateway)) == WORKERS, seconds=20, what="another worker is there")
    assert other in pids(gateway)
    assert killed not in pids(gateway)
    for url in ops_urls(gateway):
        await until(lambda url=url: answers_ready(url), seconds=20, what=f"{url} is ready")
    # The port is served by both again.
    await followed_by_all(stack, gateway)
    frames = Counter(len(one.frames_of("reconnect")) for one in followers)
    assert frames == {0: len(followers)}, "nobody was sent away"

    # SIGTERM: all drain, at once.
    gateway.signal(signal.SIGTERM)
    assert await gateway.wait() == 0
    assert await http_status(f"{gateway.url}/v1/feeds/home") == 0
    for follower in followers:
        assert follower.frames_of("reconnect") or follower.frames_of("error"), "it was told"


async def answers_ready(url: str) -> bool:
    """Whether a process would take clients."""
    return await http_status(f"{url}/readyz") == 200


async def test_a_rolling_restart_refuses_nobody(stack: Stack) -> None:
    """On SIGHUP each process hands its sockets to a successor, and whoever comes is served."""
    stack.settings["drain_seconds"] = 1.0
    gateway = await start(stack)
    await stack.start_pool()
    followers = await followed_by_all(stack, gateway)
    before = pids(gateway)
    gateway.signal(signal.SIGHUP)
    refused = []
    while set(before) & set(pids(gateway)):
        # Without a token; one that drains would say 503 before it looks.
        with pytest.raises(InvalidStatus) as answer:
            await connect(gateway.url.replace("http", "ws") + "/v1/ws")
        if answer.value.response.status_code != 401:
            refused.append(answer.value.response.status_code)
    assert refused == []
    assert len(pids(gateway)) == WORKERS
    await stack.publish([update(id="p1")], "high")
    await sees(followers, ["p1"])
    assert all(one.frames_of("reconnect") for one in followers), "each was sent to a successor"


async def is_replaced(gateway: Process, before: list[int]) -> None:
    """Wait until others serve in place of all of these."""
    await until(
        lambda: len(pids(gateway)) == WORKERS and not set(before) & set(pids(gateway)),
        seconds=30,
        what="all processes are others",
    )


async def test_a_predecessor_that_dies_leaves_its_socket_to_its_successor(stack: Stack) -> None:
    """It is killed while its successor starts: the next restart replaces that one, too."""
    stack.settings["drain_seconds"] = 0.1
    gateway = await start(stack)
    before = pids(gateway)
    gateway.signal(signal.SIGHUP)
    await until(lambda: len(pids(gateway)) > WORKERS, seconds=20, what="a successor starts")
    os.kill(before[0], signal.SIGKILL)
    await is_replaced(gateway, before)
    later = pids(gateway)
    gateway.signal(signal.SIGHUP)
    await is_replaced(gateway, later)


async def test_a_restart_that_fails_can_be_asked_for_again(stack: Stack) -> None:
    """Without a descriptor no process starts; with some again, all of it works as before."""
    stack.settings["drain_seconds"] = 0.1
    gateway = await start(stack)
    before, parent = pids(gateway), psutil.Process(gateway.pid)
    limits = parent.rlimit(psutil.RLIMIT_NOFILE)
    parent.rlimit(psutil.RLIMIT_NOFILE, (3, limits[1]))
    gateway.signal(signal.SIGHUP)
    await until(lambda: "the restart ends here" in gateway.output(), what="it says so")
    os.kill(before[0], signal.SIGKILL)
    await until(lambda: "does not start" in gateway.output(), what="it says so")
    parent.rlimit(psutil.RLIMIT_NOFILE, limits)
    await until(lambda: len(pids(gateway)) == WORKERS, seconds=30, what="it is started again")
    for url in ops_urls(gateway):
        await until(lambda url=url: answers_ready(url), seconds=20, what=f"{url} is ready")
    before = pids(gateway)
    gateway.signal(signal.SIGHUP)
    await is_replaced(gateway, before)


async def test_a_port_that_is_taken_is_named(stack: Stack) -> None:
    """Each port is taken once: a second gateway ends at once and says which setting to change."""
    first = await start(stack)
    port, ops_port = httpx.URL(first.url).port, httpx.URL(first.ops_url).port or 0
    for settings, named in (
        ({"gateway_port": port, "ops_port": 0}, "LIVEFEED_GATEWAY_PORT"),
        ({"gateway_port": 0, "ops_port": ops_port - 1}, "LIVEFEED_OPS_PORT"),
    ):
        second = await stack.start_gateway(wait=False, gateway_workers=2, **settings)
        assert await second.wait() == 1
        assert named in second.output()
        assert "Traceback" not in second.output()


async def test_workers_that_cannot_start_end_it(stack: Stack) -> None:
    """A setting that no worker can use ends the whole with what the worker said."""
    gateway = await stack.start_gateway(
        wait=False, gateway_workers=2, ops_port=0, jwt_algorithm="EdDSA", jwt_public_key="nowhere"
    )
    assert await gateway.wait() == 1
    assert "does not start" in gateway.output()
    assert "Traceback" not in gateway.output()
