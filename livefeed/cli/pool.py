"""`livefeed pool`: start workers when there is work."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from functions.pool import Pool as WorkerPool
from functions.pool import PoolPolicy
from livefeed.adapters import node_lock
from livefeed.adapters.fork_server import ForkedChild, ForkServer
from livefeed.adapters.process import Child, Launch
from livefeed.cli.environment import command_settings
from livefeed.cli.running import (
    leave_on_signals,
    log_to_stderr,
    nats_connection,
    primary_pool,
    run,
)
from livefeed.cli.supervisor import our_command
from livefeed.node_settings import load_node_settings
from livefeed.settings import Settings
from livefeed.subjects import Lane

logger = logging.getLogger(__name__)

FORK_SERVER_SECONDS_MIN: Final = 30.0
"""How soon after one fork server another is tried; it may never go on this computer."""


@click.command("pool")
def command() -> None:
    """Run the workers of this host: none while there is nothing to do."""
    log_to_stderr()
    settings = command_settings()
    with node_lock.held(load_node_settings().lock_file):
        run(_pool(settings))


async def _pool(settings: Settings) -> None:
    leave = leave_on_signals()
    policy = PoolPolicy(
        processes_max=settings.worker_processes_max,
        life_seconds=settings.worker_life_seconds,
        retain_seconds=settings.retain_seconds,
    )
    async with (
        nats_connection(settings, "livefeed-pool") as connection,
        primary_pool(settings, "livefeed-pool") as database,
    ):
        workers = _Workers()
        pool = WorkerPool(
            connection,
            start_worker=workers.start,
            database_answers=lambda: database.fetch("select 1"),
            policy=policy,
        )
        leaving = asyncio.create_task(_leave(leave, pool), name="leave")
        try:
            await pool.run()
        finally:
            leaving.cancel()
            workers.close()


async def _leave(leave: asyncio.Event, pool: WorkerPool) -> None:
    await leave.wait()
    pool.leave()


class _Workers:
    """Starts workers: forked where that goes, else as any process."""

    def __init__(self) -> None:
        self._server = ForkServer("livefeed.cli.fork_server")
        self._opened_at = -math.inf
        self._open()

    def start(self, function: str, lanes: Sequence[Lane]) -> Child | ForkedChild:
        """Start a worker of a function for some lanes; raises OSError."""
        arguments = ["worker", function, *(["--lanes", ",".join(lanes)] if lanes else [])]
        child = self._server.start(arguments)
        if child is not None:
            return child
        self._open()
        launch = Launch(log=None, directory=Path.cwd(), death_signal=signal.SIGTERM)
        return Child(our_command(*arguments), launch)

    def close(self) -> None:
        """End what they are forked from."""
        self._server.close()

    def _open(self) -> None:
        now = time.monotonic()
        if self._server.is_open or now - self._opened_at < FORK_SERVER_SECONDS_MIN:
            return
        self._opened_at = now
        try:
            if sys.platform == "linux":
                self._server.open()
        except OSError as error:
            logger.warning("workers are started without a fork server: %s", error)
