"""Many who want the same at once, on a real gateway: what it costs is counted where it is paid.

At the database statements are counted by its own log, at a feed source by the source.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import time
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import asyncpg
import pytest

from livefeed.adapters.embedded import PostgresServer
from livefeed.limits import CACHE_FAILURE_SECONDS
from tests.read_load import Kept
from tests.servers import Process, Stack, until

HERD: Final = 1_000
ATTEMPTS_MAX: Final = 10
"""A computer that is busy with more may take longer for so many than any answer may take; whatever
becomes of them, they cost no more. So they come again until all are answered."""
FRESH_SECONDS: Final = 60
PAGE_STATEMENT: Final = "with channel as materialized"
EPOCH_STATEMENT: Final = "from feed_epoch epoch left join feed_channel"
SOURCE: Final = """
    import asyncio, json, os, pathlib, time
    from livefeed.feed_source import SourcePage

    GO = pathlib.Path({go!r})
    CALLS = os.open({calls!r}, os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    def note(*what):
        os.write(CALLS, json.dumps([*what, time.monotonic()]).encode() + b"\\n")

    async def ranked(request):
        note("called", request.user_id)
        if request.user_id.startswith("broken"):
            raise RuntimeError("told to fail")
        while request.user_id.startswith("slow") and not GO.exists():
            await asyncio.sleep(0.005)
        note("answered", request.user_id)
        return SourcePage([{{"id": "p1"}}])
"""


class Call(NamedTuple):
    """Something that the source noted."""

    what: str
    user: str
    at: float


class Source:
    """A feed source that says what it is asked; slow ones wait until they may go on."""

    def __init__(self, stack: Stack) -> None:
        self.go, self._calls = stack.directory / "go", stack.directory / "calls"
        source = SOURCE.format(go=str(self.go), calls=str(self._calls))
        stack.plug_in(source, feed_source="ranked")

    def calls(self, what: str, user: str) -> list[Call]:
        """Of one user."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        calls = [Call(*json.loads(line)) for line in lines]
        return [one for one in calls if (one.what, one.user) == (what, user)]

    def gaps(self, user: str) -> list[float]:
        """Seconds between one call for a user and the next."""
        times = [one.at for one in self.calls("called", user)]
        return [later - earlier for earlier, later in itertools.pairwise(times)]


@contextlib.asynccontextmanager
async def herd(stack: Stack, gateway: Process, user: str, size: int) -> AsyncIterator[list[Any]]:
    """Connections that all ask for the same feed in one moment; their answers are tasks."""
    port = urlsplit(gateway.url).port
    assert port is not None
    kept = [await Kept.open(port) for _ in range(size)]
    token = stack.token(user)
    asked = [asyncio.create_task(one.get("home", token)) for one in kept]
    try:
        yield asked
    finally:
        for one in kept:
            one.close()
        await asyncio.gather(*asked, return_exceptions=True)


def status(answer: tuple[bytes, bytes]) -> int:
    return int(answer[0][9:12])


@pytest.fixture
async def statements(database: str, session_postgres: PostgresServer) -> dict[str, int]:
    """How often some statements were run in this test's database, after it was asked to count."""
    name = urlsplit(database).path[1:]
    connection = await asyncpg.connect(database)
    await connection.execute(f"alter database {name} set log_statement = 'all'")
    await connection.close()
    start = session_postgres.log.stat().st_size

    class Counts(dict[str, int]):
        def __missing__(self, statement: str) -> int:
            with session_postgres.log.open("rb") as log:
                log.seek(start)
                return log.read().count(statement.encode())

    return Counts()


async def test_a_cold_herd_costs_one_statement(stack: Stack, statements: dict[str, int]) -> None:
    """And one for the log's epoch, where they are the very first requests of a gateway."""
    gateway = await stack.start_gateway(snapshot_fresh_seconds=FRESH_SECONDS)
    for attempt in range(ATTEMPTS_MAX):
        before = statements[PAGE_STATEMENT]
        async with herd(stack, gateway, f"alice{attempt}", HERD) as asked:
            answers = await asyncio.gather(*asked)
        assert statements[PAGE_STATEMENT] - before <= 1
        assert statements[EPOCH_STATEMENT] <= 1 + attempt
        assert {status(one) for one in answers} <= {200, 503}
        if {status(one) for one in answers} == {200}:
            break
    assert {status(one) for one in answers} == {200}
    assert statements[PAGE_STATEMENT] - before == 1
    assert len({body for _, body in answers}) == 1


async def test_a_cold_herd_costs_one_call_of_a_source(stack: Stack) -> None:
    """Also where the call fails: then all of them are told to come again."""
    source = Source(stack)
    gateway = await stack.start_gateway(snapshot_fresh_seconds=FRESH_SECONDS)
    for attempt in range(ATTEMPTS_MAX):
        user = f"alice{attempt}"
        async with herd(stack, gateway, user, HERD) as asked:
            answers = await asyncio.gather(*asked)
        assert len(source.calls("called", user)) <= 1
        if {status(one) for one in answers} == {200}:
            break
    assert {status(one) for one in answers} == {200}
    async with herd(stack, gateway, "broken", HERD) as asked:
        answers = await asyncio.gather(*asked)
    assert {status(one) for one in answers} == {503}
    assert all(b"retry-after" in head for head, _ in answers)
    assert min(source.gaps("broken"), default=math.inf) >= CACHE_FAILURE_SECONDS


async def test_who_began_the_load_may_hang_up(stack: Stack) -> None:
    """Its socket is cut while the source is asked; the others have what it brings."""
    source = Source(stack)
    gateway = await stack.start_gateway(snapshot_fresh_seconds=FRESH_SECONDS)
    for attempt in range(ATTEMPTS_MAX):
        user = f"slow{attempt}"
        source.go.unlink(missing_ok=True)
        async with herd(stack, gateway, user, 1) as leader:
            await until(lambda user=user: source.calls("called", user), what="it is asked")
            async with herd(stack, gateway, user, 50) as followers:
                leader[0].cancel()
                await asyncio.gather(*leader, return_exceptions=True)
                source.go.touch()
                statuses = {status(one) for one in await asyncio.gather(*followers)}
        if source.calls("answered", user):
            break  # Else the computer took longer for this than a source may.
    assert statuses == {200}
    assert len(source.calls("called", user)) == 1


async def test_what_fails_is_asked_once_a_second(stack: Stack) -> None:
    """For each page, however often it is wanted."""
    source = Source(stack)
    gateway = await stack.start_gateway(snapshot_fresh_seconds=FRESH_SECONDS)
    users = [f"broken{number}" for number in range(2)]
    ends_at = time.monotonic() + 2.5 * CACHE_FAILURE_SECONDS
    for number in itertools.count():
        # One that answers in between: its breaker stays closed.
        for user in (*users, f"well{number}"):
            async with herd(stack, gateway, user, 5) as asked:
                answers = await asyncio.gather(*asked)
            assert user not in users or {status(one) for one in answers} == {503}
        if time.monotonic() > ends_at:
            break
    for user in users:
        assert source.gaps(user), "it is tried again"
        assert min(source.gaps(user)) >= CACHE_FAILURE_SECONDS
