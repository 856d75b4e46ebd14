"""The peers' adapters on their real servers: what each of them replays, and what is noticed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import PEERS
from benchmarks.peers.audience import Audience, Judge, Seats
from benchmarks.peers.durable import OneByOne
from benchmarks.peers.message import FAULTS
from benchmarks.peers.peer import Missing, Peer
from benchmarks.peers.sender import Letters, Publish, Sabotage, send_all
from benchmarks.publisher import Burst
from benchmarks.traffic import Traffic
from tests.servers import ROOT, require, until

USERS = 20
PER_SECOND = 400.0
# livefeed itself is in the runs of the whole scenario below. Centrifugo's binary is in no registry
# that a test could install it from.
NAMES = [
    name
    for name in PEERS
    if name != "livefeed" and (name != "centrifugo" or shutil.which("centrifugo"))
]


class Run:
    """A peer, 20 clients and a publisher in this very process."""

    def __init__(self, peer: Peer, traffic: Traffic) -> None:
        self.audience = Audience(Seats(peer.dialect, traffic, 0, traffic.users))
        self._peer = peer
        self._letters = Letters(peer.publishing, traffic, payload_bytes=340)
        self._publishing = AsyncExitStack()
        self._publish: Publish
        self._next = 0

    async def reopen(self) -> None:
        """Connect the publisher, again or for the first time."""
        await self._publishing.aclose()
        self._publish = await self._publishing.enter_async_context(self._peer.publishing.open())

    async def send(self, count: int, sabotage: Sabotage = "") -> None:
        letters = replace(self._letters, sabotage=sabotage)
        burst = Burst(self._next, count, PER_SECOND, recorded=True)
        self._next += count
        published = await send_all(self._publish, letters, burst)
        assert published.accepted == count

    async def judged(self, arriving: int) -> dict[str, int]:
        """The faults once so many messages have arrived; what is sent last arrives last."""
        audience = self.audience
        await until(lambda: self._arrived(arriving), seconds=20, what=f"{arriving} arrive")
        return audience.judge(Judge(self._next))

    async def _arrived(self, number: int) -> bool:
        return self.audience._received >= number

    async def restart(self) -> None:
        """Kill the servers and start them."""
        self._peer.kill()
        await self._peer.start()

    async def aclose(self) -> None:
        self.audience.stay_away(cut=True)
        await self._publishing.aclose()
        await self._peer.close()


@asynccontextmanager
async def running(name: str, folder: Path, *, durable: bool) -> AsyncIterator[Run]:
    peer = PEERS[name](folder, durable=durable)
    try:
        await peer.prepare()
    except Missing as missing:
        require(None, f"{name} is not installed: {missing}")
    traffic = (OneByOne if durable else Traffic)(seed=7, users=USERS, topic=not durable)
    async with AsyncExitStack() as opened:
        opened.push_async_callback(peer.close)
        await peer.start()
        run = Run(peer, traffic)
        opened.push_async_callback(run.aclose)
        await run.reopen()
        await run.audience.come_back(20)
        yield run


def found(expected: int, **faults: int) -> dict[str, int]:
    return dict.fromkeys(FAULTS, 0) | faults | {"expected": expected}


@pytest.mark.parametrize("name", [name for name in NAMES if PEERS[name].volatile])
async def test_a_topic_is_exact_and_a_fault_is_noticed(name: str, tmp_path: Path) -> None:
    async with running(name, tmp_path, durable=False) as run:
        await run.send(5)
        assert await run.judged(5 * USERS) == found(5 * USERS)
        await run.send(5, "drop")
        assert await run.judged(4 * USERS) == found(5 * USERS, lost=USERS)
        await run.send(5, "double")
        assert await run.judged(5 * USERS) == found(5 * USERS, doubled=USERS)
        await run.send(5, "misdirect")
        assert await run.judged(4 * USERS) == found(5 * USERS, lost=USERS, foreign=USERS)


NO_REPLAY = {"python-socketio"}
LOST_AT_RESTART = {"python-socketio", "socketio", "socketio-redis", "mosquitto"}


@pytest.mark.parametrize("name", NAMES)
async def test_what_is_missed_is_replayed_or_not(name: str, tmp_path: Path) -> None:
    """What the words of the durable table say, for each peer; and a fault is noticed here too."""
    async with running(name, tmp_path, durable=True) as run:
        await run.send(2 * USERS)
        assert await run.judged(2 * USERS) == found(2 * USERS)
        await run.send(USERS, "misdirect")
        assert await run.judged(USERS - 1) == found(USERS, lost=1, foreign=1)
        for restarted, forgetful in ((False, NO_REPLAY), (True, LOST_AT_RESTART)):
            run.audience.stay_away(cut=not restarted)
            if restarted:
                # Under its clients, and once more with what it has accepted since.
                await run.restart()
                await run.reopen()
            await run.send(USERS)
            if restarted:
                await run.restart()
            await run.reopen()
            assert (await run.audience.come_back(20)).unready == 0
            # What comes live is behind what is replayed.
            await run.send(USERS)
            lost = USERS if name in forgetful else 0
            assert await run.judged(2 * USERS - lost) == found(2 * USERS, lost=lost)


TINY = {
    "only": "livefeed,nats,centrifugo",
    "connections": 100,
    "messages": 20,
    "per_second": 20,
    "warm_up": 1,
    "users": 10,
    "durable_per_second": 200,
    "durable_seconds": 1,
    "missed": 20,
}


async def bench(directory: Path, **sizes: object) -> subprocess.CompletedProcess[str]:
    """Run the scenario as a user does, where there is no centrifugo."""
    words = [word for name, value in sizes.items() for word in ("--set", f"{name}={value}")]
    path = os.pathsep.join([str(ROOT), str(ROOT / "clients" / "python")])
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "livefeed.cli", "bench", "peers", "--quick", "--json", *words],
        capture_output=True,
        check=False,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(directory), "PATH": "/nowhere"},
        text=True,
        timeout=150,
    )


@pytest.mark.timeout(180)
async def test_the_volatile_table_has_its_goals_and_who_is_not_there(tmp_path: Path) -> None:
    done = await bench(tmp_path, **TINY, tables="volatile")
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["ok"]
    assert report["figures"]["volatile_ratio_nats"]["goal"] == "≤ 1"
    (table,) = report["tables"]
    titles = [PEERS[name].title for name in ("livefeed", "nats", "centrifugo")]
    assert [row["peer"] for row in table["rows"]] == titles
    assert [row["messages"] for row in table["rows"]] == ["exact", "exact", ""]
    assert table["rows"][2]["CPU µs a message"] == "not installed"
    assert "Centrifugo is not installed: put its binary `centrifugo` on PATH" in done.stderr
    assert names(tmp_path) == [], "the run leaves nothing behind"


@pytest.mark.timeout(180)
async def test_a_fault_of_livefeed_fails_the_run_and_one_of_a_peer_is_in_its_row(
    tmp_path: Path,
) -> None:
    done = await bench(tmp_path, **TINY, tables="durable", sabotage="double")
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert not report["ok"]
    assert report["figures"]["doubled"]["value"] == 1
    assert report["figures"]["durable_ratio_nats"]["goal"] == "≤ 1"
    (table,) = report["tables"]
    livefeed, nats, absent = table["rows"]
    assert absent["CPU µs a delivery"] == "not installed"
    for row in (livefeed, nats):
        assert row["messages"] == "1 doubled of 210"
        assert (row["missed while cut"], row["servers killed"]) == ("exact", "exact")


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]
