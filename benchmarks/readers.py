"""The reading side of a load, in a process of its own: snapshots on a fixed schedule.

A read is due at its moment, whatever became of those before. When no connection is free it waits,
and its latency counts from the moment at which it was due (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from benchmarks.clients import TOKEN_SECONDS
from benchmarks.corpus import Corpus
from benchmarks.http_client import Answer, HttpClient, request_for
from benchmarks.load_process import Link
from benchmarks.measure import LatencyRecorder
from benchmarks.publisher import until
from benchmarks.stack import HOST, signing_settings
from benchmarks.traffic import clock
from livefeed.adapters.tokens import sign

ATTEMPTS_MAX: Final = 3
"""How often a read is sent whose connection ended under it."""
RECONNECT_SECONDS: Final = 0.05
OK: Final = 200
Source = Literal["memory", "shared", "hit", "miss", "unsaid"]
"""Where an answer came from, as it says: a hit without more detail, or nothing said at all."""


@dataclass(frozen=True, slots=True)
class Readers:
    """Whose feeds are read, and through how many connections."""

    corpus: Corpus
    port: int
    jwt_secret: str
    seed: int
    connections: int
    hot_percent: int
    """Of the users, who are read most."""
    hot_reads_percent: int
    """Of the reads, which are of hot users."""


@dataclass(frozen=True, slots=True)
class Read:
    """Read for a while."""

    per_second: float
    seconds: float
    samples: int
    """Answers to keep, of all of the period about evenly."""
    patience_seconds: float = 10.0
    """For what is unanswered at the end."""


class Sample(NamedTuple):
    """An answer that is compared with the log later."""

    user: int
    body: bytes


@dataclass(slots=True)
class Outcomes:
    """What became of some reads."""

    answered: int = 0
    errors: int = 0
    """Answers of any other status than 200, and reads without any answer."""

    @property
    def share(self) -> float:
        """Of errors."""
        return self.errors / max(1, self.answered + self.errors)


@dataclass(slots=True)
class ReadResult:
    """What a period was like."""

    latencies: dict[Source, LatencyRecorder] = field(default_factory=dict)
    """Of answers with status 200, from the scheduled moment."""
    slowest: float = 0.0
    """Seconds, of all reads, also of errors and of those that were given up."""
    known: Outcomes = field(default_factory=Outcomes)
    """Of feeds that this process had been given before."""
    unknown: Outcomes = field(default_factory=Outcomes)
    stale: int = 0
    size: int = 0
    """Bytes of all answers, heads too."""
    statuses: dict[int, int] = field(default_factory=dict)
    """Other than 200; 0 is no answer at all."""
    samples: list[Sample] = field(default_factory=list)
    late: LatencyRecorder = field(default_factory=LatencyRecorder)
    """From the scheduled moment to that at which this process took notice of it."""

    @property
    def answered(self) -> int:
        return self.known.answered + self.unknown.answered

    @property
    def errors(self) -> int:
        return self.known.errors + self.unknown.errors

    def merge(self, other: ReadResult) -> None:
        """Add another process's."""
        for source, latency in other.latencies.items():
            self.latencies.setdefault(source, LatencyRecorder()).merge(latency)
        for mine, theirs in ((self.known, other.known), (self.unknown, other.unknown)):
            mine.answered += theirs.answered
            mine.errors += theirs.errors
        for status, number in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + number
        self.slowest = max(self.slowest, other.slowest)
        self.stale += other.stale
        self.size += other.size
        self.samples += other.samples
        self.late.merge(other.late)


def source_of(cache_status: str) -> Source:
    """Where an answer came from, by its `Cache-Status`."""
    parameters = [part.strip() for part in cache_status.split(";")]
    if parameters[0] != "livefeed":
        return "unsaid"
    if "hit" not in parameters:
        return "miss"
    if "detail=memory" in parameters:
        return "memory"
    return "shared" if "detail=shared" in parameters else "hit"


async def read(link: Link, readers: Readers) -> None:
    """The load: answers each Read with a ReadResult."""
    reading = _Reading(readers)
    await reading.connect()
    link.send(readers.connections)
    while True:
        command: Read = await link.receive()
        link.send(await reading.period(command))


@dataclass(slots=True)
class _Due:
    """One read."""

    user: int
    due: int
    attempts: int = 0


