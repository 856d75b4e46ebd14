"""A whole gateway in the test's own process, where a test may give it parts of its own size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gateway.app import Gateway
from gateway.authorizer import Authorize
from gateway.feed_door import Pages
from gateway.listening import Doors, listen
from gateway.log_reader import LogReader
from gateway.replicas import Replicas
from gateway.server import Access, build_gateway, run_gateway
from gateway.snapshots import LogPages
from livefeed.adapters.postgres.log import renew_epoch_if_changed
from livefeed.adapters.postgres.pool import Pool
from livefeed.settings import load_settings
from tests.servers import Stack, http_status, until


@dataclass
class InnerGateway:
    """One that serves; to the sessions of tests/doors.py it is a stack."""

    gateway: Gateway
    url: str
    ops_url: str
    token: Callable[..., str]


def unchanged(_gateway: Gateway) -> None:
    """Leave a gateway as it is."""


@asynccontextmanager
async def inner_gateway(
    stack: Stack,
    change: Callable[[Gateway], None] = unchanged,
    authorize: Authorize | None = None,
    pages: Callable[[LogReader], Pages[Any]] = LogPages,
) -> AsyncIterator[InnerGateway]:
    """Run a gateway on the servers of a stack until the context ends.

    Args:
        stack: Whose settings it has.
        change: Called with it before it serves.
        authorize: Its authorizer.
        pages: Where its pages come from.
    """
    settings = load_settings(**stack.settings)
    pool = Pool(
        settings.database_url,
        dependency="primary",
        connections_max=settings.database_pool_connections,
        timeout_seconds=settings.database_timeout_seconds,
        application="tests",
        on_connect=renew_epoch_if_changed,
    )
    public = listen("127.0.0.1", 0, "LIVEFEED_GATEWAY_PORT")
    ops = listen("127.0.0.1", 0, "LIVEFEED_OPS_PORT")
    leave = asyncio.Event()
    access = Access(authorize=authorize, pages=pages)
    gateway = build_gateway(settings, await stack.nats(), pool, Replicas(), access)
    change(gateway)
    url, ops_url = (f"http://127.0.0.1:{one.getsockname()[1]}" for one in (public, ops))
    running = asyncio.create_task(run_gateway(settings, gateway, leave, Doors(public, ops)))
    try:

        async def ready() -> bool:
            return await http_status(f"{ops_url}/readyz") == 200

        await until(ready, what="the gateway is ready")
        yield InnerGateway(gateway, url, ops_url, stack.token)
    finally:
        leave.set()
        await running
        await pool.close()
