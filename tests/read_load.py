"""Readers of feeds over HTTP in a process of their own, on a schedule that no answer can hold up.

Connections are kept; a read that finds none free opens one. What the reading process itself was
late by is recorded beside each answer: the two cores are everybody's.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import jwt

from benchmarks.load_process import Link

ANSWER_SECONDS_MAX: Final = 5.0
"""For longer nobody waits: it counts as no answer."""
PROBE_SECONDS: Final = 0.01
ATTEMPTS_MAX: Final = 3
"""A kept connection may be closed by the server at the very moment at which it is used."""
NUMBER: Final = re.compile(rb'"n": ?(\d+)')

Kind = Literal["hot", "cold", "stranger"]


@dataclass(frozen=True, slots=True)
class Door:
    """A feed at a gateway, and who reads it."""

    name: str
    port: int
    feed: str
    hot: int
    """Users who read again and again."""
    cold: int
    """Users who read now and then."""
    per_second: float


@dataclass(frozen=True, slots=True)
class ReadLoad:
    """Who reads what."""

    doors: tuple[Door, ...]
    jwt_secret: str
    seed: int
    hot_share: float = 0.75
    """Of the reads, which are of hot users."""
    stranger_share: float = 0.05
    """And of users who never read before."""


class Answer(NamedTuple):
    """What became of one read."""

    door: str
    kind: Kind
    user: str
    due_at: float
    """Monotonic seconds, the same clock in every process of the computer."""
    took: float
    """Seconds since then."""
    late: float
    """By how many of them the reading process itself was late."""
    status: int
    """0: none came, or it broke off."""
    level: str
    stale: bool
    age: int
    retry_after: int
    number: int
    """What the newest item of the page says; -1 where there is none."""
    foreign: bool
    """Whether something of another user was in it."""


async def read(link: Link, load: ReadLoad) -> None:
    """The load: reads each feed once, says so, and reads on; sends what came when it is asked."""
    reading = Reading(load)
    await reading.each_once()
    link.send(None)
    tasks = [asyncio.create_task(reading.run(door)) for door in load.doors]
    tasks.append(asyncio.create_task(reading.probe()))
    try:
        while True:
            await link.receive()
            link.send(reading.take())
    finally:
        for task in tasks:
            task.cancel()


@dataclass(slots=True)
class Reading:
    """All readers of this process."""

    load: ReadLoad
    answers: list[Answer] = field(default_factory=list)
    _free: dict[int, deque[Kept]] = field(default_factory=dict)
    _lateness: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=1_000))
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _strangers: itertools.count[int] = field(default_factory=itertools.count)
    _tokens: dict[str, str] = field(default_factory=dict)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.load.seed)

    def take(self) -> list[Answer]:
        """What came since the last time."""
        taken, self.answers = self.answers, []
        return taken

    async def each_once(self) -> None:
        """Have every feed read before, and a token of everybody at hand."""
        for door in self.load.doors:
            users: list[tuple[Kind, str]] = [
                *(("hot", f"hot{number}") for number in range(door.hot)),
                *(("cold", f"cold{number}") for number in range(door.cold)),
            ]
            for kind, user in users:
                answer = await self._one(door, kind, user)
                assert answer.status == 200, answer

    async def run(self, door: Door) -> None:
        """Read one feed of many users at a steady rate."""
        began_at = time.monotonic()
        for number in itertools.count():
            due_at = began_at + number / door.per_second
            await asyncio.sleep(max(0.0, due_at - time.monotonic()))
            kind, user = self._who(door)
            task = asyncio.create_task(self._read(door, kind, user, due_at))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def probe(self) -> None:
        """Find out how late this process is."""
        while True:
            due_at = time.monotonic() + PROBE_SECONDS
            await asyncio.sleep(PROBE_SECONDS)
            now = time.monotonic()
            if now - due_at > PROBE_SECONDS / 2:
                self._lateness.append((now, now - due_at))

    def _who(self, door: Door) -> tuple[Kind, str]:
        chance = self._random.random()
        if chance < self.load.stranger_share:
            return "stranger", f"stranger{next(self._strangers)}"
        if chance < self.load.stranger_share + self.load.hot_share:
            return "hot", f"hot{self._random.randrange(door.hot)}"
        return "cold", f"cold{self._random.randrange(door.cold)}"

    async def _read(self, door: Door, kind: Kind, user: str, due_at: float) -> None:
        self.answers.append(await self._one(door, kind, user, due_at))

    async def _one(self, door: Door, kind: Kind, user: str, due_at: float | None = None) -> Answer:
        due_at = time.monotonic() if due_at is None else due_at
        head, body = b"", b""
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                head, body = await self._get(door, user)
        except (OSError, TimeoutError, EOFError):
            pass
        now = time.monotonic()
        late = max((by for at, by in self._lateness if at >= due_at), default=0.0)
        if kind == "stranger":
            self._tokens.pop(user, None)
        return _answer(door, kind, user, (due_at, now - due_at, late), head, body)

    async def _get(self, door: Door, user: str) -> tuple[bytes, bytes]:
        free = self._free.setdefault(door.port, deque())
        for attempt in itertools.count(1):
            while free and free[-1].ended:
                free.pop().close()
            kept = free.pop() if free else await Kept.open(door.port)
            try:
                found = await kept.get(f"{door.feed}?limit=5", self._token(user))
            except BaseException as error:
                kept.close()
                begun = isinstance(error, asyncio.IncompleteReadError) and error.partial
                if isinstance(error, OSError | EOFError) and not begun and attempt < ATTEMPTS_MAX:
                    continue
                raise
            free.append(kept)
            return found
        raise AssertionError("unreachable")

    def _token(self, user: str) -> str:
        if user not in self._tokens:
            claims = {"sub": user, "exp": int(time.time()) + 3_600}
            self._tokens[user] = jwt.encode(claims, self.load.jwt_secret, algorithm="HS256")
        return self._tokens[user]


class Kept:
    """A connection that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Kept:
        """Connect to a port of the loopback."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    @property
    def ended(self) -> bool:
        """Whether the server has closed it, as it does with one that was idle for a while."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def get(self, feed: str, token: str) -> tuple[bytes, bytes]:
        """The head and the body of a feed's page; the feed may have parameters behind it."""
        self._writer.write(
            f"GET /v1/feeds/{feed} HTTP/1.1\r\nHost: feeds\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        return head, await self._reader.readexactly(_number(head, b"content-length"))

    def close(self) -> None:
        """Leave, whatever is still to be sent."""
        self._writer.transport.abort()


Times = tuple[float, float, float]


def _answer(door: Door, kind: Kind, user: str, times: Times, head: bytes, body: bytes) -> Answer:
    cache_status = _value(head, b"cache-status")
    level = re.search(r"detail=(\w+)", cache_status)
    numbers = [int(number) for number in NUMBER.findall(body)]
    return Answer(
        door.name,
        kind,
        user,
        *times,
        int(head[9:12] or b"0"),
        level[1] if level else "made" if "fwd=miss" in cache_status else "",
        "ttl=-" in cache_status,
        _number(head, b"age"),
        _number(head, b"retry-after"),
        max(numbers, default=-1),
        any(owner.decode() != user for owner in re.findall(rb'"id": ?"of-(\w+)"', body)),
    )


def _value(head: bytes, name: bytes) -> str:
    _, _, rest = head.partition(b"\r\n" + name + b":")
    return rest.partition(b"\r\n")[0].strip().decode()


def _number(head: bytes, name: bytes) -> int:
    return int(_value(head, name) or "0")
