"""What every long-running command does: its loop, its signals, its log."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

import uvloop

from livefeed.adapters.nats.connection import Connection, close, connect
from livefeed.adapters.postgres.log import renew_epoch_if_changed
from livefeed.adapters.postgres.pool import OnConnect, Pool
from livefeed.errors import Unavailable
from livefeed.settings import Settings

logger = logging.getLogger(__name__)

SAME_SIGNAL_SECONDS: Final = 0.3
"""A signal that follows another so soon is the same one: what runs a command in a terminal, and
`timeout`, send theirs to the process and to its group."""


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


def leave_on_signals(at_once: Callable[[signal.Signals], None] | None = None) -> asyncio.Event:
    """An event that SIGTERM and SIGINT set.

    Args:
        at_once: Called with a second one: whoever sends it does not want to wait.
    """
    leave = asyncio.Event()
    loop = asyncio.get_running_loop()
    told_at: float | None = None

    def told(number: signal.Signals) -> None:
        nonlocal told_at
        if told_at is None:
            told_at = loop.time()
            leave.set()
        elif at_once is not None and loop.time() - told_at >= SAME_SIGNAL_SECONDS:
            at_once(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    return leave


def leave_now(number: signal.Signals) -> None:
    """End by the signal itself, without anything that could be waited for."""
    logger.warning("told to leave once more: leaving at once")
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@contextlib.asynccontextmanager
async def nats_connection(settings: Settings, name: str) -> AsyncIterator[Connection]:
    """A connection for a command's time."""
    connection = await connect(settings.nats_servers, name=name, access=settings.nats_access)
    try:
        yield connection
    finally:
        await close(connection)


def pool_of(
    settings: Settings,
    url: str,
    *,
    dependency: str,
    application: str,
    lookups: bool = True,
    on_connect: OnConnect | None = None,
) -> Pool:
    """A pool of connections to one server, as large and as patient as the settings say."""
    return Pool(
        url,
        dependency=dependency,
        connections_max=settings.database_pool_connections,
        timeout_seconds=settings.database_timeout_seconds,
        wait_seconds=settings.database_wait_seconds,
        application=application,
        lookups=lookups,
        on_connect=on_connect,
    )


@contextlib.asynccontextmanager
async def primary_pool(
    settings: Settings, application: str, *, lookups: bool = True
) -> AsyncIterator[Pool]:
    """A pool of connections to the primary for a command's time."""
    pool = pool_of(
        settings,
        settings.database_url,
        dependency="primary",
        application=application,
        lookups=lookups,
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
