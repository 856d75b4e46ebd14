"""The receiving side of a load, in a process of its own: many clients that verify what they get."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import sys
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from benchmarks.load_generator import Client, connect_many, open_client, raise_file_limit
from benchmarks.load_process import Link
from benchmarks.measure import LatencyRecorder
from benchmarks.report import merged
from benchmarks.stack import HOST, signing_settings
from benchmarks.traffic import Traffic, clock
from benchmarks.verify import Inbox, decode_frame
from livefeed.adapters.tokens import sign
from livefeed.subjects import LANES, Lane

FRAMES_MAX: Final = 100
"""Of one client, of the last second, that are counted; more are that many."""
HIDDEN: Final = b'{"type": "visibility", "state": "hidden"}'
VISIBLE: Final = b'{"type": "visibility", "state": "visible"}'
TOKEN_SECONDS: Final = 6 * 3600
CAUGHT_UP_SECONDS_MAX: Final = 60.0
# Every address of 127/8 is the loopback's on Linux alone.
SOURCES: Final = [f"127.0.0.{n}" for n in range(2, 18)] if sys.platform == "linux" else []


@dataclass(frozen=True, slots=True)
class Crowd:
    """Clients number `first` up to `stop`; client n is user n modulo the number of users."""

    traffic: Traffic
    ports: list[int]
    jwt_secret: str
    first: int
    stop: int
    manners: tuple[Manner, ...] = ()
    """How each client behaves once all are caught up, by its number: who reads, who never does, who
    reads a byte a second, and who looks away. The last one holds for all that follow."""


Manner = Literal["reads", "stalls", "trickles", "hides"]


@dataclass(frozen=True, slots=True)
class Behave:
    """Everybody reads and looks again."""


@dataclass(frozen=True, slots=True)
class Await:
    """Wait until what was published so far is here: numbers 0 up to `published`."""

    published: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Judge:
    """Compare everything with what was published and with the log."""

    published: int
    unknown: frozenset[int]
    refused: frozenset[int]
    heads: Mapping[str, Mapping[str, int]]
    """By user and by the client's name of a channel."""


@dataclass(frozen=True, slots=True)
class Cut:
    """End every connection at once, as a broken network would, and stay away."""


@dataclass(frozen=True, slots=True)
class ComeBack:
    """Connect all again, each with its cursor; the answer is the seconds until it is caught up."""

    spread_seconds: float
    """Each client waits for a random time up to this first, as the protocol asks."""
    seconds_max: float


@dataclass(slots=True)
class Taken:
    """What came since the last time that was asked."""

    latencies: dict[Lane, LatencyRecorder] = field(
        default_factory=lambda: {lane: LatencyRecorder() for lane in LANES}
    )
    """From the scheduled time, of those that are recorded, by what they said of their priority."""
    deliveries: int = 0
    replayed: int = 0
    """Deliveries that came from the log, because there was no live push or it was lost."""
    reconnects: int = 0
    resets: int = 0
    frames_a_second: int = 0
    """Most frames with updates that one client was sent within a second."""


async def follow(link: Link, crowd: Crowd) -> None:
    """The load: connects, says how long that took, and answers each command but Cut."""
    clients = _Clients(crowd)
    link.send(await clients.connect())
    # What lives for the whole run is not searched for garbage again and again.
    gc.collect()
    gc.freeze()
    while True:
        command = await link.receive()
        if isinstance(command, Await):
            link.send(await clients.until_here(command))
        elif isinstance(command, Cut):
            clients.cut()
        elif isinstance(command, Behave):
            clients.behave()
        elif isinstance(command, ComeBack):
            link.send(await clients.come_back(command))
        else:
            link.send(clients.judge(command))


UPDATES_FRAME: Final = b'{"type":"feed_updates"'


