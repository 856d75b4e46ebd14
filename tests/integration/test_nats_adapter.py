"""NATS as we use it, on real servers: what is pulled, published and provisioned, and the faults."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, StreamConfig

from livefeed import subjects
from livefeed.adapters.embedded import NatsServer
from livefeed.adapters.nats import connection as connection_module
from livefeed.adapters.nats import pull as pull_module
from livefeed.adapters.nats.connection import Connection, close, connect
from livefeed.adapters.nats.lag import consumer_lag
from livefeed.adapters.nats.provision import differences, provision
from livefeed.adapters.nats.publish import BATCH_MESSAGES_MAX, Publisher, StreamRefused
from livefeed.adapters.nats.pull import Message, Pull
from livefeed.errors import Misconfigured, OutcomeUnknown, Unavailable
from livefeed.limits import KIB, MIB, NATS_PAYLOAD_BYTES_MAX
from livefeed.topology import (
    DEAD_LETTERS,
    LANE_STREAM,
    UPDATES,
    Consumer,
    deliver_consumer,
    prioritize_consumer,
)
from tests.servers import STREAM_BYTES_MAX, OwnServers, connected, server_port, until

SUBJECT = subjects.lanes("high", 0)
CONSUMER = deliver_consumer("high", 0)


class Worker:
    """What pulls one consumer as a worker does: acks at once, and has a look now and then.

    Args:
        connection: Where to pull.
        consumer: What to pull.
        looks: Whether it has a look every few milliseconds; without, the pull has to go on alone.
        options: Of `Pull`, other than the usual ones.
    """

    def __init__(
        self,
        connection: Connection,
        consumer: Consumer = CONSUMER,
        *,
        looks: bool = True,
        **options: Any,
    ) -> None:
        self.messages: list[Message] = []
        self.has_some = asyncio.Event()
        self.open = True
        self.acknowledges = True
        self._connection = connection
        given = {"batch": 256, "batch_bytes": 2 * MIB, "clock": time.monotonic, **options}
        self.pull = Pull(
            connection, consumer, on_message=self._take, wanted=lambda: self.open, **given
        )
        connection.when_lost(self._lost)
        self.pull.start()
        self._looking = asyncio.create_task(self._look()) if looks else None

    @property
    def sequences(self) -> list[int]:
        return [message.sequence for message in self.messages]

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]

    async def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        await self.pull.stop()

    def _take(self, message: Message) -> None:
        self.messages.append(message)
        self.has_some.set()
        if self.acknowledges:
            self._connection.send(message.reply, b"+ACK")

    async def _lost(self) -> None:
        self.pull.lost()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(0.02)  # the tick of the worker's own loop
            self.pull.ask()


@pytest.fixture
async def connection(nats: str) -> AsyncIterator[Connection]:
    async with connected(nats) as connection:
        yield connection


@pytest.fixture
async def publisher(connection: Connection) -> Publisher:
    return started(connection)


@pytest.fixture
async def own(own_servers: OwnServers) -> AsyncIterator[Connection]:
    """A connection to a server that may be killed."""
    async with connected(own_servers.nats.url) as connection:
        yield connection


# Pulling.


async def test_a_pull_gives_everything_once_and_in_order(
    connection: Connection, publisher: Publisher
) -> None:
    """More messages than many requests ask for come each once, ascending, with their facts."""
    before = time.time_ns() // 1000
    await publisher.publish_batch(numbered(3000))
    worker = Worker(connection, batch=100, looks=False)
    await until(lambda: len(worker.messages) >= 3000, what="3,000 messages")
    await until(lambda: is_idle(connection), what="everything is acknowledged")
    await worker.stop()
    assert worker.payloads == [b"%d" % number for number in range(3000)]
    assert worker.sequences == list(range(worker.sequences[0], worker.sequences[0] + 3000))
    first = worker.messages[0]
    assert (first.subject, first.deliveries, first.header("number")) == (SUBJECT, 1, "0")
    assert before <= first.stored_at <= time.time_ns() // 1000


async def test_a_pull_waits_for_what_comes_later(
    connection: Connection, publisher: Publisher
) -> None:
    """A request stays with the server: what is published later comes at once, without another."""
    worker = Worker(connection)
    await until(lambda: waiting(connection), what="the request is there")
    for number in range(3):
        started_at = time.monotonic()
        await publisher.publish(SUBJECT, b"")
        await until(lambda: len(worker.messages) == number + 1, what="it came")  # noqa: B023
        assert time.monotonic() - started_at < 0.5
        assert await waiting(connection) == 1
    await worker.stop()


async def test_a_pull_asks_again_when_its_request_expires(
    connection: Connection, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After many expiries in silence a message comes still, and requests do not pile up."""
    monkeypatch.setattr(pull_module, "REQUEST_SECONDS", 0.1)
    sent = requests(connection, monkeypatch)
    worker = Worker(connection, looks=False)
    await until(lambda: len(sent) >= 5, what="five requests")
    assert await waiting(connection) <= 1
    await publisher.publish(SUBJECT, b"late")
    await until(lambda: worker.messages, what="it came")
    await worker.stop()
    assert worker.pull.fault is None


