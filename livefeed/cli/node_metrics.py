"""What a node's agent publishes: the lag of the consumers, and the connections of a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from livefeed.adapters import http
from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.lag import consumer_lag
from livefeed.cli.client import reachable
from livefeed.cli.node_cloud import Cloud
from livefeed.cli.node_events import Events
from livefeed.cli.running import nats_connection
from livefeed.errors import LivefeedError, Unavailable
from livefeed.node import Metric, connection_metrics, lag_metrics, retry_seconds
from livefeed.settings import Settings
from livefeed.topology import LANE_STREAM, UPDATES

ASKED_SECONDS_MAX: Final = 2.0


class _Health(msgspec.Struct):
    connections: int


async def publish(
    cloud: Cloud,
    events: Events,
    read: Callable[[], Awaitable[Sequence[Metric]]],
    *,
    seconds: float,
) -> None:
    """Read figures and publish them every so many seconds, until cancelled.

    What fails is tried again, later and later; figures that could not be read are missing.
    """
    failures = 0
    while True:
        try:
            await (await cloud.sink()).put(await read())
        except LivefeedError as error:
            failures += 1
            events.fault("metrics", error)
            await asyncio.sleep(max(seconds, retry_seconds(failures, random.random())))
        else:
            failures = 0
            events.well("metrics")
            await asyncio.sleep(seconds)


class Lag:
    """Reads the lag from NATS, over a connection of its own that is opened when it is needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._open = contextlib.AsyncExitStack()
        self._connection: Connection | None = None

    async def read(self) -> Sequence[Metric]:
        """The lag of every consumer; raises Unavailable."""
        connection = await self._connected()
        lags = {stream: await consumer_lag(connection, stream) for stream in (UPDATES, LANE_STREAM)}
        return lag_metrics(lags)

    async def __aenter__(self) -> Lag:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def _connected(self) -> Connection:
        connection = self._connection
        if connection is None or connection.closed_for_good.is_set():
            self._connection = None
            await self._open.aclose()
            opening = nats_connection(self._settings, "livefeed-node-agent")
            connection = self._connection = await self._open.enter_async_context(opening)
        return connection


async def read_connections(settings: Settings, cloud: Cloud, group: str | None) -> Sequence[Metric]:
    """The connections of this node's gateway, of all its processes; raises Unavailable."""
    host = reachable(settings.ops_host)
    counts = [
        await _connections(f"http://{host}:{settings.ops_port + number}/healthz")
        for number in range(settings.gateway_workers)
    ]
    return connection_metrics(sum(counts), group=group, instance=await cloud.instance())


async def _connections(url: str) -> int:
    answer = await http.get(url, seconds_max=ASKED_SECONDS_MAX)
    try:
        return msgspec.json.decode(answer.body, type=_Health).connections
    except msgspec.DecodeError as error:
        raise Unavailable("gateway", f"{url} is no health page: {error}") from error
