"""Workers that are forked instead of started."""

from __future__ import annotations

import asyncio
import signal
import sys

import psutil
import pytest

from livefeed.adapters.fork_server import ForkServer
from tests.servers import Stack, until, update

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forked on Linux alone")
MODULE = "livefeed.cli.fork_server"


async def test_a_forked_process_is_like_any_other() -> None:
    """It is listed with its arguments, answers signals, and its end is told."""
    server = ForkServer("tests.forked")
    server.open()
    asleep = await until(lambda: server.start(["sleep"]), what="the server forks")
    process = psutil.Process(asleep.pid)
    await until(lambda: process.cmdline()[3:4] == ["sleep"], what="it is listed as that")
    others = [server.start([argument]) for argument in ("0", "3", "raise")]
    assert await asyncio.gather(*(one.wait() for one in others if one)) == [0, 3, 1]
    asleep.kill()
    assert await asleep.wait() == -signal.SIGKILL
    assert await asleep.stop([(signal.SIGTERM, 1.0)]) == -signal.SIGKILL
    asleep.kill()
    stopped = server.start(["sleep"])
    assert stopped is not None
    assert await stopped.stop([(signal.SIGTERM, 5.0)]) == -signal.SIGTERM
    server.close()
    assert server.start(["0"]) is None


async def test_the_end_of_the_server_is_that_of_its_processes() -> None:
    """They are told to leave, and somebody notices that they have."""
    server = ForkServer("tests.forked")
    server.open()
    asleep = await until(lambda: server.start(["sleep"]), what="the server forks")
    parent = psutil.Process(asleep.pid).parent()
    assert parent is not None
    parent.kill()
    assert await asleep.wait() < 0
    assert not server.is_open
    server.open()
    again = await until(lambda: server.start(["7"]), what="another server forks")
    assert await again.wait() == 7
    server.close()


async def test_without_the_server_workers_leave_and_others_are_started(stack: Stack) -> None:
    """Nothing of what they had in hand is lost, and nobody notices."""
    await stack.start_gateway()
    reader = stack.follow("alice")
    await reader.caught_up()
    pool = await stack.start_pool()
    await until(lambda: "are forked" in pool.output(), seconds=20, what="the fork server is ready")
    await stack.publish([update(id="p1")], "medium")
    await until(lambda: stack.worker_pids("deliver"), seconds=20, what="a worker")
    workers = stack.worker_pids("deliver")
    server = psutil.Process(workers[0]).parent()
    assert server is not None
    assert MODULE in server.cmdline()
    server.kill()
    await until(
        lambda: not any(psutil.pid_exists(pid) for pid in workers), seconds=20, what="they left"
    )
    await stack.publish([update(id="p2")], "high")
    await until(lambda: set(reader.ids("home")) == {"p1", "p2"}, seconds=20, what="both arrived")


async def test_a_pool_that_is_killed_leaves_nobody_behind(stack: Stack) -> None:
    """The server ends with the pool, and the workers with the server."""
    pool = await stack.start_pool()
    await until(lambda: "are forked" in pool.output(), seconds=20, what="the fork server is ready")
    await stack.publish([update()], "medium")
    await until(lambda: stack.worker_pids("deliver"), seconds=20, what="a worker")
    workers = stack.worker_pids("deliver")
    server = psutil.Process(workers[0]).ppid()
    pool.kill()
    await until(
        lambda: not any(psutil.pid_exists(pid) for pid in [server, *workers]),
        seconds=20,
        what="all of them ended",
    )
