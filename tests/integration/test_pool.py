"""Workers come when there is work, leave in peace, and are replaced when they do not."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from functions.pool import Pool, PoolPolicy
from livefeed import subjects
from livefeed.adapters.nats.connection import close, connect
from livefeed.adapters.nats.lag import consumer_lag
from livefeed.adapters.nats.publish import Publisher
from livefeed.adapters.process import Child, Launch
from livefeed.limits import MIB, WORKER_SETTLE_SECONDS
from livefeed.subjects import Lane
from livefeed.topology import ACK_WAIT_SECONDS, LANE_STREAM, UPDATES
from tests.servers import OwnServers, Process, Stack, until, update

BUSY_COMPUTER_SECONDS = 3.0
"""What a process may take to start or to be noticed where everything runs at once."""


def summary_of(worker: Process) -> dict[str, Any]:
    """What a worker that has left says of itself."""
    lines = [line for line in worker.output().splitlines() if line.startswith("{")]
    summary: dict[str, Any] = json.loads(lines[-1])
    return summary


class Stream:
    """Updates for many users, published one after the other until stopped."""

    def __init__(
        self, stack: Stack, lane: Lane = "high", *, seconds: float = 0.01, users: int = 64
    ) -> None:
        self._stack = stack
        self._lane = lane
        self._seconds = seconds
        self._users = users
        self.count = 0
        self._stopped = False
        self._task = asyncio.create_task(self._run(), name="stream")

    async def stop(self) -> None:
        self._stopped = True
        await self._task

    async def _run(self) -> None:
        while not self._stopped:
            user = f"user{self.count % self._users}"
            await self._stack.publish([update(user, id=f"p{self.count}")], self._lane)
            self.count += 1
            await asyncio.sleep(self._seconds)


async def rows(stack: Stack) -> int:
    """How many entries the log has."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        return int(await connection.fetchval("select count(*) from feed_entry"))
    finally:
        await connection.close()


async def in_hands(stack: Stack, *streams: str) -> int:
    """Messages of these streams that are in the hands of workers: delivered and not settled."""
    jetstream = (await stack.nats()).jetstream()
    consumers = [one for stream in streams for one in await jetstream.consumers_info(stream)]
    return sum(consumer.num_ack_pending or 0 for consumer in consumers)


async def test_called_once_they_persist_everything_that_is_there(stack: Stack) -> None:
    """`prioritize --once`, then `deliver --once`: no window is waited for, and both exit with 0."""
    stack.settings |= {"window_medium_seconds": 20, "window_low_seconds": 20}
    for lane in ("high", "medium", "low"):
        await stack.publish([update(f"u{n}", id=f"{lane}{n}") for n in range(400)], lane)  # type: ignore[arg-type]
    began = time.monotonic()
    for function in ("prioritize", "deliver"):
        worker = await stack.start_worker(function, "--once", wait=False)
        assert await worker.wait() == 0, worker.output()
        assert summary_of(worker)["reason"] == "idle"
    assert time.monotonic() - began < 20
    assert await rows(stack) == 1200
    assert await in_hands(stack, UPDATES, LANE_STREAM) == 0


async def test_called_once_with_nothing_to_do_it_leaves(stack: Stack) -> None:
    """It does not wait for what may come."""
    worker = await stack.start_worker("deliver", "--once", wait=False)
    assert await worker.wait() == 0
    assert summary_of(worker)["handled"] == 0


async def test_both_functions_start_from_none(stack: Stack) -> None:
    """The first update after silence starts both, and they leave when there is nothing to do."""
    await stack.start_gateway()
    await stack.start_pool(worker_idle_seconds=1)
    reader = stack.follow("alice")
    await reader.caught_up()
    assert not stack.worker_pids("prioritize") + stack.worker_pids("deliver")
    await stack.publish([update()], "high")
    await until(lambda: reader.ids("home") == ["p1"], what="it arrived")
    await until(
        lambda: not stack.worker_pids("prioritize") + stack.worker_pids("deliver"),
        seconds=10,
        what="they left",
    )