class _Clients:
    """All clients of this process."""

    def __init__(self, crowd: Crowd) -> None:
        traffic = self._traffic = crowd.traffic
        self._crowd = crowd
        self._settings = signing_settings(crowd.jwt_secret)
        self._inboxes = [
            Inbox(traffic.name(number % traffic.users), traffic.feed, topic=traffic.topic)
            for number in range(crowd.first, crowd.stop)
        ]
        self._epochs: dict[int, str] = {}
        """By client: the epoch of the cursor that it holds."""
        self._caught_up: set[int] = set()
        self._all_caught_up = asyncio.Event()
        self._taken = Taken()
        self._expected: dict[str, set[int]] = defaultdict(set)
        self._known = 0
        self._received = 0
        self._wanted = 0
        self._all_here = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: dict[int, Client] = {}
        self._away = False
        self._spread_seconds = 1.0
        self._misbehaving = False
        self._unread: list[tuple[int, Client, bytes, int]] = []
        """Frames of updates that came while clients misbehave."""
        self._recent: dict[int, deque[int]] = defaultdict(lambda: deque(maxlen=FRAMES_MAX))
        self._caught_up_seconds = LatencyRecorder()
        self._came_back_at = 0.0

    async def connect(self) -> float:
        """Connect all and return the seconds until each was caught up; raises ConnectionError."""
        raise_file_limit()
        # One gateway after the other for each client; a client of a gateway comes from one address.
        started = time.perf_counter()
        ports, count = self._crowd.ports, len(self._inboxes)
        for number, port in enumerate(ports):
            mine = range(number, count, len(ports))
            await self._connect_some(mine, port)
        async with asyncio.timeout(CAUGHT_UP_SECONDS_MAX):
            await self._all_caught_up.wait()
        if self._crowd.manners:
            self._misbehave(self._crowd.manners)
        return time.perf_counter() - started

    def _misbehave(self, manners: tuple[Manner, ...]) -> None:
        self._misbehaving = True
        trickling: list[Client] = []
        for index, client in self._clients.items():
            manner = manners[min(self._crowd.first + index, len(manners) - 1)]
            if manner == "hides":
                client.send(HIDDEN)
            elif manner != "reads":
                client.pause_reading()
                if manner == "trickles":
                    trickling.append(client)
        self._tasks.add(asyncio.get_running_loop().create_task(self._trickle(trickling)))

    async def _trickle(self, clients: list[Client]) -> None:
        while self._misbehaving:
            await asyncio.sleep(1.0)
            for client in clients:
                client.read_a_byte()

    def behave(self) -> None:
        """Have everybody read and look."""
        self._misbehaving = False
        for unread in self._unread:
            self._read(*unread)
        self._unread.clear()
        for client in self._clients.values():
            client.resume_reading()
            client.send(VISIBLE)

    async def _connect_some(self, indexes: range, port: int) -> None:
        def on_frame(client: Client, payload: bytes) -> None:
            self._on_frame(indexes[client.index], client, payload)

        connected = await connect_many(
            len(indexes),
            source_addresses=SOURCES,
            port=port,
            path_for=lambda _: f"/v1/ws?feeds={self._traffic.feed}",
            token_for=lambda place: self._token(indexes[place]),
            on_frame=on_frame,
        )
        if connected.failures:
            some = "; ".join(dict.fromkeys(connected.failures[:3]))
            raise ConnectionError(f"{len(connected.failures)} clients have no connection: {some}")
        for client in connected.clients:
            self._keep(indexes[client.index], client)

    def _token(self, index: int) -> str:
        claims = {"sub": self._inboxes[index].user, "exp": int(time.time()) + TOKEN_SECONDS}
        return sign(self._settings, claims)

    def _on_frame(self, index: int, client: Client, payload: bytes) -> None:
        if self._misbehaving and payload.startswith(UPDATES_FRAME):
            # What a tab does with a frame is the work of its own computer, not of this one.
            now = clock()
            self._count_frame(index, now)
            self._unread.append((index, client, payload, now))
        else:
            self._read(index, client, payload, clock())

    def _read(self, index: int, client: Client, payload: bytes, now: int) -> None:
        frame = decode_frame(payload)
        for content in self._inboxes[index].take(frame):
            self._received += 1
            self._taken.deliveries += 1
            self._taken.replayed += frame.replay
            if content.recorded:
                self._taken.latencies[content.lane].record((now - content.due) / 1e9)
        self._taken.resets += frame.type == "reset"
        if self._received >= self._wanted:
            self._all_here.set()
        if frame.type == "caught_up":
            if index not in self._caught_up:
                self._caught_up.add(index)
                self._caught_up_seconds.record(time.perf_counter() - self._came_back_at)
            if len(self._caught_up) == len(self._inboxes):
                self._all_caught_up.set()
        elif frame.type == "connection_established":
            if index in self._epochs:
                client.send(self._subscribe(index))
            self._epochs.setdefault(index, frame.epoch)

    def _count_frame(self, index: int, now: int) -> None:
        recent = self._recent[index]
        recent.append(now)
        while now - recent[0] >= 1_000_000_000:
            recent.popleft()
        self._taken.frames_a_second = max(self._taken.frames_a_second, len(recent))

    # Coming back.

    def _keep(self, index: int, client: Client) -> None:
        """Connect again whenever the connection ends."""
        self._clients[index] = client

        def again(_client: Client) -> None:
            if self._away:
                return
            task = asyncio.get_running_loop().create_task(self._again(index))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        client.on_closed = again
        if client.closed:
            again(client)

    def cut(self) -> None:
        """End every connection, and keep away."""
        self._away = True
        for client in self._clients.values():
            client.cut()

    async def come_back(self, command: ComeBack) -> LatencyRecorder:
        """Connect all again; how long each took until it was caught up, from the command on."""
        self._away = False
        self._spread_seconds = command.spread_seconds
        self._caught_up.clear()
        self._all_caught_up.clear()
        self._caught_up_seconds = LatencyRecorder()
        self._came_back_at = time.perf_counter()
        async with asyncio.timeout(command.seconds_max), asyncio.TaskGroup() as tasks:
            for index in self._clients:
                tasks.create_task(self._again(index))
            await self._all_caught_up.wait()
        return self._caught_up_seconds

    async def _again(self, index: int) -> None:
        self._taken.reconnects += 1
        # As `connect` spreads them.
        port = self._crowd.ports[index % len(self._crowd.ports)]
        source = SOURCES[index % len(SOURCES)] if SOURCES else None
        while True:
            await asyncio.sleep(random.random() * self._spread_seconds)
            client = Client(
                lambda client, payload: self._on_frame(index, client, payload),
                host=HOST,
                port=port,
                # No feeds: they come with the cursor, or everything would be sent again.
                path="/v1/ws",
                token=self._token(index),
            )
            try:
                await open_client(client, HOST, port, source)
            except OSError:
                continue
            self._keep(index, client)
            return

    def _subscribe(self, index: int) -> bytes:
        cursor = {"epoch": self._epochs[index], "positions": self._inboxes[index].positions}
        feeds = [self._traffic.feed]
        return msgspec.json.encode({"type": "subscribe", "feeds": feeds, "cursor": cursor})

    # Verifying.

    async def until_here(self, command: Await) -> Taken:
        """What came since the last call; returns when all is here, or when the time is up."""
        self._know(command.published)
        self._wanted = sum(len(self._expected[inbox.owner]) for inbox in self._inboxes)
        if self._received < self._wanted:
            self._all_here.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(command.seconds):
                    await self._all_here.wait()
        taken, self._taken = self._taken, Taken()
        return taken

    def judge(self, command: Judge) -> dict[str, int]:
        """The faults of all clients together."""
        self._know(command.published)
        unknown, refused = command.unknown, command.refused
        return merged(
            inbox.judge(
                self._accepted(inbox, unknown | refused),
                unknown=unknown,
                heads=command.heads[inbox.user],
            )
            for inbox in self._inboxes
        )

    def _accepted(self, inbox: Inbox, others: Set[int]) -> Set[int]:
        return self._expected[inbox.owner] - others

    def _know(self, published: int) -> None:
        for number in range(self._known, published):
            self._expected[self._traffic.owner(number)].add(number)
        self._known = max(self._known, published)
