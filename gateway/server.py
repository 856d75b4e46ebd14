"""Runs the gateway: uvicorn for the doors, and the order of starting and leaving."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from gateway.app import Gateway, ops_app, public_app
from gateway.auth import Authenticator
from gateway.catch_up import CatchUp
from gateway.head_check import HeadCheck
from gateway.hub import Hub
from gateway.log_reader import LogReader
from gateway.presence import Presence, PresenceReport
from livefeed.adapters.nats.connection import Connection as Nats
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.presence import PresenceTable
from livefeed.errors import Misconfigured
from livefeed.limits import INBOUND_FRAME_BYTES_MAX
from livefeed.protocol import HEARTBEAT_SECONDS
from livefeed.settings import Settings

logger = logging.getLogger(__name__)

CLOSING_SECONDS_MAX = 2
"""How long uvicorn waits for clients that do not close."""


class _Denials(logging.Filter):
    """Drops what uvicorn says of each handshake that the app refused with a status of its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log the record."""
        return "without completing handshake" not in record.getMessage()


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the drain comes before its own shutdown."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none: `run_gateway` decides when to leave."""
        yield


def build_gateway(settings: Settings, nats: Nats, primary: Pool, replica: Pool | None) -> Gateway:
    """Put the parts together."""
    reader = LogReader(primary, replica)
    hub, presence = Hub(nats), Presence()
    return Gateway(
        nats=nats,
        authenticator=Authenticator(settings),
        reader=reader,
        hub=hub,
        catch_up=CatchUp(reader, hub),
        head_check=HeadCheck(reader),
        presence=presence,
        presence_report=PresenceReport(presence, PresenceTable(primary)),
    )


async def run_gateway(settings: Settings, gateway: Gateway, leave: asyncio.Event) -> None:
    """Serve until told to leave, then drain.

    Raises:
        Misconfigured: When a port is taken.
    """
    logging.getLogger("uvicorn.error").addFilter(_Denials())
    listening = _listen(settings.gateway_host, settings.gateway_port, "LIVEFEED_GATEWAY_PORT")
    ops_listening = _listen(settings.ops_host, settings.ops_port, "LIVEFEED_OPS_PORT")
    public, ops = _server(public_app(gateway)), _server(ops_app(gateway))
    async with asyncio.TaskGroup() as tasks:
        beside = tasks.create_task(gateway.run(), name="gateway")
        serving = tasks.create_task(public.serve([listening]), name="public")
        tasks.create_task(ops.serve([ops_listening]), name="ops")
        logger.info("gateway: ready on http://%s:%d", *listening.getsockname()[:2])
        await _first(leave.wait(), gateway.nats.closed_for_good.wait())
        await gateway.drain(settings.drain_seconds)
        public.should_exit = True
        await serving
        ops.should_exit = True
        beside.cancel()


def _server(app: Starlette) -> Server:
    config = uvicorn.Config(
        app,
        ws="websockets-sansio",
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws_max_size=2 * INBOUND_FRAME_BYTES_MAX,
        ws_ping_interval=HEARTBEAT_SECONDS,
        ws_ping_timeout=HEARTBEAT_SECONDS,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=CLOSING_SECONDS_MAX,
        backlog=4096,
    )
    return Server(config)


def _listen(host: str, port: int, setting: str) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        detail = f"{host}:{port} cannot be used ({error.strerror}); set {setting} to a free port"
        raise Misconfigured(detail) from error
    listening.listen(4096)
    listening.setblocking(False)
    return listening


async def _first(*waits: Coroutine[object, object, object]) -> None:
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
