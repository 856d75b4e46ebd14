"""NATS, Postgres or both are away for a while: nothing is lost, and high is live soon after."""

import asyncio
import random
import signal
import time
from typing import Any

import psutil
import pytest

from functions.function import Function
from functions.life import WorkerPolicy
from functions.pool import Pool, PoolPolicy
from functions.worker import Worker
from livefeed.adapters.nats.connection import Connection, close, connect
from livefeed.adapters.nats.publish import Publisher
from livefeed.errors import OutcomeUnknown, Unavailable
from livefeed.limits import HEAD_CHECK_SECONDS
from tests.integration.test_order_end_to_end import an_update, expected
from tests.integration.test_worker import Slow
from tests.servers import Follower, OwnServers, Stack, until, update

LIVE_AGAIN_SECONDS = 5.0
LEAVING_SECONDS = 20.0
"""What docs/operations/node-agent.md gives a pool, and a busy computer's."""
BUSY_COMPUTER_SECONDS = 5.0
"""More for starting processes where everything else runs at once."""
USERS = ("alice", "bob", "carol")
KEPT = "kept"
"""The item that each user has from the first update on; the random ones never touch it."""


class CarefulPublisher:
    """Publishes `KEPT` for each, then random updates of all lanes, each until it is accepted."""

    def __init__(self, stack: Stack, choices: random.Random) -> None:
        self._stack = stack
        self._choices = choices
        self._stopped = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._paused = asyncio.Event()
        self.sent: dict[str, list[dict[str, Any]]] = {user: [] for user in USERS}
        self._task = asyncio.create_task(self._run(), name="careful-publisher")

    async def stop(self) -> None:
        self._stopped = True
        await self._task

    async def pause(self) -> None:
        """Publish nothing more for now; returns when the last one was accepted."""
        self._flows.clear()
        await self._paused.wait()

    def resume(self) -> None:
        """Go on."""
        self._flows.set()

    async def publish(self, user: str, one: dict[str, Any], lane: Any) -> None:
        self.sent[user].append(one)

        async def accepted() -> bool:
            try:
                await self._stack.publish([one], lane)
            except (OutcomeUnknown, Unavailable):
                return False
            return True

        await until(accepted, seconds=90, what="an update is accepted")

    async def _run(self) -> None:
        for user in USERS:
            await self.publish(user, kept_update(user), "high")
        number = 0
        while not self._stopped:
            if not self._flows.is_set():
                self._paused.set()
                await self._flows.wait()
            number += 1
            user = self._choices.choice(USERS)
            one = an_update(self._choices, number, user=user, feed="home")
            await self.publish(user, one, self._choices.choice(["high", "medium", "low"]))
            await asyncio.sleep(0.02)


def shown(reader: Follower) -> list[tuple[str, Any, Any]]:
    """What a client shows, as `expected` has it."""
    return [
        (item.id, item.content["n"], item.engagement["n"] if item.engagement else None)
        for item in reader.items("home")
    ]


def kept_update(user: str) -> dict[str, Any]:
    """What gives a user the item that is kept."""
    return update(user=user, feed="home", kind="new_content", content={"id": KEPT, "n": 0})


def has_kept(reader: Follower) -> bool:
    """Whether a client shows what it must show at any time once updates flow."""
    return any(item.id == KEPT for item in reader.items("home"))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("away", [("nats",), ("postgres",), ("nats", "postgres")], ids="+".join)
