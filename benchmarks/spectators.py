"""Clients of a mix, in a process of their own: the same ones for livefeed and the naive path."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from benchmarks.clients import SOURCES, TOKEN_SECONDS
from benchmarks.http_client import Answer, HttpClient, request_for
from benchmarks.load_generator import Client, connect_many, raise_file_limit
from benchmarks.load_process import Link
from benchmarks.mix import CONTENT, ENGAGEMENT, FEED, Mix, Place, Visible
from benchmarks.stack import HOST, signing_settings
from benchmarks.verify import FAULTS
from livefeed.adapters.tokens import sign

READERS: Final = 4
"""Feeds that are read at once at the end."""
PAGE_ITEMS: Final = 200
"""The most that a page of livefeed has; the naive path gives all at once."""
LOOK_SECONDS: Final = 0.1
OK: Final = 200


@dataclass(frozen=True, slots=True)
class Spectators:
    """Who looks at a mix, and where."""

    mix: Mix
    port: int
    jwt_secret: str
    naive: bool
    """Whether the server is the naive one, which sends each update by itself."""


@dataclass(frozen=True, slots=True)
class Arrive:
    """Wait until every client holds what it has to."""

    seconds_max: float


@dataclass(frozen=True, slots=True)
class ReadAll:
    """Read every user's feed once, and judge everything."""


@dataclass(slots=True)
class Sent:
    """What came, of the servers' bytes without the head of a frame."""

    frames: int
    frame_bytes: int
    updates: int
    answer_bytes: int
    faults: dict[str, int]


class _Named(msgspec.Struct):
    id: str
    number: int


class _Update(msgspec.Struct):
    updateType: str  # noqa: N815
    content: _Named


class _Frame(msgspec.Struct):
    """A frame of livefeed, or of the naive path, which is an update itself."""

    type: str = ""
    updates: list[_Update] = []
    updateType: str = ""  # noqa: N815
    content: _Named | None = None


class _Item(msgspec.Struct):
    content: _Named | None
    engagement: _Named | None = None


class _Snapshot(msgspec.Struct):
    items: list[_Item]
    next: str | None = None


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_snapshot = msgspec.json.Decoder(_Snapshot).decode


async def spectate(link: Link, asked: Spectators) -> None:
    """The load: connects, and answers each Arrive, and each ReadAll with a Sent."""
    raise_file_limit()
    watching = _Watching(asked)
    link.send(await watching.connect())
    while True:
        command: Arrive | ReadAll = await link.receive()
        if isinstance(command, Arrive):
            link.send(await watching.arrived(command.seconds_max))
        else:
            link.send(await watching.read_all())