async def test_what_no_hint_tells_of_is_found(stack: Stack) -> None:
    """A pool that found nothing to do before finds what was stored without passing by."""
    await stack.start_pool()
    await asyncio.sleep(2)
    assert not stack.worker_pids("deliver")
    connection = await stack.nats()
    await connection.jetstream().publish(subjects.lanes("low", 7), b"no lane message")
    await until(
        lambda: stack.worker_pids("deliver"), seconds=2 + BUSY_COMPUTER_SECONDS, what="a worker"
    )
    await stack.settled()
    assert not stack.worker_pids("prioritize")


async def test_a_second_worker_takes_over_part_of_the_partitions(stack: Stack) -> None:
    """Within 5 s of its start both are served, and when it leaves the first has all again."""
    await stack.start_worker("prioritize")
    first = await stack.start_worker("deliver")
    stream = Stream(stack, "medium")
    await until(lambda: stream.count > 50, what="updates flow")
    began = time.monotonic()
    second = await stack.start_worker("deliver")
    await asyncio.sleep(began + 5 - time.monotonic())
    assert await second.stop() == 0
    shared = stream.count
    await until(lambda: stream.count > shared + 100, what="updates flow")
    await stream.stop()
    await stack.settled()
    assert await first.stop() == 0
    assert summary_of(second)["rows"] > 10
    assert summary_of(first)["rows"] > 50
    assert await rows(stack) == stream.count


async def test_a_killed_worker_is_replaced_and_what_it_had_arrives(stack: Stack) -> None:
    """The next one is there within a second, and the dead one's high updates within six."""
    await stack.start_gateway()
    await stack.start_pool()
    readers = [stack.follow(f"user{number}") for number in range(4)]
    for reader in readers:
        await reader.caught_up()
    stream = Stream(stack, users=4)
    await until(lambda: len(stack.worker_pids("prioritize")) == 1, seconds=20, what="a worker")
    await asyncio.sleep(1)
    [victim] = stack.worker_pids("prioritize")
    os.kill(victim, signal.SIGKILL)
    killed_at = time.monotonic()
    await until(
        lambda: [pid for pid in stack.worker_pids("prioritize") if pid != victim],
        seconds=1 + BUSY_COMPUTER_SECONDS,
        what="another one",
    )
    await stream.stop()
    await until(
        lambda: sum(len(reader.ids("home")) for reader in readers) == stream.count,
        seconds=killed_at + 6 + BUSY_COMPUTER_SECONDS - time.monotonic(),
        what="everything that the dead one had",
    )


async def test_a_worker_told_to_leave_under_load_settles_in_time(stack: Stack) -> None:
    """It exits within 5 s, and nothing of what it had waits for its ack wait."""
    prioritize = await stack.start_worker("prioritize")
    deliver = await stack.start_worker("deliver")
    stream = Stream(stack, "medium", seconds=0)
    await until(lambda: stream.count > 300, what="updates flow")
    for worker, function in ((deliver, "deliver"), (prioritize, "prioritize")):
        began = time.monotonic()
        assert await worker.stop() == 0
        assert time.monotonic() - began < WORKER_SETTLE_SECONDS + BUSY_COMPUTER_SECONDS
        # Few messages of deliver's have many rows.
        assert summary_of(worker)["rows"] > 10
        await stack.start_worker(function)
    await stream.stop()
    await stack.settled(seconds=ACK_WAIT_SECONDS["medium"] * 0.9)
    assert await rows(stack) == stream.count


async def test_a_successor_is_there_before_the_end(stack: Stack) -> None:
    """While workers reach the end of their lives, no update waits for one to start."""
    await stack.start_gateway()
    await stack.start_pool(worker_life_seconds=5, worker_idle_seconds=5)
    reader = stack.follow("alice")
    await reader.caught_up()
    seen: set[int] = set()
    most_at_once, longest, number = 0, 0.0, 0
    began = time.monotonic()
    while time.monotonic() - began < 12:
        number += 1
        sent_at = time.monotonic()
        await stack.publish([update(id=f"p{number}")], "high")
        await until(lambda number=number: f"p{number}" in reader.ids("home"), what="it arrived")
        if number > 1:
            longest = max(longest, time.monotonic() - sent_at)
        pids = stack.worker_pids("prioritize")
        seen |= set(pids)
        most_at_once = max(most_at_once, len(pids))
    assert len(seen) >= 3
    assert most_at_once >= 2
    assert longest < BUSY_COMPUTER_SECONDS


