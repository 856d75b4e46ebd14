"""Whether the servers have as many connections as the pools may open: said at a gateway's start."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

from livefeed import database_health
from livefeed.adapters.postgres.gauge import Gauge
from livefeed.errors import Unavailable
from livefeed.replica_choice import server_name
from livefeed.settings import Settings

logger = logging.getLogger(__name__)

CONNECT_SECONDS_MAX: Final = 3.0
RETRY_SECONDS: Final = 10.0


async def with_room_checked(settings: Settings, work: Coroutine[Any, Any, None]) -> None:
    """Do the work of a gateway, and warn beside it when a server has too few connections."""
    checks = [
        asyncio.create_task(_warn_when_short(url, wanted), name="room")
        for url, wanted in _wanted(settings).items()
    ]
    try:
        await work
    finally:
        for check in checks:
            check.cancel()


def _wanted(settings: Settings) -> dict[str, int]:
    """What may be opened to each server, as far as this computer's settings tell."""
    gateways, each = settings.gateway_workers, settings.database_pool_connections
    of_primary = database_health.primary_connections(
        gateways=gateways,
        worker_processes=settings.worker_processes_max,
        pool_connections=each,
        has_replicas=bool(settings.replica_urls),
    )
    of_replica = database_health.replica_connections(gateways=gateways, pool_connections=each)
    return {settings.database_url: of_primary, **dict.fromkeys(settings.replica_urls, of_replica)}


async def _warn_when_short(url: str, wanted: int) -> None:
    name = server_name(url)
    there_are = await _connections_max(url, name)
    for problem in database_health.too_few_connections(wanted=wanted, there_are=there_are):
        logger.warning("%s: %s; mend: %s", name, problem.reason, problem.mend)


async def _connections_max(url: str, name: str) -> int:
    gauge = Gauge(
        url, dependency=name, seconds_max=CONNECT_SECONDS_MAX, application="livefeed-gateway-room"
    )
    while True:
        try:
            return await gauge.connections_max()
        except Unavailable:
            # A gateway starts without its database too, and says elsewhere that it is away.
            await asyncio.sleep(RETRY_SECONDS)
        finally:
            gauge.close()
