"""`livefeed worker`: run one function until it is time to leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping

import click

from functions.audience import AudiencePage, AudienceResolver, ContextCache
from functions.deliver import Deliver
from functions.fleet_load import FleetLoad
from functions.flush import Flush
from functions.function import Function
from functions.life import Summary, WorkerPolicy
from functions.prioritize import Prioritize
from functions.retain import Retain, plan
from functions.retain import Summary as RetainSummary
from functions.shortcut import Shortcut
from functions.worker import Worker
from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.publish import Publisher
from livefeed.adapters.postgres.context import read_contexts, read_followers
from livefeed.adapters.postgres.log import Log
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.retention import Bounds
from livefeed.cli.environment import command_settings
from livefeed.cli.plugins import audience_resolver, load_function
from livefeed.cli.running import (
    leave_on_signals,
    log_to_stderr,
    nats_connection,
    primary_pool,
    run,
    spare_the_collector,
)
from livefeed.priority import LaneFunction
from livefeed.settings import Settings
from livefeed.subjects import LANES, PLACES, Lane
from livefeed.window import PRIORITIZE_SHARE

BULK_NICENESS = 10
"""By how much a worker gives way that serves no urgent lane."""
FUNCTIONS = ("prioritize", "deliver", "retain")


@click.command("worker")
@click.argument("function", type=click.Choice(FUNCTIONS))
@click.option("--once", is_flag=True, help="Handle what is due, all of it, then leave.")
@click.option(
    "--lanes", "names", default=",".join(LANES), help="Serve these; others serve the rest."
)
def command(function: str, *, once: bool, names: str) -> None:
    """Run one worker of FUNCTION; prints one line of JSON when it leaves."""
    log_to_stderr()
    settings = command_settings()
    spare_the_collector()
    lanes = _lanes(names)
    if "high" not in lanes:
        # On a computer that is short of CPU, high goes first.
        os.nice(BULK_NICENESS)
    # No messages drive retain: it does its steps, and leaves.
    work = _retain(settings, once=once) if function == "retain" else None
    summary = run(work or _work(settings, function, lanes, once=once))
    click.echo(summary.line())


def _lanes(names: str) -> list[Lane]:
    wanted = names.split(",")
    if not set(wanted) <= set(LANES):
        raise click.BadParameter(f"lanes are {', '.join(LANES)}", param_hint="--lanes")
    return [lane for lane in LANES if lane in wanted]


async def _retain(settings: Settings, *, once: bool) -> RetainSummary:
    leave = leave_on_signals()
    async with (
        nats_connection(settings, "livefeed-retain") as connection,
        primary_pool(settings, "livefeed-retain", lookups=False) as pool,
    ):
        retain = Retain(connection, pool, Bounds(), keep_seconds=settings.stream_keep_seconds)
        wanted = plan(
            once=once,
            every_seconds=settings.retain_seconds,
            place=random.random(),
            chance=random.random(),
        )
        leaving = asyncio.create_task(_leave(leave, retain.leave), name="leave")
        try:
            return await retain.run(wanted)
        finally:
            leaving.cancel()


async def _work(settings: Settings, name: str, lanes: list[Lane], *, once: bool) -> Summary:
    leave = leave_on_signals()
    policy = WorkerPolicy(
        idle_seconds=settings.worker_idle_seconds,
        life_seconds=settings.worker_life_seconds,
        memory_bytes_max=settings.worker_memory_bytes_max,
        once=once,
    )
    async with (
        nats_connection(settings, f"livefeed-{name}") as connection,
        _bulk_connection(settings, name, lanes) as bulk,
        primary_pool(settings, f"livefeed-{name}") as pool,
    ):
        publisher = Publisher(connection)
        publisher.start()
        load = FleetLoad()
        function = _function(name, settings, connection, publisher, pool, load)
        worker = Worker(function, connection, publisher, policy, bulk=bulk, lanes=lanes, load=load)
        leaving = asyncio.create_task(_leave(leave, lambda: worker.leave("signal")), name="leave")
        try:
            return await worker.run()
        finally:
            leaving.cancel()


@contextlib.asynccontextmanager
async def _bulk_connection(
    settings: Settings, name: str, lanes: list[Lane]
) -> AsyncIterator[Connection | None]:
    """A connection for medium and low beside high; where only the one is served, it has its own."""
    if any(not set(lanes) & set(place) for place in PLACES):
        yield None
        return
    async with nats_connection(settings, f"livefeed-{name}-bulk") as connection:
        yield connection


async def _leave(asked: asyncio.Event, leave: Callable[[], None]) -> None:
    await asked.wait()
    leave()


def _function(
    name: str,
    settings: Settings,
    connection: Connection,
    publisher: Publisher,
    pool: Pool,
    load: FleetLoad,
) -> Function:
    windows: dict[Lane, float] = {
        "high": 0.0,
        "medium": settings.window_medium_seconds,
        "low": settings.window_low_seconds,
    }
    flush = Flush(Log(pool), connection, is_traced=lambda: load.traces)
    if name == "prioritize":
        return _prioritize(settings, publisher, pool, flush, windows)
    return Deliver(flush, windows=windows)


def _prioritize(
    settings: Settings,
    publisher: Publisher,
    pool: Pool,
    flush: Flush,
    windows: Mapping[Lane, float],
) -> Prioritize:
    lane_of: LaneFunction = load_function(settings.lane_function, "LIVEFEED_LANE_FUNCTION")
    contexts = ContextCache(
        lambda recipients: read_contexts(pool, recipients),
        clock=time.monotonic,
        jitter=random.random,
    )
    return Prioritize(
        publisher,
        contexts=contexts,
        resolver=_resolver(settings, pool),
        lane_of=lane_of,
        shortcut=Shortcut(flush, clock=time.monotonic, jitter=random.random),
        windows={lane: seconds * PRIORITIZE_SHARE for lane, seconds in windows.items()},
    )


def _resolver(settings: Settings, pool: Pool) -> AudienceResolver:
    own = audience_resolver(settings)
    if own is not None:
        return own

    async def followers(page: AudiencePage) -> list[str]:
        return await read_followers(
            pool,
            page.actor,
            after=page.after,
            removal=page.removal,
            accepted_at=page.accepted_at,
            limit=page.limit,
        )

    return followers