async def test_a_worker_above_its_memory_is_replaced(stack: Stack) -> None:
    """It leaves in peace, and what is published meanwhile arrives."""
    # How much updates make it take at once depends on the computer, so a plug-in takes too much.
    stack.plug_in(
        f"""
        from livefeed.priority import lane_of

        BALLAST = b"x" * {64 * MIB}
        """,
        lane_function="lane_of",
    )
    await stack.start_gateway()
    pool = await stack.start_pool(worker_memory_bytes_max=64 * MIB)
    reader = stack.follow("alice")
    await reader.caught_up()
    text = "x" * 50_000
    # For longer than the few seconds in which a worker does something whatever its memory.
    for number in range(16):
        content = [{"id": f"p{number}-{item}", "text": text} for item in range(9)]
        await stack.publish([update(content=content) for _ in range(20)], "high")
        await asyncio.sleep(0.5)
    await until(lambda: len(reader.ids("home")) == 144, seconds=20, what="everything arrived")
    await stack.settled()
    assert '"reason":"memory"' in pool.output()


async def test_a_crash_loop_gets_slower(nats: str, tmp_path: Path) -> None:
    """A worker that ends badly at once is started again and again, but ever less often."""
    connection = await connect([nats], name="tests")
    publisher = Publisher(connection)
    publisher.start()
    await publisher.publish("feed.updates.high.t", b"x")
    started: list[tuple[str, float]] = []

    def start(function: str, lanes: object) -> Child:
        started.append((f"{function} {lanes}", time.monotonic()))
        return Child(["/bin/sh", "-c", "exit 3"], Launch(log=None, directory=tmp_path))

    async def answers() -> None:
        pass

    policy = PoolPolicy(processes_max=1, life_seconds=60)
    pool = Pool(connection, start_worker=start, database_answers=answers, policy=policy)
    running = asyncio.create_task(pool.run())
    await asyncio.sleep(5)
    pool.leave()
    await running
    await close(connection)
    times = [at for function, at in started if function.startswith("prioritize ('high'")]
    assert 4 <= len(times) <= 7, times
    assert times[-1] - times[-2] > 0.9, "the last wait is long"


async def test_without_a_database_no_worker_of_deliver_is_started(
    own_stack: Stack, own_servers: OwnServers
) -> None:
    """It would only wait; the first look after the database's return starts one."""
    await own_stack.start_gateway()
    reader = own_stack.follow("alice")
    await reader.caught_up()
    await own_stack.start_pool()
    await own_servers.postgres.stop()
    await own_stack.publish([update()], "high")
    connection = await own_stack.nats()
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        assert not own_stack.worker_pids("deliver")
        await asyncio.sleep(0.1)
    await own_servers.postgres.start()
    await until(lambda: reader.ids("home") == ["p1"], seconds=10, what="it arrived")
    assert not any((await consumer_lag(connection, UPDATES)).values())


async def test_a_pool_that_is_told_to_leave_takes_its_workers_along(stack: Stack) -> None:
    """Nobody is left behind, and nothing of what they had waits for its ack wait."""
    pool = await stack.start_pool(worker_processes_max=2)
    await stack.publish([update(f"u{number}") for number in range(500)])
    await until(lambda: stack.worker_pids("deliver"), seconds=20, what="a worker")
    workers = stack.worker_pids("deliver") + stack.worker_pids("prioritize")
    assert await pool.stop() == 0
    assert not any(psutil.pid_exists(pid) for pid in workers)
    await pool.start()
    await stack.settled(seconds=ACK_WAIT_SECONDS["medium"] * 0.9)
    assert await rows(stack) == 500
