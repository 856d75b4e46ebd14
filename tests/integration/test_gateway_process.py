"""The gateway as a process: told to leave once or twice, and the files that it may have open."""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from livefeed.cli.gateway_workers import LEAVING_SECONDS_MAX
from livefeed.cli.running import SAME_SIGNAL_SECONDS
from tests.integration.test_gateway_workers import free_ports, ops_urls, pids
from tests.integration.test_held_pages import UnreadEvents, publish_items
from tests.servers import Process, Stack, http_status, until

LONG_SECONDS = 60
"""A drain that nobody waits for here."""


async def drains(url: str) -> bool:
    """Whether a gateway says that it is not ready any more."""
    return await http_status(f"{url}/readyz") == 503


async def ended_at_once(gateway: Process, number: signal.Signals) -> None:
    """Wait until it has ended, by a signal."""
    began_at = time.monotonic()
    assert await gateway.wait(5) == -number
    assert time.monotonic() - began_at < 3
    assert "leaving at once" in gateway.output()
    assert "Traceback" not in gateway.output()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_means_now(stack: Stack, number: signal.Signals) -> None:
    """While it drains; one that comes with the first is the first."""
    gateway = await stack.start_gateway(drain_wait_seconds=LONG_SECONDS)
    follower = stack.follow("alice")
    await follower.caught_up()
    gateway.signal(signal.SIGTERM)
    gateway.signal(signal.SIGINT)
    await until(lambda: drains(gateway.ops_url), what="it drains")
    await asyncio.sleep(2 * SAME_SIGNAL_SECONDS)
    assert gateway.running
    gateway.signal(number)
    await ended_at_once(gateway, number)


async def test_a_second_signal_ends_all_workers_at_once(stack: Stack) -> None:
    """The parent is told; a worker that is told twice by a manager drains on."""
    gateway = await stack.start_gateway(
        wait=False, ops_port=free_ports(2), gateway_workers=2, drain_wait_seconds=LONG_SECONDS
    )
    await until(lambda: "workers are ready" in gateway.output(), seconds=30, what="all are ready")
    workers = [psutil.Process(pid) for pid in pids(gateway)]
    gateway.signal(signal.SIGTERM)
    for url in ops_urls(gateway):
        await until(lambda url=url: drains(url), what="both drain")
    for _ in range(2):
        await asyncio.sleep(2 * SAME_SIGNAL_SECONDS)
        workers[0].send_signal(signal.SIGTERM)
    await asyncio.sleep(SAME_SIGNAL_SECONDS)
    for worker in workers:
        assert worker.status() != psutil.STATUS_ZOMBIE
    assert gateway.running
    gateway.signal(signal.SIGTERM)
    await ended_at_once(gateway, signal.SIGTERM)
    assert psutil.wait_procs(workers, timeout=3)[1] == []


async def test_workers_have_the_time_that_a_drain_takes(stack: Stack) -> None:
    """The wait for the balancer is a part of it: no client is cut off for it."""
    gateway = await stack.start_gateway(
        wait=False,
        ops_port=free_ports(2),
        gateway_workers=2,
        drain_wait_seconds=LEAVING_SECONDS_MAX + 1,
        drain_seconds=1,
    )
    await until(lambda: "workers are ready" in gateway.output(), seconds=30, what="all are ready")
    followers = [stack.follow(user) for user in ("alice", "bob", "carol", "dave")]
    for follower in followers:
        await follower.caught_up()
    gateway.signal(signal.SIGTERM)
    assert await gateway.wait(LEAVING_SECONDS_MAX + 15) == 0
    for follower in followers:
        assert [one["reason"] for one in follower.frames_of("reconnect")] == ["drain"]


async def test_a_stream_that_is_not_read_ends_with_the_gateway(stack: Stack) -> None:
    """It has no time to be told; that is no error of the gateway's."""
    gateway = await stack.start_gateway()
    await stack.start_pool()
    await publish_items(stack, "alice", 64)
    stream = UnreadEvents(stack)
    await stream.open()
    await asyncio.sleep(1)
    assert await gateway.stop() == 0
    assert "Traceback" not in gateway.output()
    stream.writer.close()


@contextmanager
def soft_limit(files: int) -> Iterator[int]:
    """Give to what is started meanwhile a lower soft limit; returns the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_it_takes_as_many_open_files_as_it_may(stack: Stack) -> None:
    """The soft limit is raised; when the hard one is too low, it says what to change to what."""
    with soft_limit(300) as hard:
        if hard == resource.RLIM_INFINITY:
            pytest.skip("open files have no limit here")
        enough = await stack.start_gateway(connections_max=hard - 100)
        few = await stack.start_gateway(connections_max=hard - 99)
    for gateway in (enough, few):
        limits = psutil.Process(gateway.pid).rlimit(psutil.RLIMIT_NOFILE)
        assert limits == (hard, hard)
    assert "files open" not in enough.output()
    assert f"may have {hard} files open" in few.output()
    assert f"LIVEFEED_CONNECTIONS_MAX={hard - 99}: allow it {hard + 1}" in few.output()
    assert f"or set LIVEFEED_CONNECTIONS_MAX to {hard - 100}" in few.output()
