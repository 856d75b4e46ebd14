"""The worker itself, with a function that is slow, on a real NATS server."""

import asyncio
import json
import time
from collections.abc import Sequence

import asyncpg

from functions.function import Work
from functions.life import WorkerPolicy
from functions.worker import Worker
from livefeed.adapters.nats.connection import close, connect
from livefeed.adapters.nats.publish import Publisher
from livefeed.adapters.nats.pull import Message
from livefeed.subjects import Lane
from livefeed.topology import Consumer, prioritize_consumer
from tests.servers import Stack, until, update


class Slow:
    """A function whose calls take longer than the server waits for an acknowledgement."""

    name = "slow"
    windows: dict[Lane, float] = {"high": 0.0, "medium": 0.0, "low": 0.0}  # noqa: RUF012
    rows_max = bytes_max = 1_000_000

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.handled: list[int] = []

    def sources(self, _partitions: frozenset[int]) -> Sequence[tuple[Lane, Consumer]]:
        return [("high", prioritize_consumer("high"))]

    def read(self, message: Message) -> Work:
        return Work(message, None, 1, time.time_ns() // 1000)

    async def handle(self, works: Sequence[Work]) -> None:
        self.handled += [work.message.sequence for work in works]
        await asyncio.sleep(self.seconds)


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
