"""The gateway's replicas, as the settings name them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from gateway.replicas import Replica, Replicas
from livefeed.adapters.postgres.gauge import Gauge
from livefeed.cli.running import pool_of
from livefeed.limits import REPLICA_LOOK_SECONDS
from livefeed.replica_choice import server_name
from livefeed.settings import Settings


@contextlib.asynccontextmanager
async def replica_pools(settings: Settings, application: str) -> AsyncIterator[Replicas]:
    """A pool for each replica, and what looks how far behind it is."""
    primary = _gauge(settings.database_url, "primary", application)
    each = [_replica(settings, url, application) for url in settings.replica_urls]
    try:
        yield Replicas(primary, each)
    finally:
        primary.close()
        for one in each:
            one.gauge.close()
        await asyncio.gather(*(one.pool.close() for one in each))


def _replica(settings: Settings, url: str, application: str) -> Replica:
    name = server_name(url)
    pool = pool_of(settings, url, dependency=f"replica {name}", application=application)
    return Replica(name, pool, _gauge(url, f"replica {name}", application))


def _gauge(url: str, dependency: str, application: str) -> Gauge:
    return Gauge(
        url,
        dependency=dependency,
        seconds_max=REPLICA_LOOK_SECONDS,
        application=f"{application}-lag",
    )
