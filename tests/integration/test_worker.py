"""The worker itself, with a function that is slow, on a real NATS server."""

import asyncio
import json
import time
from collections.abc import Sequence

import asyncpg

from functions.function import Undone, Work
from functions.life import WorkerPolicy
from functions.worker import Worker
from livefeed.adapters.nats.connection import close, connect
from livefeed.adapters.nats.lag import consumer_lag
from livefeed.adapters.nats.publish import Publisher
from livefeed.adapters.nats.pull import Message
from livefeed.errors import DeadLetterReason
from livefeed.subjects import Lane
from livefeed.topology import UPDATES, Consumer, prioritize_consumer
from tests.servers import Stack, until, update


class Slow:
    """A function whose calls take longer than the server waits for an acknowledgement."""

    name = "slow"
    failure: DeadLetterReason = "invalid_update"
    windows: dict[Lane, float] = {"high": 0.0, "medium": 0.0, "low": 0.0}  # noqa: RUF012
    rows_max = bytes_max = 1_000_000

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.handled: list[int] = []

    def sources(self, _partitions: frozenset[int]) -> Sequence[tuple[Lane, Consumer]]:
        return [("high", prioritize_consumer("high"))]

    def read(self, message: Message) -> Work:
        return Work(message, None, 1, time.time_ns() // 1000)

    async def handle(self, works: Sequence[Work]) -> Sequence[Undone]:
        self.handled += [work.message.sequence for work in works]
        await asyncio.sleep(self.seconds)
        return ()


async def test_a_message_is_handled_once_however_long_it_takes(nats: str) -> None:
    """What a running call holds, and what waits for it, is not given to anybody else meanwhile."""
    connection = await connect([nats], name="tests")
    publisher = Publisher(connection)
    publisher.start()
    await publisher.publish_batch([("feed.updates.high.t", b"x", None) for _ in range(1500)])
    function = Slow(3.0)
    policy = WorkerPolicy(idle_seconds=0.3, life_seconds=60)
    summary = await Worker(function, connection, publisher, policy).run()
    await close(connection)
    assert sorted(function.handled) == list(range(1, 1501))
    assert summary.handled == 1500


class Lanes(Slow):
    """A function with two lanes, of which the low one takes its time."""

    def sources(self, _partitions: frozenset[int]) -> Sequence[tuple[Lane, Consumer]]:
        lanes: list[Lane] = ["high", "low"]
        return [(lane, prioritize_consumer(lane)) for lane in lanes]

    async def handle(self, works: Sequence[Work]) -> Sequence[Undone]:
        if works[0].message.subject.startswith("feed.updates.low"):
            await asyncio.sleep(self.seconds)
        self.handled += [work.message.sequence for work in works]
        return ()


async def test_high_does_not_wait_for_a_call_of_another_lane(nats: str) -> None:
    """While a slow call of low runs, high messages are handled one after the other."""
    connection, bulk = await connect([nats], name="tests"), await connect([nats], name="bulk")
    publisher = Publisher(connection)
    publisher.start()
    function = Lanes(1.0)
    policy = WorkerPolicy(idle_seconds=0.3, life_seconds=60)
    worker = Worker(function, connection, publisher, policy, bulk=bulk)
    running = asyncio.create_task(worker.run())
    await publisher.publish("feed.updates.low.t", b"x")
    await asyncio.sleep(0.3)
    for number in range(2, 5):
        await publisher.publish("feed.updates.high.t", b"x")
        await until(lambda number=number: number in function.handled, what="high was handled")
    assert 1 not in function.handled, "the call of low still runs"
    summary = await running
    await asyncio.gather(close(connection), close(bulk))
    assert function.handled == [2, 3, 4, 1]
    assert (summary.lanes, summary.reason) == ({"high": 3, "low": 1}, "idle")


async def test_a_call_that_runs_is_finished_before_a_worker_leaves(nats: str) -> None:
    """Told to leave, it waits for the calls of all lanes, and settles them."""
    connection = await connect([nats], name="tests")
    publisher = Publisher(connection)
    publisher.start()
    function = Lanes(1.0)
    worker = Worker(function, connection, publisher, WorkerPolicy(idle_seconds=9, life_seconds=60))
    running = asyncio.create_task(worker.run())
    await publisher.publish_batch([("feed.updates.low.t", b"x", None) for _ in range(600)])
    await asyncio.sleep(0.3)
    worker.leave("signal")
    summary = await running
    lag = await consumer_lag(connection, UPDATES)
    await close(connection)
    assert summary.handled == len(function.handled)
    assert 0 < summary.handled <= 600
    assert lag["prioritize-low"] == 600 - summary.handled


async def test_an_error_that_nobody_thought_of_is_found_out_alone(nats: str) -> None:
    """Its message comes again, by itself in the end, and is put aside; others are handled."""

    class Broken(Slow):
        async def handle(self, works: Sequence[Work]) -> Sequence[Undone]:
            if any(work.message.payload == b"bad" for work in works):
                raise LookupError("nobody thought of it")
            return await super().handle(works)

    connection = await connect([nats], name="tests")
    publisher = Publisher(connection)
    publisher.start()
    for payload in (b"x", b"bad", b"x"):
        await publisher.publish("feed.updates.high.t", payload)
    policy = WorkerPolicy(idle_seconds=30, life_seconds=60)
    worker = Worker(Broken(0), connection, publisher, policy)
    running = asyncio.create_task(worker.run())
    await until(lambda: worker.summary.dead_lettered == 1, seconds=40, what="it is put aside")
    worker.leave("signal")
    summary = await running
    letter = await connection.jetstream().get_msg("FEED_DLQ", seq=1)
    await close(connection)
    assert letter.data == b"bad"
    assert summary.handled == 2


async def test_a_worker_above_its_memory_leaves(nats: str) -> None:
    """What it has in hand is handled first."""
    connection = await connect([nats], name="tests")
    publisher = Publisher(connection)
    publisher.start()
    policy = WorkerPolicy(idle_seconds=9, life_seconds=60, memory_bytes_max=1)
    summary = await Worker(Slow(0), connection, publisher, policy).run()
    await close(connection)
    assert summary.reason == "memory"


async def test_any_bytes_in_a_subject_end_somewhere(stack: Stack) -> None:
    """NATS accepts them, so the update has to be in the log."""
    await stack.start_gateway()
    await stack.start_pool()
    nats = await stack.nats()
    reader = stack.follow("alice")
    payload = json.dumps(update(id="p1")).encode()
    command = b"PUB feed.updates.high.\xff\xfe %d\r\n%b\r\n" % (len(payload), payload)
    nats._write(command)  # our own client would not send such a subject
    await until(lambda: reader.ids("home") == ["p1"], what="it arrived")
    await stack.settled()


async def test_the_deepest_item_passes_everywhere_and_a_deeper_one_nowhere(stack: Stack) -> None:
    """One bound for all readers: nobody's neighbour is dead-lettered, no snapshot breaks."""
    await stack.start_gateway()
    await stack.start_pool()

    jetstream = (await stack.nats()).jetstream()
    for depth in (*range(55, 75), 900, 940, 965, 975, 5000):
        # Written by hand: whoever would write it for us has a limit of its own.
        text = json.dumps(update(content={"id": f"p{depth}", "x": "here"}))
        payload = text.replace('"here"', "[" * depth + "]" * depth).encode()
        await jetstream.publish("feed.updates.high.tests", payload)
    await stack.publish([update(id=f"good{number}") for number in range(20)])
    await stack.settled()
    snapshot = await stack.snapshot("alice")
    shown = {item.id for item in snapshot.items}
    assert {f"good{number}" for number in range(20)} <= shown
    # The item itself is one level.
    assert {name for name in shown if name[0] == "p"} == {f"p{depth}" for depth in range(55, 64)}


async def test_a_schema_that_is_wrong_for_a_while_loses_nothing(stack: Stack) -> None:
    """An error of Postgres that nobody thought of is waited out, by the gateway too."""
    gateway = await stack.start_gateway()
    await stack.start_pool()
    reader = stack.follow("alice")
    await reader.caught_up()
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute("alter table feed_entry rename column kind to sort")
    await stack.publish([update(id="p1")], "high")
    late = stack.follow("alice")
    await until(
        lambda: "UndefinedColumn" in "".join(log for _, log in stack.tails()),
        seconds=15,
        what="the error was met",
    )
    await connection.execute("alter table feed_entry rename column sort to kind")
    await connection.close()
    for one in (reader, late):
        await until(lambda one=one: one.ids("home") == ["p1"], seconds=20, what="it arrived")
    assert gateway.running
