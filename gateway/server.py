"""Runs the gateway: uvicorn for the doors, and the order of starting and leaving."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gateway.admission import Admission
from gateway.app import Asgi, Gateway, ops_app, public_app
from gateway.auth import Authenticator
from gateway.authorizer import Authorize, Authorizer
from gateway.caches import page_caches
from gateway.catch_up import CatchUp
from gateway.connection import Connection
from gateway.degraded import Degraded
from gateway.drain import Lifetimes, drain
from gateway.feed_door import Pages, Snapshots
from gateway.fleet import Fleet
from gateway.garbage import keep_garbage_small
from gateway.guarded_http import GuardedHttp, check_uvicorn
from gateway.head_check import HeadCheck
from gateway.heartbeat import Heartbeat
from gateway.hub import Hub
from gateway.listening import Doors, listen
from gateway.load_level import Load
from gateway.log_reader import LogReader
from gateway.memory import MemoryWatch
from gateway.presence import Presence, PresenceReport
from gateway.replicas import Replicas
from gateway.revocations import RevocationWatch
from gateway.seen import SeenReport
from gateway.sessions import Sessions
from gateway.snapshots import LogPages
from gateway.waits import first_of
from livefeed.adapters.key_set import KeySet
from livefeed.adapters.nats.connection import Connection as Nats
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.presence import PresenceTable
from livefeed.limits import INBOUND_FRAME_BYTES_MAX
from livefeed.protocol import HEARTBEAT_SECONDS
from livefeed.settings import Settings
from livefeed.shedding import ShedPolicy

logger = logging.getLogger(__name__)

SHUTDOWN_SECONDS_MAX = 2
"""How long uvicorn waits for clients that do not close."""
REFUSALS = (
    "without completing handshake",
    "without completing response",
    "Invalid HTTP request",
    "Unsupported upgrade",
)

HANDED_OVER_SECONDS = 0.5
"""How long a process that accepts no more answers handshakes before it drains."""


class Access(NamedTuple):
    """What whoever runs this gateway brings along."""

    keys: KeySet | None = None
    """The keys of `LIVEFEED_JWKS_URL`."""
    authorize: Authorize | None = None
    """The function of `LIVEFEED_AUTHORIZER`."""
    pages: Callable[[LogReader], Pages[Any]] = LogPages
    """Where the pages of feeds come from: the log, or `LIVEFEED_FEED_SOURCE`."""


class _Refusals(logging.Filter):
    """Drops what uvicorn says of requests that we refused, or that it cancelled as it left."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log the record."""
        if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
            return False
        message = record.getMessage()
        return not any(words in message for words in REFUSALS)


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the drain comes before its own shutdown."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serving = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets)
        self.serving.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none: `run_gateway` decides when to leave."""
        yield


def build_gateway(
    settings: Settings,
    nats: Nats,
    primary: Pool,
    replicas: Replicas,
    access: Access,
) -> Gateway:
    """Put the parts together."""
    name = secrets.token_hex(8)
    reader = LogReader(primary, replicas)
    hub, presence, head_check = Hub(nats), Presence(), HeadCheck(reader)
    connections: set[Connection] = set()
    revocations = RevocationWatch(nats, primary)
    authenticator = Authenticator(settings, revocations.check, access.keys)
    authorizer = Authorizer(access.authorize, clock=time.monotonic)
    policy = ShedPolicy(
        begin_share=settings.shed_share, connections_min=settings.shed_connections_min
    )
    load = Load(nats, name, settings)
    caches = page_caches(settings, nats, primary, lambda: load.cache_factor)
    return Gateway(
        nats=nats,
        authenticator=authenticator,
        authorizer=authorizer,
        reader=reader,
        hub=hub,
        catch_up=CatchUp(reader, hub),
        head_check=head_check,
        presence=presence,
        presence_report=PresenceReport(presence, PresenceTable(primary)),
        degraded=Degraded(nats, reader, head_check, connections),
        seen=SeenReport(primary),
        admission=Admission(settings, authenticator, authorizer),
        revocations=revocations,
        sessions=Sessions(nats, name, settings.connections_per_user_max),
        lifetimes=Lifetimes(settings.connection_age_seconds_max, settings.token_grace_seconds),
        fleet=Fleet(nats, name, connections, policy),
        load=load,
        snapshots=Snapshots(
            caches.levels, reader, access.pages(reader), kept=settings.snapshot_fresh_seconds > 0
        ),
        memory_watch=MemoryWatch(load.memory_share, caches.memory),
        # A comment comes in the second round without anything else.
        heartbeat=Heartbeat(HEARTBEAT_SECONDS / 2),
        connections=connections,
    )


async def run_gateway(
    settings: Settings, gateway: Gateway, leave: asyncio.Event, doors: Doors | None = None
) -> None:
    """Serve until told to leave, then drain.

    Args:
        settings: Where to listen, and how long to drain.
        gateway: What to serve.
        leave: Told to leave.
        doors: Sockets that others listen on too; without them it opens its own.

    Raises:
        Misconfigured: When a port is taken, or uvicorn is another than the guards are made for.
    """
    guarded = settings.gateway_wire == "guarded"
    if guarded:
        check_uvicorn()
    logging.getLogger("uvicorn.error").addFilter(_Refusals())
    doors = doors or Doors(
        listen(settings.gateway_host, settings.gateway_port, "LIVEFEED_GATEWAY_PORT"),
        listen(settings.ops_host, settings.ops_port, "LIVEFEED_OPS_PORT"),
    )
    public = make_server(public_app(gateway), guarded=guarded)
    ops = make_server(ops_app(gateway), guarded=guarded)
    async with asyncio.TaskGroup() as tasks:
        beside = tasks.create_task(gateway.run(), name="gateway")
        collecting = tasks.create_task(
            keep_garbage_small(lambda: len(gateway.connections)), name="garbage"
        )
        serving = tasks.create_task(public.serve([doors.public]), name="public")
        tasks.create_task(ops.serve([doors.ops]), name="ops")
        logger.info("gateway: ready on http://%s:%d", *doors.public.getsockname()[:2])
        tasks.create_task(_say_started(doors, public, ops), name="started")
        await first_of(leave.wait(), gateway.nats.closed_for_good.wait())
        if doors.handed_over.is_set():
            for server in (*public.servers, *ops.servers):
                server.close()
            # Whoever was accepted just now is served, not refused.
            await asyncio.sleep(HANDED_OVER_SECONDS)
        await drain(
            gateway, wait_seconds=settings.drain_wait_seconds, seconds=settings.drain_seconds
        )
        public.should_exit = True
        await serving
        ops.should_exit = True
        beside.cancel()
        collecting.cancel()


def make_server(app: Asgi, *, guarded: bool) -> Server:
    """A server of an app, with the guards or as uvicorn makes it."""
    http = functools.partial(GuardedHttp, heartbeat=Heartbeat(HEARTBEAT_SECONDS))
    config = uvicorn.Config(
        app,
        ws=WebSocketsSansIOProtocol,
        http=http if guarded else HttpToolsProtocol,  # type: ignore[arg-type]  # whatever makes one
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws_max_size=2 * INBOUND_FRAME_BYTES_MAX,
        ws_ping_interval=HEARTBEAT_SECONDS,
        ws_ping_timeout=HEARTBEAT_SECONDS,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS_MAX,
        backlog=4096,
    )
    return Server(config)


async def _say_started(doors: Doors, *servers: Server) -> None:
    for server in servers:
        await server.serving.wait()
    doors.say_started()
