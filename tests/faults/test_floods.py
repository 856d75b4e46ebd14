"""Keys, users and parameters without an end: whatever is kept of them has a bound.

The memory of whole processes is measured, after every bound was reached and again much later.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final
from urllib.parse import urlsplit

import psutil
import pytest
from websockets.asyncio.client import connect

from livefeed.limits import CACHE_FAILURES_MAX, CACHE_MEMORY_ENTRIES_MAX, MIB
from livefeed.nats_roles import CACHE_BUCKET
from livefeed.update import KINDS
from tests.flood_of_keys import Flood, Outcome
from tests.read_load import Kept
from tests.servers import ROOT, Process, Stack, connected

GROWTH_BYTES_MAX: Final = 4 * MIB
"""What a process may have taken from the system meanwhile and not given back."""
TABLE_BYTES_MAX: Final = 16 * MIB
"""The same where 100,000 entries are kept: their tables are made anew now and then, beside the old
ones. Anything that was kept of each key would be more than that."""
READERS: Final = 20
SEEN: Final = '{"type": "seen", "device": "d%d", "cursor": {"epoch": "x", "positions": {}}}'


async def outcome_of(wanted: Flood) -> Outcome:
    """Run a flood in a process of its own."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tests.flood_of_keys", json.dumps(asdict(wanted))],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    outcome = Outcome(**json.loads(done.stdout))
    print(outcome)
    return outcome


def check(wanted: Flood, outcome: Outcome, growth_bytes_max: int = GROWTH_BYTES_MAX) -> None:
    """It is flat, and nothing is left of what was asked for."""
    half = len(outcome.memory) // 2
    assert max(outcome.memory[half:]) - max(outcome.memory[:half]) < growth_bytes_max
    assert outcome.entries <= CACHE_MEMORY_ENTRIES_MAX
    assert 0.05 * wanted.keys < outcome.failed < 0.15 * wanted.keys
    left = dict(outcome.left or {})
    assert left.pop("failures") <= CACHE_FAILURES_MAX
    assert left.pop("counts") < 20
    assert set(left.values()) == {0}


async def test_the_caches_and_nats_stay_as_large_as_they_are(nats: str) -> None:
    """A bucket that is full after a few thousand, and lets go of the oldest then."""
    wanted = Flood(12_000, 4_000, 1 * MIB, 1 * MIB, nats)
    check(wanted, await outcome_of(wanted))
    async with connected(nats) as connection:
        state = (await connection.jetstream().stream_info(f"KV_{CACHE_BUCKET}")).state
    assert state.bytes <= wanted.shared_bytes_max
    assert state.messages < state.last_seq - 1_000


@pytest.mark.slow
@pytest.mark.timeout(1_800)
async def test_a_million_keys(nats: str) -> None:
    """With the bounds that a gateway has: of its memory, and of what has just failed."""
    wanted = Flood(1_000_000, 200_000, 128 * MIB, 0, None)
    check(wanted, await outcome_of(wanted), TABLE_BYTES_MAX)


@pytest.mark.parametrize("number", [6_000, pytest.param(60_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
async def test_a_gateway_stays_as_large_as_it_is(stack: Stack, number: int) -> None:
    """Users, feeds and parameters that nobody else asks for, and parameters that are none."""
    gateway = await stack.start_gateway(cache_memory_bytes_max=1 * MIB)
    process = psutil.Process(gateway.pid)
    paths = _paths(stack)
    statuses = await _read(gateway, itertools.islice(paths, number // 3))
    before = process.memory_info().rss
    statuses += await _read(gateway, itertools.islice(paths, number - number // 3))
    growth = process.memory_info().rss - before
    print(f"{number} requests: {growth / MIB:.1f} MiB more; {statuses}")
    assert growth < GROWTH_BYTES_MAX
    assert set(statuses) <= {200, 400, 503}
    assert min(statuses[200], statuses[400]) > number // 10


@pytest.mark.slow
async def test_users_who_come_and_go_leave_nothing(stack: Stack) -> None:
    """Each connects once, follows a feed of its own, hides it, tells what was seen, and leaves."""
    gateway = await stack.start_gateway()
    process = psutil.Process(gateway.pid)
    url = gateway.url.replace("http", "ws")

    async def visit(number: int) -> None:
        headers = {"Authorization": f"Bearer {stack.token(f'user{number}')}"}
        path = f"/v1/ws?feeds=home,feed-{number}"
        async with connect(url + path, additional_headers=headers) as socket:
            await socket.recv()
            await socket.send('{"type": "visibility", "state": "hidden"}')
            await socket.send(SEEN % number)

    memory = []
    for wave in range(60):
        await asyncio.gather(*(visit(100 * wave + number) for number in range(100)))
        memory.append(process.memory_info().rss)
    growth = memory[-1] - memory[len(memory) // 3]
    print(f"6,000 users: {growth / MIB:.1f} MiB more")
    assert growth < GROWTH_BYTES_MAX


def _paths(stack: Stack) -> Iterator[tuple[str, str]]:
    """Tokens, and feeds with their parameters, each of them new."""
    for number in itertools.count():
        token = stack.token(f"user{number}")
        kinds = ",".join(KINDS[n] for n in range(len(KINDS)) if (number + 1) >> n & 1) or KINDS[0]
        yield token, f"home?limit={number % 200 + 1}&types={kinds}"
        yield token, f"feed-{number}"
        yield token, f"home?limit={number}&nothing={number}"


async def _read(gateway: Process, paths: Iterator[tuple[str, str]]) -> Counter[int]:
    """Read all of them over some connections."""
    statuses: Counter[int] = Counter()
    port = urlsplit(gateway.url).port
    assert port is not None

    async def reader() -> None:
        kept = await Kept.open(port)
        for token, path in paths:
            head, _ = await kept.get(path, token)
            statuses[int(head[9:12])] += 1
        kept.close()

    await asyncio.gather(*(reader() for _ in range(READERS)))
    return statuses
