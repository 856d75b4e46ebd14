"""What every long-running command does: its loop, its signals, its log."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import uvloop

from livefeed.adapters.nats.connection import Connection, close, connect
from livefeed.adapters.postgres.log import renew_epoch_if_changed
from livefeed.adapters.postgres.pool import Pool
from livefeed.errors import Unavailable
from livefeed.settings import Settings


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a command's work under uvloop."""
    return uvloop.run(work)


def spare_the_collector() -> None:
    """Have the cyclic garbage collector look seldom, and never at what is there from the start.

    Messages in hand are thousands of objects without cycles: looking at them again and again took a
    quarter of the time of reading them.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def log_to_stderr(level: int = logging.INFO) -> None:
    """One line a record, with the time."""
    logging.basicConfig(
        stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Its errors come to us as exceptions or through callbacks.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    # It logs each address that it asks.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def leave_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    leave = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave.set)
    return leave


@contextlib.asynccontextmanager
async def nats_connection(settings: Settings, name: str) -> AsyncIterator[Connection]:
    """A connection for a command's time."""
    connection = await connect(settings.nats_servers, name=name)
    try:
        yield connection
    finally:
        await close(connection)


@contextlib.asynccontextmanager
async def primary_pool(settings: Settings, application: str) -> AsyncIterator[Pool]:
    """A pool of connections to the primary for a command's time."""
    pool = Pool(
        settings.database_url,
        dependency="primary",
        connections_max=settings.database_pool_connections,
        timeout_seconds=settings.database_timeout_seconds,
        wait_seconds=settings.database_wait_seconds,
        application=application,
        on_connect=renew_epoch_if_changed,
    )
    try:
        yield pool
    finally:
        await pool.close()


@contextlib.asynccontextmanager
async def reached_primary(settings: Settings, application: str) -> AsyncIterator[Pool]:
    """The same for a command that a person gives: when nobody answers it says what to do."""
    async with primary_pool(settings, application) as pool:
        try:
            yield pool
        except Unavailable as error:
            if not isinstance(error.__cause__, OSError):
                raise
            mend = "start it with `livefeed up`, or set LIVEFEED_DATABASE_URL"
            raise Unavailable(error.dependency, f"{error.detail}; {mend}") from error
