"""The clients of a peer: many devices that verify what they are sent, in a process of their own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from benchmarks.clients import SOURCES
from benchmarks.load_generator import (
    HANDSHAKE_SECONDS_MAX,
    Client,
    open_client,
    open_many,
    raise_file_limit,
)
from benchmarks.load_process import Link
from benchmarks.measure import LatencyRecorder
from benchmarks.peers.device import Dialect
from benchmarks.peers.message import EVERYONE, Inbox, decode, receiver_of
from benchmarks.report import merged
from benchmarks.stack import HOST
from benchmarks.traffic import Traffic, clock

AGAIN_SECONDS: Final = 0.1
"""The mean wait before a client whose connection ended tries again."""
CONNECT_SECONDS_MAX: Final = 120.0


@dataclass(frozen=True, slots=True)
class Seats:
    """Clients number `first` up to `stop`, of a traffic: each is another user."""

    dialect: Dialect
    traffic: Traffic
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class Await:
    """Wait until what was published so far is here: numbers 0 up to `published`."""

    published: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Judge:
    """Compare what came since the last time with what was published since then."""

    published: int
    unknown: frozenset[int] = frozenset()
    refused: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class StayAway:
    """Do not connect again, whoever ends a connection."""

    cut: bool
    """And end all of them at once, as a broken network would."""


@dataclass(frozen=True, slots=True)
class ComeBack:
    """Connect all again; the answer is a Back."""

    seconds_max: float


@dataclass(frozen=True, slots=True)
class Back:
    """How the clients came back."""

    unready: int
    """Those who are connected, and are not told yet what comes."""
    reason: str
    """What a server said last when it refused something."""


@dataclass(slots=True)
class Taken:
    """What came since the last time that was asked."""

    latency: LatencyRecorder = field(default_factory=LatencyRecorder)
    """From the scheduled time, of those that are recorded."""
    deliveries: int = 0
    """Recorded ones."""
    reconnects: int = 0


async def attend(link: Link, seats: Seats) -> None:
    """The load: connects, answers with a Back, and then each command but StayAway."""
    raise_file_limit()
    audience = Audience(seats)
    link.send(await audience.come_back(CONNECT_SECONDS_MAX))
    # What lives for the whole run is not searched for garbage again and again.
    gc.collect()
    gc.freeze()
    while True:
        command: Await | Judge | StayAway | ComeBack = await link.receive()
        if isinstance(command, Await):
            link.send(await audience.until_here(command.published, command.seconds))
        elif isinstance(command, Judge):
            link.send(audience.judge(command))
        elif isinstance(command, ComeBack):
            link.send(await audience.come_back(command.seconds_max))
        else:
            audience.stay_away(cut=command.cut)


class Audience:
    """All clients of one process."""

    def __init__(self, seats: Seats) -> None:
        traffic = self._traffic = seats.traffic
        self._dialect = seats.dialect
        users = [traffic.name(number) for number in range(seats.first, seats.stop)]
        receivers = [EVERYONE if traffic.topic else user for user in users]
        self._devices = [
            seats.dialect.device(user, receiver)
            for user, receiver in zip(users, receivers, strict=True)
        ]
        self._inboxes = [Inbox(receiver) for receiver in receivers]
        self._clients: dict[int, Client] = {}
        self._away = True
        self._unready: set[int] = set()
        self._all_ready = asyncio.Event()
        self._taken = Taken()
        self._expected: dict[str, set[int]] = defaultdict(set)
        self._known = 0
        self._first = 0
        """Of the numbers that were not judged yet."""
        self._received = 0
        """Of these numbers."""
        self._wanted = 0
        self._all_here = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusal = ""
        """What a server said last when it refused something."""

    # Connecting.

    async def come_back(self, seconds_max: float) -> Back:
        """Connect all, and wait until all are ready, within a bound; raises ConnectionError."""
        self._away = False
        self._unready = set(range(len(self._devices)))
        self._all_ready.clear()
        connected = await open_many(
            len(self._devices), self._client, source_addresses=SOURCES, port=self._dialect.port
        )
        if connected.failures:
            some = "; ".join(dict.fromkeys(connected.failures[:3]))
            raise ConnectionError(f"{len(connected.failures)} clients have no connection: {some}")
        for client in connected.clients:
            self._keep(client)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                await self._all_ready.wait()
        return Back(len(self._unready), self._refusal)

    def stay_away(self, *, cut: bool) -> None:
        """Do not connect again; with `cut`, end all connections."""
        self._away = True
        if cut:
            for client in self._clients.values():
                client.cut()

    def _client(self, index: int) -> Client:
        upgrade = self._devices[index].upgrade()
        return Client(
            self._on_frame,
            host=HOST,
            port=self._dialect.port,
            path=upgrade.path,
            token=upgrade.token,
            subprotocol=upgrade.subprotocol,
            opcode=self._dialect.opcode,
            index=index,
        )

    def _keep(self, client: Client) -> None:
        """Greet the server, and connect again whenever the connection ends."""
        self._clients[client.index] = client
        device = self._devices[client.index]
        device.opened(client.send)
        if device.ready:
            self._on_ready(client.index)
        client.on_closed = self._on_closed
        if client.closed:
            self._on_closed(client)

    def _on_closed(self, client: Client) -> None:
        if self._away:
            return
        task = asyncio.get_running_loop().create_task(self._again(client.index))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _again(self, index: int) -> None:
        self._taken.reconnects += 1
        source = SOURCES[index % len(SOURCES)] if SOURCES else None
        while not self._away:
            await asyncio.sleep(2 * AGAIN_SECONDS * random.random())
            client = self._client(index)
            with contextlib.suppress(OSError):
                await open_client(
                    client, HOST, self._dialect.port, source, seconds=HANDSHAKE_SECONDS_MAX
                )
                self._keep(client)
                return

    def _on_ready(self, index: int) -> None:
        self._unready.discard(index)
        if not self._unready:
            self._all_ready.set()

    # Reading.

    def _on_frame(self, client: Client, payload: bytes) -> None:
        device, inbox = self._devices[client.index], self._inboxes[client.index]
        was_ready = device.ready
        try:
            bodies = device.take(payload, client.send)
        except ConnectionError as refused:
            self._refusal = str(refused)
            client.cut()
            return
        for body in bodies:
            message = decode(body)
            if inbox.take(message) and message.number >= self._first:
                self._received += 1
                if message.recorded:
                    self._taken.deliveries += 1
                    self._taken.latency.record((clock() - message.due) / 1e9)
                if self._received >= self._wanted:
                    self._all_here.set()
        if device.ready and not was_ready:
            self._on_ready(client.index)

    # Verifying.

    async def until_here(self, published: int, seconds: float) -> Taken:
        """What came since the last call; returns when all is here, or when the time is up."""
        self._know(published)
        self._wanted = sum(len(self._expected[inbox.receiver]) for inbox in self._inboxes)
        self._all_here.clear()
        if self._received < self._wanted:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._all_here.wait()
        taken, self._taken = self._taken, Taken()
        return taken

    def judge(self, command: Judge) -> dict[str, int]:
        """The faults of all clients since the last time, and `expected`, what there had to be."""
        self._know(command.published)
        unknown, others = command.unknown, command.unknown | command.refused
        wanted = {receiver: numbers - others for receiver, numbers in self._expected.items()}
        nothing: set[int] = set()
        found = merged(
            inbox.judge(wanted.get(inbox.receiver, nothing), unknown=unknown)
            for inbox in self._inboxes
        )
        found["expected"] = sum(len(wanted.get(one.receiver, nothing)) for one in self._inboxes)
        self._expected.clear()
        self._first, self._received = command.published, 0
        return found

    def _know(self, published: int) -> None:
        for number in range(self._known, published):
            self._expected[receiver_of(self._traffic, number)].add(number)
        self._known = max(self._known, published)