@pytest.mark.parametrize("seconds", [3.0, pytest.param(30.0, marks=pytest.mark.slow)])
async def test_an_outage_loses_nothing(
    own_stack: Stack, own_servers: OwnServers, away: tuple[str, ...], seconds: float
) -> None:
    """Clients stay, publishers try again, and a high update after the return is live in 5 s."""
    seed = random.randrange(2**32)
    servers = [getattr(own_servers, name) for name in away]
    await own_stack.start_gateway()
    await own_stack.start_pool(worker_processes_max=2)
    readers = {user: own_stack.follow(user) for user in USERS}
    for reader in readers.values():
        await reader.caught_up()
    connects = {user: len(readers[user].frames_of("connection_established")) for user in USERS}
    publisher = CarefulPublisher(own_stack, random.Random(seed))
    await until(lambda: all(has_kept(reader) for reader in readers.values()), what="it flows")

    await asyncio.gather(*(server.stop() for server in servers))
    await asyncio.sleep(seconds)
    await asyncio.gather(*(server.start() for server in servers))
    returned_at = time.monotonic()
    marker = update(id="marker", content={"id": "marker", "n": -1})
    await publisher.publish("alice", marker, "high")
    await until(
        lambda: "marker" in readers["alice"].ids("home"),
        seconds=LIVE_AGAIN_SECONDS + BUSY_COMPUTER_SECONDS,
        what="high is live again",
    )
    live_seconds = time.monotonic() - returned_at
    await publisher.stop()
    await own_stack.settled(seconds=40)
    for user, reader in readers.items():
        await until(
            lambda user=user, reader=reader: shown(reader) == expected(publisher.sent[user]),
            # A push that was lost with its worker's connection is found by comparing heads.
            seconds=HEAD_CHECK_SECONDS + BUSY_COMPUTER_SECONDS,
            what=f"{user} has what the log has (seed {seed})",
        )
        later = own_stack.follow(user)
        await later.caught_up()
        assert shown(later) == expected(publisher.sent[user]), f"seed {seed}"
        assert len(reader.frames_of("connection_established")) == connects[user]
    print(f"{'+'.join(away)} away for {seconds:g} s: high live after {live_seconds:.1f} s")


async def test_a_worker_without_its_connection_leaves(nats: str) -> None:
    """One that the client library gave up on for good comes back by another worker."""
    for number in range(2):
        connections = [await connect([nats], name=name) for name in ("tests", "bulk")]
        publisher = Publisher(connections[0])
        publisher.start()
        policy = WorkerPolicy(idle_seconds=60, life_seconds=60)
        function: Function = Slow(0)
        worker = Worker(function, connections[0], publisher, policy, bulk=connections[1])
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(0.1)
        await Connection.close(connections[number])
        async with asyncio.timeout(5):
            assert (await running).reason == "nats connection closed"
        await asyncio.gather(*map(close, connections))


async def test_a_pool_without_its_connection_leaves(nats: str) -> None:
    """Whatever supervises it starts another one."""
    connection = await connect([nats], name="tests")
    pool = Pool(
        connection,
        start_worker=lambda function, lanes: pytest.fail(f"{function} was started"),
        database_answers=lambda: asyncio.sleep(0),
        policy=PoolPolicy(processes_max=1, life_seconds=60),
    )
    running = asyncio.create_task(pool.run())
    await asyncio.sleep(0.1)
    await Connection.close(connection)
    async with asyncio.timeout(5):
        await running


async def test_a_pool_waits_for_nats_without_spinning(
    own_stack: Stack, own_servers: OwnServers
) -> None:
    """While NATS is away it lives, and costs next to nothing."""
    pool = await own_stack.start_pool()
    await own_servers.nats.stop()
    process = psutil.Process(pool.pid)
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    await asyncio.sleep(5)
    spent = sum(process.cpu_times()[:2]) - before
    assert pool.running
    assert spent < 0.3 * (time.monotonic() - began)
    await own_servers.nats.start()
    await own_stack.start_gateway()
    reader = own_stack.follow("alice")
    await own_stack.publish([update()], "high")
    await until(lambda: reader.ids("home") == ["p1"], what="it arrived")


async def test_who_leaves_while_nats_is_away_leaves(
    own_stack: Stack, own_servers: OwnServers
) -> None:
    """With exit code 0: what ends otherwise is started again, on a node that is to end, too."""
    gateway = await own_stack.start_gateway()
    pool = await own_stack.start_pool()
    await own_stack.publish([update(user="alice", feed="home")], "medium")
    own_servers.nats.kill()
    await asyncio.sleep(1)
    for process in (gateway, pool):
        process.signal(signal.SIGTERM)
        assert await process.wait(LEAVING_SECONDS) == 0
        assert "Traceback" not in process.output()
