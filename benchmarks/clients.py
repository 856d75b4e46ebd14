"""The receiving side of a load, in a process of its own: many clients that verify what they get."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
import sys
import time
from collections import defaultdict, deque
from collections.abc import Set
from typing import Final

import msgspec

from benchmarks.crowd import (
    Await,
    Away,
    Behave,
    Churn,
    ComeBack,
    Crowd,
    Cut,
    Judge,
    Manner,
    Taken,
)
from benchmarks.load_generator import Client, connect_many, open_client, raise_file_limit
from benchmarks.load_process import Link
from benchmarks.measure import LatencyRecorder
from benchmarks.report import merged
from benchmarks.stack import HOST, signing_settings
from benchmarks.traffic import clock
from benchmarks.verify import Inbox, decode_frame
from livefeed.adapters.tokens import sign

FRAMES_MAX: Final = 100
"""Of one client, of the last second, that are counted; more are that many."""
HIDDEN: Final = b'{"type": "visibility", "state": "hidden"}'
VISIBLE: Final = b'{"type": "visibility", "state": "visible"}'
TOKEN_SECONDS: Final = 6 * 3600
CAUGHT_UP_SECONDS_MAX: Final = 60.0
HANDSHAKE_SECONDS_MAX: Final = 20.0
"""Of the connect, and then of the handshake: from a server that stands still no answer comes."""
# Every address of 127/8 is the loopback's on Linux alone.
SOURCES: Final = [f"127.0.0.{n}" for n in range(2, 18)] if sys.platform == "linux" else []


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
        elif isinstance(command, Churn):
            clients.churn(command.per_second)
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
        self._slot = int(crowd.slot_seconds * 1e9)
        self._settings = signing_settings(crowd.jwt_secret)
        self._inboxes = [
            Inbox(traffic.name(user), traffic.feed, traffic.owner_for(user))
            for user in (number % traffic.users for number in range(crowd.first, crowd.stop))
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
        self._random = random.Random(f"{traffic.seed} {crowd.first}")
        self._churning: asyncio.Task[None] | None = None
        self._away_since: dict[int, int] = {}
        """By client: when its connection ended, until it is caught up again."""
        self._away = False
        self._told_seconds: dict[int, float] = {}
        """By client: when it shall come back, as a `reconnect` said."""
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
                key = content.lane, content.due // self._slot
                recorder = self._taken.latencies.get(key)
                if recorder is None:
                    recorder = self._taken.latencies[key] = LatencyRecorder()
                recorder.record((now - content.due) / 1e9)
        self._taken.resets += frame.type == "reset"
        if self._received >= self._wanted:
            self._all_here.set()
        if frame.type == "caught_up":
            self._is_back(index)
            if index not in self._caught_up:
                self._caught_up.add(index)
                self._caught_up_seconds.record(time.perf_counter() - self._came_back_at)
            if len(self._caught_up) == len(self._inboxes):
                self._all_caught_up.set()
        elif frame.after_milliseconds is not None:
            self._told_seconds[index] = frame.after_milliseconds / 1e3
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
            self._away_since.setdefault(index, clock())
            if self._away:
                return
            task = asyncio.get_running_loop().create_task(self._again(index))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        client.on_closed = again
        if client.closed:
            again(client)

    def churn(self, per_second: float) -> None:
        """Have random connections end, again and again."""
        if self._churning is not None:
            self._churning.cancel()
            self._churning = None
        if per_second:
            self._churning = asyncio.get_running_loop().create_task(self._churn(per_second))

    async def _churn(self, per_second: float) -> None:
        while True:
            await asyncio.sleep(self._random.expovariate(per_second))
            client = self._clients[self._random.randrange(len(self._inboxes))]
            if not client.closed:
                client.cut()

    def _is_back(self, index: int) -> None:
        since = self._away_since.pop(index, None)
        if since is not None:
            self._taken.away.append(Away(since, clock()))

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
        source = SOURCES[index % len(SOURCES)] if SOURCES else None
        for attempt in itertools.count():
            # As `connect` spreads them at first; a gateway that is away is left to the next one.
            port = self._crowd.ports[(index + attempt) % len(self._crowd.ports)]
            spread_seconds = self._random.random() * self._spread_seconds
            await asyncio.sleep(self._told_seconds.pop(index, spread_seconds))
            client = Client(
                lambda client, payload: self._on_frame(index, client, payload),
                host=HOST,
                port=port,
                # No feeds: they come with the cursor, or everything would be sent again.
                path="/v1/ws",
                token=self._token(index),
            )
            try:
                await open_client(client, HOST, port, source, seconds=HANDSHAKE_SECONDS_MAX)
            except OSError:
                client.cut()
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
        now = clock()
        taken.away += [Away(since, now) for since in self._away_since.values()]
        self._away_since = dict.fromkeys(self._away_since, now)
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