class _Reading:
    """All connections of this process."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._settings = signing_settings(readers.jwt_secret)
        self._random = random.Random(readers.seed)
        self._requests: dict[int, bytes] = {}
        self._given: set[int] = set()
        """Users whose feed was answered before."""
        self._free: list[HttpClient] = []
        self._busy: dict[HttpClient, _Due] = {}
        self._waiting: deque[_Due] = deque()
        self._result = ReadResult()
        self._sample_every = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        """Open all connections, and make all requests, so that neither takes time later."""
        for _ in range(self._readers.connections):
            await self._open()
        for user in range(self._readers.corpus.users):
            self._requests[user] = self._request(user)

    async def period(self, command: Read) -> ReadResult:
        """Read for so long, and wait until all is answered, within a bound."""
        count = round(command.per_second * command.seconds)
        self._result = ReadResult()
        self._sample_every = max(1, count // command.samples) if command.samples else 0
        start = clock()
        for place in range(count):
            due = start + int(place / command.per_second * 1e9)
            await until(due)
            self._result.late.record((clock() - due) / 1e9)
            self._begin(_Due(self._user(), due))
        await self._settle(command.patience_seconds)
        return self._result

    async def _settle(self, patience_seconds: float) -> None:
        deadline = clock() + int(patience_seconds * 1e9)
        while (self._busy or self._waiting) and clock() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        given_up = [*self._busy.values(), *self._waiting]
        self._waiting.clear()
        for client in list(self._busy):
            self._busy.pop(client)
            client.cut()
        for one in given_up:
            self._failed(one, 0)

    def _user(self) -> int:
        readers, dice = self._readers, self._random
        users = readers.corpus.users
        hot = max(1, users * readers.hot_percent // 100)
        if dice.random() * 100 < readers.hot_reads_percent or hot == users:
            return dice.randrange(hot)
        return dice.randrange(hot, users)

    def _begin(self, one: _Due) -> None:
        if not self._free:
            self._waiting.append(one)
            return
        client = self._free.pop()
        one.attempts += 1
        self._busy[client] = one
        client.send(self._requests[one.user])

    # What comes.

    def _on_answer(self, client: HttpClient, answer: Answer) -> None:
        one = self._busy.pop(client, None)
        self._free.append(client)
        if one is not None:
            self._take(one, answer)
        if self._waiting:
            self._begin(self._waiting.popleft())

    def _take(self, one: _Due, answer: Answer) -> None:
        result = self._result
        result.size += answer.size
        if answer.status != OK:
            self._failed(one, answer.status)
            return
        seconds = (clock() - one.due) / 1e9
        source = source_of(answer.cache_status)
        result.latencies.setdefault(source, LatencyRecorder()).record(seconds)
        result.slowest = max(result.slowest, seconds)
        result.stale += "ttl=-" in answer.cache_status
        outcomes = self._outcomes(one)
        outcomes.answered += 1
        self._given.add(one.user)
        if self._sample_every and result.answered % self._sample_every == 0:
            result.samples.append(Sample(one.user, answer.body))

    def _failed(self, one: _Due, status: int) -> None:
        result = self._result
        self._outcomes(one).errors += 1
        result.statuses[status] = result.statuses.get(status, 0) + 1
        result.slowest = max(result.slowest, (clock() - one.due) / 1e9)

    def _outcomes(self, one: _Due) -> Outcomes:
        return self._result.known if one.user in self._given else self._result.unknown

    def _on_lost(self, client: HttpClient) -> None:
        if client in self._free:
            self._free.remove(client)
        one = self._busy.pop(client, None)
        if one is not None and one.attempts < ATTEMPTS_MAX:
            # The server may end a connection at the very moment at which a request comes.
            self._waiting.appendleft(one)
        elif one is not None:
            self._failed(one, 0)
        task = asyncio.get_running_loop().create_task(self._again())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _again(self) -> None:
        while True:
            await asyncio.sleep(RECONNECT_SECONDS)
            try:
                await self._open()
            except OSError:
                continue
            if self._waiting and self._free:
                self._begin(self._waiting.popleft())
            return

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        client = HttpClient(self._on_answer, self._on_lost)
        await loop.create_connection(lambda: client, HOST, self._readers.port)
        if not client.closed:
            self._free.append(client)

    def _request(self, user: int) -> bytes:
        corpus = self._readers.corpus
        claims = {"sub": corpus.user(user), "exp": int(time.time()) + TOKEN_SECONDS}
        path = f"/v1/feeds/{corpus.feed}"
        return request_for(path, host=HOST, token=sign(self._settings, claims))
