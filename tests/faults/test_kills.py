"""Everything may be killed at any moment, and the end is exact."""

import asyncio
import os
import random
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.history import Run, load_history
from livefeed.errors import OutcomeUnknown, Unavailable
from tests.servers import OwnServers, Process, Stack, until

HISTORY = Path(__file__).parents[1] / "data" / "websockets_history"
KILLS_EACH = 3
SECONDS = 24.0
"""Over how long the history is published, and so between which kills happen."""


class Killer:
    """Kills what it is told to, and has what nobody else starts again started again."""

    def __init__(self, stack: Stack, servers: OwnServers, gateway: Process) -> None:
        self._stack = stack
        self._servers = servers
        self._gateway = gateway
        self.killed: list[str] = []

    async def kill(self, victim: str) -> None:
        """`kill -9`, and up again as a supervisor would have it."""
        if victim == "worker":
            pids = await until(
                lambda: self._stack.worker_pids("deliver"), seconds=20, what="a worker runs"
            )
            os.kill(pids[0], signal.SIGKILL)
        elif victim == "gateway":
            self._gateway.kill()
            await self._gateway.start()
        elif victim == "nats":
            self._servers.nats.kill()
            await self._servers.nats.start()
        else:
            self._servers.postgres.kill()
            await self._servers.postgres.start()
        self.killed.append(victim)


@pytest.mark.timeout(240)
async def test_the_history_survives_kills_of_everything(
    own_stack: Stack, own_servers: OwnServers
) -> None:
    """A worker, the gateway, NATS and Postgres are killed three times each while it runs."""
    seed = random.randrange(2**32)
    choices = random.Random(seed)
    gateway = await own_stack.start_gateway()
    await own_stack.start_pool()
    killer = Killer(own_stack, own_servers, gateway)

    async def publish(updates: Iterable[dict[str, Any]]) -> None:
        """As a careful publisher: until all is accepted, with the same ids."""
        chunk = list(updates)

        async def accepted() -> bool:
            try:
                await own_stack.publish(chunk)
            except (OutcomeUnknown, Unavailable):
                return False
            return True

        await until(accepted, seconds=60, what="the updates are accepted")

    async def kill_everything() -> None:
        victims = ["worker", "gateway", "nats", "postgres"] * KILLS_EACH
        choices.shuffle(victims)
        for victim in victims:
            await asyncio.sleep(choices.uniform(0.2, 2 * SECONDS / len(victims) - 0.2))
            await killer.kill(victim)

    run = Run(
        load_history(HISTORY),
        url=own_stack.url,
        token_of=own_stack.token,
        publish=publish,
        seconds=SECONDS,
        cuts=20,
        seed=seed,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(kill_everything(), name="killer")
        running = tasks.create_task(run.run(), name="history")
    assert running.result().faults == [], f"seed {seed}"
    assert len(killer.killed) == 4 * KILLS_EACH