async def test_a_request_that_was_lost_is_made_again(
    connection: Connection, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server never heard of a request, the next look after its end makes another."""
    now = 0.0
    send = connection.send
    monkeypatch.setattr(connection, "send", lambda *_args, **_kwargs: True)
    worker = Worker(connection, clock=lambda: now)
    monkeypatch.setattr(connection, "send", send)
    await publisher.publish(SUBJECT, b"")
    now = pull_module.REQUEST_SECONDS + pull_module.OVERDUE_SECONDS
    await until(lambda: worker.messages, what="it came")
    await worker.stop()


async def test_what_was_not_acknowledged_comes_again(connection: Connection) -> None:
    """After the ack wait a message comes to whoever pulls, and says how often it was delivered."""
    consumer = await own_consumer(connection, ack_wait=0.3)
    await started(connection).publish("own.a", b"x")
    first = Worker(connection, consumer)
    first.acknowledges = False
    await until(lambda: first.messages, what="the first delivery")
    await first.stop()
    second = Worker(connection, consumer)
    await until(lambda: second.messages, what="the second delivery")
    await second.stop()
    assert [m.deliveries for m in (*first.messages, *second.messages)] == [1, 2]
    assert first.sequences == second.sequences


async def test_a_pull_takes_messages_of_any_size(
    connection: Connection, publisher: Publisher
) -> None:
    """When the bytes of a request are used up the next one goes on: nothing is left behind."""
    sizes = [1, 200 * KIB, 300 * KIB, 10, 500 * KIB, 400 * KIB] * 4
    for size in sizes:
        await publisher.publish(SUBJECT, b"x" * size)
    worker = Worker(connection, batch_bytes=600 * KIB, looks=False)
    await until(lambda: len(worker.messages) == len(sizes), what="all sizes")
    await worker.stop()
    assert [len(payload) for payload in worker.payloads] == sizes
    assert worker.pull.fault is None


async def test_a_pull_that_has_no_room_takes_nothing(
    connection: Connection, publisher: Publisher
) -> None:
    """While nothing is wanted no request is made; once something is, the next look makes one."""
    worker = Worker(connection, batch=5)
    await until(lambda: waiting(connection), what="the first request")
    worker.open = False
    await publisher.publish_batch(numbered(20))
    await until(lambda: len(worker.messages) == 5, what="what was asked for")
    assert await waiting(connection) == 0
    assert (await consumer_lag(connection, LANE_STREAM))[CONSUMER.name] >= 15
    worker.open = True
    await until(lambda: len(worker.messages) == 20, what="the rest")
    await worker.stop()


async def test_a_pull_has_one_request_outstanding(
    connection: Connection, publisher: Publisher
) -> None:
    """However often a request is used up, and however long it is quiet then, one is renewed."""
    now = 0.0
    worker = Worker(connection, batch=10, clock=lambda: now)
    for burst in range(1, 7):
        await publisher.publish_batch(numbered(10))
        await until(lambda: len(worker.messages) == 10 * burst, what="a burst")  # noqa: B023
        now += 1.0
        await until(lambda: is_idle(connection), what="it is acknowledged")
        worker.pull.ask()
    await until(lambda: waiting(connection), what="the next request")
    assert await waiting(connection) == 1
    assert worker.pull.fault is None
    await worker.stop()


async def test_a_pull_that_stops_leaves_the_rest(
    connection: Connection, publisher: Publisher, nats: str
) -> None:
    """After a stop nothing comes; what was on its way is given on still, the rest is left."""
    async with connected(nats) as other:
        worker = Worker(connection, batch=100)
        transport = connection._transport._io_writer.transport  # type: ignore[union-attr]
        transport.pause_reading()
        await started(other).publish_batch(numbered(150))
        await until(lambda: in_hands(other, 100), what="the server has sent them")
        transport.resume_reading()
        await worker.stop()
        assert worker.payloads == [b"%d" % number for number in range(100)]
        # Sooner than an ack wait: nobody has to wait for what a worker had in its hands.
        await until(lambda: in_hands(other, 0), seconds=3, what="they are acknowledged")
        successor = Worker(other)
        await until(lambda: len(successor.messages) == 50, what="the rest")
        await successor.stop()
        assert len(worker.messages) == 100


async def test_a_stop_under_load_leaves_no_message_behind(
    connection: Connection, nats: str
) -> None:
    """Handed over in the middle of a stream of messages: none has to wait for its ack wait.

    What the server had queued when it heard of the stop it delivers again at once.
    """
    count, messages, late, stops = 2000, set[int](), list[int](), 0
    async with connected(nats) as other:

        async def stream() -> None:
            for number in range(count):
                other.send(SUBJECT, b"%d" % number)
                await asyncio.sleep(0.001)

        def look(message: Message) -> None:
            time.sleep(0.0005)  # it is read, as a worker does
            waited = time.time() - message.stored_at / 1e6
            messages.add(message.sequence)
            connection.send(message.reply, b"+ACK")
            if message.deliveries > 1 and waited > CONSUMER.ack_wait_seconds * 0.9:
                late.append(message.sequence)

        streaming = asyncio.create_task(stream(), name="stream")
        while len(messages) < count and not late:
            stops += 1
            pull = Pull(
                connection,
                CONSUMER,
                batch=256,
                batch_bytes=2 * MIB,
                on_message=look,
                wanted=lambda: True,
                clock=time.monotonic,
            )
            pull.start()
            await asyncio.sleep(0.003)
            await pull.stop()
        await streaming
        assert late == [], f"after {stops} stops"
        assert stops > 50


async def test_a_pull_outlives_its_consumer(connection: Connection, publisher: Publisher) -> None:
    """Without its consumer a pull says so and asks now and then; with a new one it goes on."""
    worker = Worker(connection)
    await until(lambda: waiting(connection), what="the first request")
    await connection.jetstream().delete_consumer(LANE_STREAM, CONSUMER.name)
    await until(lambda: worker.pull.fault, what="the fault is told")
    assert "Consumer Deleted" in str(worker.pull.fault)
    await until(lambda: "503" in str(worker.pull.fault), what="it asked again")
    await provision(connection, replicas=1, bytes_max=STREAM_BYTES_MAX)
    await publisher.publish(SUBJECT, b"")
    await until(lambda: worker.messages, what="it came")
    await worker.stop()
    assert worker.pull.fault is None


async def test_a_pull_and_a_publisher_outlive_the_server(
    own: Connection, own_servers: OwnServers
) -> None:
    """A server is killed three times: everything acknowledged comes, without a stall, at once."""
    worker, publisher = Worker(own), started(own)
    accepted = set()
    for round_ in range(3):
        for number in range(20):
            payload = b"%d-%d" % (round_, number)
            accepted.add((await publisher.publish(SUBJECT, payload)).sequence)
        own_servers.nats.kill()
        await until(lambda: not own.is_connected, what="the loss is noticed")
        await own_servers.nats.start()
        await until(lambda: own.is_connected, what="it is connected again")
    await publisher.publish(SUBJECT, b"last")
    # Less than an expiry: nobody waited for a request that the server had forgotten.
    limit = pull_module.REQUEST_SECONDS - 2
    await until(lambda: b"last" in worker.payloads, seconds=limit, what="the last message")
    await until(lambda: accepted <= set(worker.sequences), seconds=12, what="all of them")
    await worker.stop()


async def test_a_pull_outlives_a_cut(connection: Connection, nats: str) -> None:
    """When only the connection breaks, what was under way comes again, and the pull goes on."""
    async with connected(nats) as other:
        publisher = started(other)
        worker = Worker(connection)
        for number in range(30):
            await publisher.publish(SUBJECT, b"%d" % number)
            if number % 10 == 5:
                cut(connection)
        await until(lambda: len(set(worker.sequences)) == 30, seconds=12, what="all of them")
        await worker.stop()


# Publishing.


async def test_a_publish_is_acknowledged_and_counts_once(
    connection: Connection, publisher: Publisher
) -> None:
    """The same id again is a duplicate of the same sequence; another id is another message."""
    subject = subjects.updates("high", "tests")
    ids = ["a", "a", "b", "a"]
    acks = [await publisher.publish(subject, b"", {"Nats-Msg-Id": name}) for name in ids]
    assert [(ack.sequence, ack.duplicate) for ack in acks] == [
        (1, False),
        (1, True),
        (2, False),
        (1, True),
    ]
    assert (await consumer_lag(connection, UPDATES))[prioritize_consumer("high").name] == 2


async def test_many_publishes_at_once_all_end(connection: Connection, publisher: Publisher) -> None:
    """Every publish of many at once has its own acknowledgement, and nothing is kept of it."""
    acks = await asyncio.gather(*(publisher.publish(SUBJECT, b"") for _ in range(2000)))
    assert len({ack.sequence for ack in acks}) == 2000
    assert publisher._waiting == {}


async def test_batches_are_stored_whole_and_in_order(
    connection: Connection, publisher: Publisher
) -> None:
    """Batches at once, of one, of many, of more than the server's bound: each in its order."""
    sizes = [1, 700, BATCH_MESSAGES_MAX * 2 + 1]
    batches = [numbered(size, mark=str(size)) for size in sizes]
    await asyncio.gather(*(publisher.publish_batch(batch) for batch in batches))
    worker = Worker(connection)
    await until(lambda: len(worker.messages) == sum(sizes), what="all of them")
    await worker.stop()
    for size in sizes:
        numbers = [m.header("number") for m in worker.messages if m.header("mark") == str(size)]
        assert numbers == [str(number) for number in range(size)]


async def test_a_batch_is_stored_as_a_whole_or_not_at_all(
    connection: Connection, publisher: Publisher
) -> None:
    """One message that the server refuses keeps the others of its batch out too."""
    subject = subjects.updates("low", "tests")
    await publisher.publish(subject, b"", {"Nats-Msg-Id": "known"})
    batch = [(subject, b"", {"Nats-Msg-Id": name}) for name in ("new", "known", "newer")]
    with pytest.raises(StreamRefused, match="duplicate"):
        await publisher.publish_batch(batch)
    assert (await connection.jetstream().stream_info(UPDATES)).state.messages == 1


async def test_a_full_stream_says_so(connection: Connection) -> None:
    """A stream without room refuses, in words that name the cause; with room it takes again."""
    jetstream = connection.jetstream()
    await jetstream.add_stream(
        StreamConfig(
            name="OWN",
            subjects=["own.>"],
            discard=DiscardPolicy.NEW,
            max_bytes=2 * KIB,
            allow_atomic=True,
        )
    )
    publisher = started(connection)
    in_words = (
        r"the stream is full: .*`livefeed pool`.*LIVEFEED_STREAM_BYTES_MAX.*maximum bytes exc"
    )
    with pytest.raises(StreamRefused, match=in_words) as full:
        await asyncio.gather(*(publisher.publish("own.a", b"x" * 500) for _ in range(10)))
    assert full.value.code == 10077
    with pytest.raises(StreamRefused, match="maximum bytes exceeded"):
        await publisher.publish_batch([("own.a", b"x" * 500, None)] * 10)
    # What is refused for want of room is tried again: here there is room by then.
    again = asyncio.create_task(publisher.publish("own.a", b"x" * 500))
    await jetstream.purge_stream("OWN")
    assert (await again).sequence > 1


async def test_a_subject_without_a_stream_says_so(publisher: Publisher) -> None:
    """A publish that no stream takes is refused at once."""
    started_at = time.monotonic()
    with pytest.raises(StreamRefused, match="no stream takes this subject"):
        await publisher.publish("nobody.listens", b"")
    assert time.monotonic() - started_at < 1


async def test_without_a_server_the_outcome_is_unknown(
    own: Connection, own_servers: OwnServers
) -> None:
    """What is under way when the server dies, or comes after, ends as unknown; nothing hangs."""
    publisher, subject = started(own), subjects.updates("high", "tests")
    await publisher.publish(subject, b"", {"Nats-Msg-Id": "before"})
    os.kill(own_servers.nats.pid, signal.SIGSTOP)
    under_way = [
        asyncio.create_task(publisher.publish(subject, b"", {"Nats-Msg-Id": f"{number}"}))
        for number in range(10)
    ]
    await until(lambda: len(publisher._waiting) == 10, what="all are under way")
    own_servers.nats.kill()
    ends = await asyncio.wait_for(asyncio.gather(*under_way, return_exceptions=True), 5)
    assert {type(end) for end in ends} == {OutcomeUnknown}
    with pytest.raises(OutcomeUnknown, match="not connected"):
        await publisher.publish_batch(numbered(5))
    await own_servers.nats.start()
    await until(lambda: own.is_connected, what="it is connected again")
    for number in range(10):
        await publisher.publish(subject, b"", {"Nats-Msg-Id": f"{number}"})
    assert (await own.jetstream().stream_info(UPDATES)).state.messages == 11
    assert publisher._waiting == {}


# The connection.


async def test_a_connection_outlives_what_the_server_says(
    nats: str, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the server that ends a nats-py client for good costs ours a reconnect."""
    async with connected(nats) as clumsy:
        heard: list[bytes] = []
        clumsy.subscribe_direct("heard", lambda *message: heard.append(message[3]))
        lost, regained = events(clumsy)
        clumsy.send("anything", b"x" * (NATS_PAYLOAD_BYTES_MAX + 1))
        await until(lost.is_set, what="the server ended the connection")
        await until(regained.is_set, what="it is connected again")
        assert not clumsy.closed_for_good.is_set()
        await until(lambda: said(connection, heard), what="the subscription is there again")


async def test_a_connection_outlives_a_restart(own: Connection, own_servers: OwnServers) -> None:
    """A server that leaves in peace, or that is away for a while, is found again."""
    lost, regained = events(own)
    await own_servers.nats.stop()
    await until(lost.is_set, what="the loss is told")
    assert own.send("anything", b"") is False
    assert own.sends_refused == 1
    await own_servers.nats.start()
    await until(regained.is_set, what="it is connected again")
    assert own.send("anything", b"") is True


async def test_who_comes_and_goes_while_nobody_answers_leaves_nothing(
    own: Connection, own_servers: OwnServers
) -> None:
    """While there is no server, and while one accepts and says nothing; who is there afterwards is
    told of."""
    lost, _ = events(own)
    await own_servers.nats.stop()
    await until(lost.is_set, what="the loss is told")
    heard: list[bytes] = []

    def come_and_go() -> None:
        for number in range(1_000):
            own.unsubscribe_now(own.subscribe_direct(f"user.{number}", lambda *_: None))

    come_and_go()
    assert len(own._pending) < 10
    connects, open_now = asyncio.Semaphore(0), set()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connects.release()
        open_now.add(writer)
        await reader.read()
        open_now.discard(writer)
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", own_servers.nats.port):
        for _ in range(3):
            async with asyncio.timeout(10):
                await connects.acquire()
            await until(lambda: own.is_connecting, what="it waits for the server's first word")
            come_and_go()
        assert len(open_now) == 1, "the sockets of the attempts before are closed"
        own.subscribe_direct("heard", lambda *message: heard.append(message[3]))
        await until(lambda: not open_now, what="the last attempt is given up")
    await until(lambda: len(own._pending) < 10, what="the failed attempts left nothing")
    await own_servers.nats.start()
    await until(lambda: own.is_connected, what="it is connected again")
    own.send("heard", b"word")
    await until(lambda: heard == [b"word"], what="the subscription is there, once")
    assert len(own._subs) == len(own._direct)


async def test_what_is_forbidden_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A permission violation is logged, and everything else on the connection goes on."""
    permissions = 'permissions: {publish: {deny: "secret.>"}, subscribe: {deny: "secret.>"}}'
    user = f"authorization: {{users: [{{user: u, password: p, {permissions}}}]}}"
    server = NatsServer(tmp_path / "nats", port=server_port(), monitor_port=None, extra=user)
    await server.start()
    try:
        async with connected(server.url.replace("//", "//u:p@")) as connection:
            heard: list[bytes] = []
            connection.subscribe_direct("secret.a", lambda *_: None)
            connection.subscribe_direct("heard", lambda *message: heard.append(message[3]))
            lost, _ = events(connection)
            connection.send("secret.a", b"")
            await until(lambda: caplog.text.count("nats refuses") == 2, what="both are logged")
            await until(lambda: said(connection, heard), what="the other subject works")
            assert not lost.is_set()
        with pytest.raises(Unavailable, match="nats is unavailable"):
            await connect([server.url], name="stranger", seconds_max=1)
    finally:
        server.kill()


async def test_a_handler_that_fails_stops_nobody(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in one handler is logged, and the next message is handled."""
    heard: list[bytes] = []

    def handler(_subject: bytes, _reply: bytes, _headers: bytes, payload: bytes) -> None:
        if not heard:
            heard.append(payload)
            raise ZeroDivisionError
        heard.append(payload)

    connection.subscribe_direct("heard", handler)
    await until(lambda: said(connection, heard, at_least=2), what="the second message")
    assert "a message handler failed" in caplog.text


async def test_a_late_answer_ends_nothing(own: Connection, own_servers: OwnServers) -> None:
    """Who asked has given up when the server goes on: the connection hears as before."""
    heard: list[bytes] = []
    own.subscribe_direct("heard", lambda _s, _r, _h, payload: heard.append(payload))
    await own.flush()
    os.kill(own_servers.nats.pid, signal.SIGSTOP)
    for _ in range(2):
        with pytest.raises(NatsError):
            await own.flush(1)
    os.kill(own_servers.nats.pid, signal.SIGCONT)
    reconnects = own.stats["reconnects"]
    await own.flush()
    await until(lambda: said(own, heard, at_least=1), what="a message")
    assert own.stats["reconnects"] == reconnects


async def test_reading_that_ends_by_a_fault_reconnects(own: Connection) -> None:
    """nats-py ends it without a word; nothing would be heard again."""
    heard: list[bytes] = []
    own.subscribe_direct("heard", lambda _s, _r, _h, payload: heard.append(payload))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(own._ps, "parse", None)
        own.send("heard", b"that nobody can read")
        await until(lambda: own.stats["reconnects"] == 1, what="it connects again")
    await until(lambda: said(own, heard, at_least=1), what="a message")


async def test_a_flush_is_after_what_was_said_before(
    own: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server reads of a subscription first, and of the ping whose answer ends the wait then."""
    told: list[bytes] = []
    for name in ("write", "writelines"):
        real = getattr(own._transport, name)

        def spied(given: Any, real: Any = real) -> None:
            told.append(given if isinstance(given, bytes) else b"".join(given))
            real(given)

        monkeypatch.setattr(own._transport, name, spied)
    own.subscribe_direct("heard", lambda *_: None)
    await own.flush()
    wire = b"".join(told)
    assert -1 < wire.find(b"SUB heard") < wire.find(b"PING")


async def test_what_waits_for_the_socket_is_bounded(
    own: Connection, own_servers: OwnServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the server does not read, `send` refuses above its bound; it goes on afterwards."""
    monkeypatch.setattr(connection_module, "OUTBOUND_BYTES_MAX", 4 * MIB)
    os.kill(own_servers.nats.pid, signal.SIGSTOP)
    payload = b"x" * 512 * KIB
    for sent in itertools.count():
        if not own.send("anything", payload):
            break
        await asyncio.sleep(0)
        assert sent < 200, "nothing was refused"
    assert own._pending_data_size <= 5 * MIB
    os.kill(own_servers.nats.pid, signal.SIGCONT)
    await until(lambda: own.send("anything", payload), what="it takes more again")
    assert own.sends_refused >= 1


# Provisioning.


async def test_provisioning_twice_changes_nothing(connection: Connection) -> None:
    """On a server that is as it should be nothing differs, and nothing is done."""
    assert await differences(connection, replicas=1, bytes_max=STREAM_BYTES_MAX) == []
    done = await provision(connection, replicas=1, bytes_max=STREAM_BYTES_MAX)
    assert (done.created, done.updated) == ([], [])


async def test_provisioning_mends_what_differs(
    connection: Connection, publisher: Publisher
) -> None:
    """A changed setting is named and mended; messages, and how far they were read, are kept."""
    jetstream = connection.jetstream()
    await publisher.publish_batch(numbered(10))
    worker = Worker(connection, batch=4)
    await until(lambda: worker.messages, what="some were read")
    await worker.stop()
    await until(lambda: in_hands(connection, 0), what="they are acknowledged")
    lag = await consumer_lag(connection, LANE_STREAM)
    stream = (await jetstream.stream_info(LANE_STREAM)).config
    await jetstream.update_stream(stream.evolve(duplicate_window=60))
    info = await jetstream.consumer_info(LANE_STREAM, CONSUMER.name)
    await jetstream.add_consumer(LANE_STREAM, info.config.evolve(ack_wait=99))
    await jetstream.delete_stream(DEAD_LETTERS)
    await jetstream.delete_consumer(UPDATES, "prioritize-low")
    found = await differences(connection, replicas=1, bytes_max=STREAM_BYTES_MAX)
    assert {(found.name, found.detail) for found in found} == {
        (LANE_STREAM, "duplicate_window is 60.0, not 1"),
        (CONSUMER.name, "ack_wait is 99.0, not 5.0"),
        (DEAD_LETTERS, "the stream is missing"),
        ("prioritize-low", "the consumer is missing"),
    }
    done = await provision(connection, replicas=1, bytes_max=STREAM_BYTES_MAX)
    assert sorted(done.created) == [DEAD_LETTERS, "prioritize-low"]
    assert sorted(done.updated) == [LANE_STREAM, CONSUMER.name]
    assert await differences(connection, replicas=1, bytes_max=STREAM_BYTES_MAX) == []
    assert await consumer_lag(connection, LANE_STREAM) == lag


async def test_provisioning_says_what_is_in_the_way(connection: Connection) -> None:
    """Where somebody else's stream has our subjects it fails with the server's reason."""
    jetstream = connection.jetstream()
    await jetstream.delete_stream(DEAD_LETTERS)
    await jetstream.add_stream(StreamConfig(name="OTHERS", subjects=["feed.dlq.theirs"]))
    with pytest.raises(Misconfigured, match="overlap"):
        await provision(connection, replicas=1, bytes_max=STREAM_BYTES_MAX)


async def test_three_nodes_keep_what_they_accepted(nats_cluster: list[NatsServer]) -> None:
    """With three copies nothing differs, and what was acknowledged outlives any one node."""
    async with connected(",".join(server.url for server in nats_cluster)) as connection:
        assert await differences(connection, replicas=3, bytes_max=STREAM_BYTES_MAX) == []
        worker, publisher = Worker(connection), started(connection)
        accepted = {(await publisher.publish(SUBJECT, b"")).sequence for _ in range(20)}
        cluster = (await connection.jetstream().stream_info(LANE_STREAM)).cluster
        assert cluster is not None
        next(server for server in nats_cluster if server.name == cluster.leader).kill()
        accepted |= {await accepted_at_last(publisher) for _ in range(20)}
        await until(lambda: accepted <= set(worker.sequences), seconds=20, what="all of them")
        await worker.stop()


async def test_the_lag_is_what_waits_and_what_is_in_hands(
    connection: Connection, publisher: Publisher
) -> None:
    """A message counts until it is acknowledged, for its own consumer, and for no other."""
    await publisher.publish_batch(numbered(7))
    worker = Worker(connection, batch=5, looks=False)
    worker.acknowledges = worker.open = False
    await until(lambda: in_hands(connection, 5), what="five are in hands")
    lag = await consumer_lag(connection, LANE_STREAM)
    assert {name: count for name, count in lag.items() if count} == {CONSUMER.name: 7}
    assert len(lag) == 48
    await worker.stop()


async def test_without_jetstream_it_is_unavailable(
    own: Connection, own_servers: OwnServers
) -> None:
    """A server that is away, or a stream that is missing, is told as unavailable."""
    with pytest.raises(Unavailable, match="stream not found"):
        await consumer_lag(own, "MISSING")
    own_servers.nats.kill()
    await until(lambda: not own.is_connected, what="the loss is noticed")
    with pytest.raises(Unavailable, match="JetStream does not answer"):
        await consumer_lag(own, LANE_STREAM)
    started_at = time.monotonic()
    with pytest.raises(Unavailable, match="nats is unavailable"):
        await connect([own_servers.nats.url], name="late", seconds_max=0.5)
    assert time.monotonic() - started_at < 2
    await own_servers.nats.start()
    await until(lambda: own.is_connected, what="it is connected again")


async def test_closing_does_not_need_a_server(own_servers: OwnServers) -> None:
    """A connection whose server died ends quietly and at once, whatever waits to be sent."""
    connection = await connect([own_servers.nats.url], name="tests")
    own_servers.nats.kill()
    await until(lambda: not connection.is_connected, what="the loss is noticed")
    await connection.publish("anything", b"which nats-py keeps for later")
    started_at = time.monotonic()
    await close(connection)
    assert time.monotonic() - started_at < 3
    assert connection.is_closed
    assert connection.closed_for_good.is_set()


# Helpers.


def started(connection: Connection) -> Publisher:
    publisher = Publisher(connection)
    publisher.start()
    return publisher


def numbered(count: int, **headers: str) -> list[tuple[str, bytes, dict[str, str]]]:
    """Messages for CONSUMER that say which one they are."""
    return [(SUBJECT, b"%d" % n, {"Number": str(n), **headers}) for n in range(count)]


async def accepted_at_last(publisher: Publisher) -> int:
    """Publish as those do who must not lose anything: until it is acknowledged."""
    while True:
        with contextlib.suppress(OutcomeUnknown, Unavailable):
            return (await publisher.publish(SUBJECT, b"")).sequence


async def own_consumer(connection: Connection, *, ack_wait: float) -> Consumer:
    """A stream and a consumer whose ack wait is short enough for a test."""
    jetstream = connection.jetstream()
    await jetstream.add_stream(StreamConfig(name="OWN", subjects=["own.>"]))
    config = ConsumerConfig(durable_name="own", ack_policy=AckPolicy.EXPLICIT, ack_wait=ack_wait)
    await jetstream.add_consumer("OWN", config)
    return Consumer(stream="OWN", name="own", filters=("own.>",), ack_wait_seconds=ack_wait)


async def waiting(connection: Connection) -> int:
    """How many requests the server holds for CONSUMER."""
    info = await connection.jetstream().consumer_info(LANE_STREAM, CONSUMER.name)
    return info.num_waiting or 0


async def in_hands(connection: Connection, count: int) -> bool:
    """Whether so many messages of CONSUMER were delivered and not acknowledged."""
    info = await connection.jetstream().consumer_info(LANE_STREAM, CONSUMER.name)
    return (info.num_ack_pending or 0) == count


async def is_idle(connection: Connection) -> bool:
    return (await consumer_lag(connection, LANE_STREAM))[CONSUMER.name] == 0


async def said(connection: Connection, heard: list[bytes], *, at_least: int = 1) -> bool:
    """Say something on `heard`, and tell whether enough was heard."""
    connection.send("heard", b"")
    await connection.flush()
    return len(heard) >= at_least


def requests(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that every subject is added to which is sent to from now on."""
    sent: list[str] = []
    send = connection.send

    def note(subject: str, payload: bytes, **options: Any) -> bool:
        sent.append(subject)
        return send(subject, payload, **options)

    monkeypatch.setattr(connection, "send", note)
    return sent


def events(connection: Connection) -> tuple[asyncio.Event, asyncio.Event]:
    """What is set when the connection is lost, and when it is regained."""
    lost, regained = asyncio.Event(), asyncio.Event()

    async def on_lost() -> None:
        lost.set()

    async def on_regained() -> None:
        regained.set()

    connection.when_lost(on_lost)
    connection.when_regained(on_regained)
    return lost, regained


def cut(connection: Connection) -> None:
    """Break the connection as a network would, without a goodbye."""
    connection._transport._io_writer.transport.abort()  # type: ignore[union-attr]
