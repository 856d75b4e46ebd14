"""What NATS servers tell on their monitoring addresses: above all, when they sync."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from livefeed.adapters import http
from livefeed.broker_health import MonitoredServer
from livefeed.errors import LivefeedError, Unavailable

SECONDS_MAX: Final = 2.0


Page = TypeVar("Page", bound=msgspec.Struct)


class _Config(msgspec.Struct):
    # The server leaves out what is false, and tells its default of 2 minutes beside `always`.
    sync_always: bool = False
    sync_interval: int = 0


class _Cluster(msgspec.Struct):
    cluster_size: int = 1


class _JetStream(msgspec.Struct):
    server_id: str
    config: _Config = msgspec.field(default_factory=_Config)
    disabled: bool = False
    meta_cluster: _Cluster = msgspec.field(default_factory=_Cluster)


class _Variables(msgspec.Struct):
    server_name: str


async def monitored_servers(urls: Sequence[str]) -> tuple[list[MonitoredServer], list[str]]:
    """The servers behind monitoring addresses, and for each that did not answer, why."""
    answers = await asyncio.gather(*map(_server, urls), return_exceptions=True)
    servers, unreachable = [], []
    for answer in answers:
        if isinstance(answer, MonitoredServer):
            servers.append(answer)
        elif isinstance(answer, LivefeedError):
            unreachable.append(str(answer))
        else:
            raise answer
    return servers, unreachable


async def _server(url: str) -> MonitoredServer:
    base = url.rstrip("/")
    jetstream, variables = await asyncio.gather(
        _page(f"{base}/jsz?config=true", _JetStream), _page(f"{base}/varz", _Variables)
    )
    return MonitoredServer(
        server_id=jetstream.server_id,
        name=variables.server_name,
        jetstream=not jetstream.disabled,
        sync_always=jetstream.config.sync_always,
        sync_interval_nanoseconds=jetstream.config.sync_interval,
        cluster_size=jetstream.meta_cluster.cluster_size,
    )


async def _page(url: str, page: type[Page]) -> Page:
    answer = await http.get(url, seconds_max=SECONDS_MAX)
    if answer.status != 200:
        raise Unavailable(url, f"it answers with status {answer.status}")
    try:
        return msgspec.json.decode(answer.body, type=page)
    except msgspec.DecodeError as error:
        raise Unavailable(url, f"it is no NATS monitoring page: {error}") from error
