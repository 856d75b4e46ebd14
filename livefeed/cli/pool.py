"""`livefeed pool`: start workers when there is work."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from functions.pool import Pool as WorkerPool
from functions.pool import PoolPolicy
from livefeed.adapters.process import Child, Launch
from livefeed.cli.environment import command_settings
from livefeed.cli.running import (
    leave_on_signals,
    log_to_stderr,
    nats_connection,
    primary_pool,
    run,
)
from livefeed.settings import Settings
from livefeed.subjects import Lane


@click.command("pool")
def command() -> None:
    """Run the workers of this host: none while there is nothing to do."""
    log_to_stderr()
    run(_pool(command_settings()))


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
        pool = WorkerPool(
            connection,
            start_worker=_start_worker,
            database_answers=lambda: database.fetch("select 1"),
            policy=policy,
        )
        leaving = asyncio.create_task(_leave(leave, pool), name="leave")
        try:
            await pool.run()
        finally:
            leaving.cancel()


async def _leave(leave: asyncio.Event, pool: WorkerPool) -> None:
    await leave.wait()
    pool.leave()


def _start_worker(function: str, lanes: Sequence[Lane]) -> Child:
    argv = [sys.executable, "-m", "livefeed.cli", "worker", function]
    argv += ["--lanes", ",".join(lanes)] if lanes else []
    return Child(argv, Launch(log=None, directory=Path.cwd(), death_signal=signal.SIGTERM))
