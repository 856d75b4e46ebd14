"""`livefeed worker`: run one function until it is time to leave."""

from __future__ import annotations

import asyncio
import time

import click

from functions.deliver import Deliver
from functions.function import Function
from functions.prioritize import Prioritize
from functions.worker import Summary, Worker, WorkerPolicy
from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.publish import Publisher
from livefeed.adapters.postgres.log import Log
from livefeed.adapters.postgres.pool import Pool
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

FUNCTIONS = ("prioritize", "deliver")


@click.command("worker")
@click.argument("function", type=click.Choice(FUNCTIONS))
@click.option("--once", is_flag=True, help="Handle what is due, then leave.")
def command(function: str, *, once: bool) -> None:
    """Run one worker of FUNCTION; prints one line of JSON when it leaves."""
    log_to_stderr()
    summary = run(_work(command_settings(), function, once=once))
    click.echo(summary.line())


async def _work(settings: Settings, name: str, *, once: bool) -> Summary:
    leave = leave_on_signals()
    policy = WorkerPolicy(
        idle_seconds=settings.worker_idle_seconds,
        life_seconds=settings.worker_life_seconds,
        once=once,
    )
    async with (
        nats_connection(settings, f"livefeed-{name}") as connection,
        primary_pool(settings, f"livefeed-{name}") as pool,
    ):
        publisher = Publisher(connection)
        publisher.start()
        function = _function(name, settings, connection, publisher, pool)
        worker = Worker(function, connection, publisher, policy)
        leaving = asyncio.create_task(_leave(leave, worker), name="leave")
        try:
            return await worker.run()
        finally:
            leaving.cancel()


async def _leave(leave: asyncio.Event, worker: Worker) -> None:
    await leave.wait()
    worker.leave("signal")


def _function(
    name: str, settings: Settings, connection: Connection, publisher: Publisher, pool: Pool
) -> Function:
    if name == "prioritize":
        return Prioritize(publisher, now_microseconds=lambda: time.time_ns() // 1000)
    windows: dict[Lane, float] = {
        "high": 0.0,
        "medium": settings.window_medium_seconds,
        "low": settings.window_low_seconds,
    }
    return Deliver(Log(pool), connection, windows=windows)