class _Watching:
    """The clients, and what each of them holds."""

    def __init__(self, asked: Spectators) -> None:
        self._asked = asked
        self._mix = asked.mix
        self._standing = asked.mix.standing()
        self._held: list[dict[Place, int]] = [{} for _ in asked.mix.connected]
        self._sent = Sent(0, 0, 0, 0, dict.fromkeys(FAULTS, 0))
        self._caught_up: set[int] = set()
        self._settings = signing_settings(asked.jwt_secret)
        self._closed = 0

    async def connect(self) -> int:
        """Connect all, and return how many there are; raises ConnectionError."""
        users = self._mix.connected
        connected = await connect_many(
            len(users),
            source_addresses=SOURCES,
            port=self._asked.port,
            path_for=lambda place: f"/v1/ws?{self._query(users[place])}",
            token_for=lambda place: self._token(users[place]),
            on_frame=self._on_frame,
        )
        if connected.failures:
            raise ConnectionError(f"{len(connected.failures)} clients: {connected.failures[0]}")
        for client in connected.clients:
            client.on_closed = self._on_closed
        async with asyncio.timeout(60):
            while not self._asked.naive and len(self._caught_up) < len(users):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_SECONDS)
        # What came until here says that nothing is there yet.
        self._sent = Sent(0, 0, 0, 0, self._sent.faults)
        return len(users)

    async def arrived(self, seconds_max: float) -> float:
        """Wait until all is here, or the time is up; the seconds that it took."""
        wanted = [self._standing[user] for user in self._mix.connected]
        began = time.perf_counter()
        while self._held != wanted and time.perf_counter() - began < seconds_max:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)
        return time.perf_counter() - began

    async def read_all(self) -> Sent:
        """Read all feeds, and say what is wrong with them and with what the clients hold."""
        users = iter(range(self._mix.users))
        await asyncio.gather(*(self._read_some(users) for _ in range(READERS)))
        for user, held in zip(self._mix.connected, self._held, strict=True):
            self._compare(self._standing[user], held)
        self._sent.faults["inexact"] += self._closed
        return self._sent

    def _compare(self, wanted: dict[Place, int], held: dict[Place, int]) -> None:
        faults = self._sent.faults
        faults["lost"] += len(wanted.keys() - held.keys())
        faults["foreign"] += len(held.keys() - wanted.keys())
        faults["inexact"] += sum(
            wanted.get(place, number) != number for place, number in held.items()
        )

    # Live.

    def _on_frame(self, client: Client, payload: bytes) -> None:
        frame = _decode_frame(payload)
        if frame.type == "caught_up":
            self._caught_up.add(client.index)
        updates = [*frame.updates]
        if frame.content is not None:
            updates.append(_Update(frame.updateType, frame.content))
        self._sent.frames += 1
        self._sent.frame_bytes += len(payload)
        self._sent.updates += len(updates)
        held = self._held[client.index]
        for update in updates:
            facet = ENGAGEMENT if update.updateType == "engagement_update" else CONTENT
            place, number = (update.content.id, facet), update.content.number
            # The naive path may send a newer one first; a client then keeps it.
            held[place] = max(number, held.get(place, -1))

    def _on_closed(self, _client: Client) -> None:
        self._closed += 1

    # Reading.

    async def _read_some(self, users: Iterator[int]) -> None:
        answers: asyncio.Queue[Answer | None] = asyncio.Queue()
        client = HttpClient(
            lambda _client, answer: answers.put_nowait(answer),
            lambda _client: answers.put_nowait(None),
        )
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: client, HOST, self._asked.port)
        for user in users:
            self._judge(user, [item async for item in self._feed(user, client, answers)])
        client.cut()

    async def _feed(
        self, user: int, client: HttpClient, answers: asyncio.Queue[Answer | None]
    ) -> AsyncIterator[_Item]:
        """All items of a user's feed, page by page."""
        after: dict[str, str] = {}
        while True:
            path = f"/v1/feeds/{FEED}?{self._query(user, limit=str(PAGE_ITEMS), **after)}"
            client.send(request_for(path, host=HOST, token=self._token(user)))
            answer = await answers.get()
            if answer is None or answer.status != OK:
                raise ConnectionError(f"reading {path}: {answer}")
            self._sent.answer_bytes += answer.size
            page = _decode_snapshot(answer.body)
            for item in page.items:
                yield item
            if page.next is None:
                return
            after = {"after": page.next}

    def _judge(self, user: int, items: list[_Item]) -> None:
        """Compare one feed, whole and in its order, with what has to be seen."""
        wanted = self._mix.visible(self._standing[user])
        seen = [
            Visible(
                item.content.id,
                item.content.number,
                item.engagement.number if item.engagement else None,
            )
            for item in items
            if item.content is not None
        ]
        if seen == wanted:
            return
        names = [one.item for one in seen]
        faults, has, needs = self._sent.faults, set(names), {one.item for one in wanted}
        faults["doubled"] += len(names) - len(has)
        faults["lost"] += len(needs - has)
        faults["foreign"] += len(has - needs)
        faults["inexact"] += int(has == needs)

    def _query(self, user: int, **more: str) -> str:
        who = {"user": self._mix.user(user)} if self._asked.naive else more or {"feeds": FEED}
        return "&".join(f"{name}={value}" for name, value in who.items())

    def _token(self, user: int) -> str:
        claims = {"sub": self._mix.user(user), "exp": int(time.time()) + TOKEN_SECONDS}
        return sign(self._settings, claims)
