"""The gateway's doors; on a port of their own, health and readiness."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from gateway.admission import Admission, Visitor
from gateway.auth import Authenticator
from gateway.authorizer import Authorizer
from gateway.catch_up import CatchUp
from gateway.connection import Connection
from gateway.degraded import Degraded
from gateway.drain import Lifetimes
from gateway.events import events
from gateway.feed_door import Snapshots, feed_page
from gateway.fleet import Fleet
from gateway.head_check import HeadCheck
from gateway.heartbeat import Heartbeat
from gateway.hub import Hub
from gateway.load_level import Load
from gateway.log_reader import LogReader
from gateway.long_poll import updates
from gateway.memory import MemoryWatch
from gateway.presence import Presence, PresenceReport
from gateway.refusals import code_of, refusal
from gateway.revocations import RevocationWatch
from gateway.seen import SeenReport
from gateway.sessions import Sessions
from gateway.warn import Seldom
from gateway.websocket import serve
from livefeed.access import Principal
from livefeed.adapters.nats.connection import Connection as Nats
from livefeed.errors import Overloaded, Refused, Unavailable
from livefeed.filters import Types
from livefeed.protocol import ERRORS, CloseCode

logger = logging.getLogger(__name__)
REFUSED_SECONDS: Final = 1.0
"""How seldom it is said for one cause that requests are refused."""
refusals: Final = Seldom(logger, REFUSED_SECONDS)

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(slots=True)
class Gateway:
    """What the doors share."""

    nats: Nats
    authenticator: Authenticator
    authorizer: Authorizer
    reader: LogReader
    hub: Hub
    catch_up: CatchUp
    head_check: HeadCheck
    presence: Presence
    presence_report: PresenceReport
    degraded: Degraded
    seen: SeenReport
    admission: Admission
    revocations: RevocationWatch
    sessions: Sessions
    lifetimes: Lifetimes
    fleet: Fleet
    load: Load
    snapshots: Snapshots
    memory_watch: MemoryWatch
    heartbeat: Heartbeat
    """Of the streams of events: WebSockets have one below the doors."""
    connections: set[Connection]
    draining: bool = False

    def admit(self, request: HTTPConnection) -> AbstractAsyncContextManager[Visitor]:
        """Let a connection in for as long as the context lasts, or raise why not."""
        return self.admission.enter(request, draining=self.draining, level=self.load.level)

    def connection(self, principal: Principal, epoch: str, types: Types) -> Connection:
        """A connection that follows nothing yet, and has no socket."""
        return Connection(
            secrets.token_hex(8),
            principal,
            epoch=epoch,
            catch_ups=self.catch_up,
            subscriptions=self.hub,
            types=types,
        )

    def joined(self, connection: Connection) -> None:
        """A connection stands."""
        user = connection.principal.user_id
        self.connections.add(connection)
        self.head_check.add(connection)
        self.lifetimes.add(connection)
        self.presence.joined(user, connection)
        self.sessions.joined(user, connection)
        # While its handshake was answered.
        self.close_if_revoked(connection)

    def left(self, connection: Connection) -> None:
        """A connection is gone: nothing here holds it any more."""
        user = connection.principal.user_id
        self.connections.discard(connection)
        self.lifetimes.remove(connection)
        self.presence.left(user, connection)
        self.sessions.left(user, connection)
        self.head_check.remove(connection)
        connection.leave()
        connection.socket.end()

    async def run(self) -> None:
        """Everything that runs beside the doors, until cancelled."""

        async def pushes_were_lost() -> None:
            self.head_check.all_soon()
            self.sessions.all_again()

        self.nats.when_regained(pushes_were_lost)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.reader.run(), name="replicas")
                tasks.create_task(self.catch_up.run(), name="catch-up")
                tasks.create_task(self.head_check.run(), name="head-check")
                tasks.create_task(self.presence_report.run(), name="presence")
                tasks.create_task(self.degraded.run(), name="degraded")
                tasks.create_task(self.seen.run(), name="seen")
                tasks.create_task(self.authenticator.run(), name="keys")
                tasks.create_task(self.lifetimes.run(), name="lifetimes")
                tasks.create_task(self.revocations.run(self._close_revoked), name="revocations")
                tasks.create_task(self.sessions.run(), name="sessions")
                tasks.create_task(self.fleet.run(), name="fleet")
                tasks.create_task(self.load.run(), name="load")
                tasks.create_task(self.memory_watch.run(), name="memory")
        finally:
            await self.snapshots.levels.close()

    def ready(self) -> str | None:
        """Why no client should come, or None."""
        if self.draining:
            return "draining"
        if not self.revocations.known:
            return "the revocations could not be read yet"
        if not self.nats.is_connected:
            return "nats is away"
        return self.authenticator.ready()

    def close_if_revoked(self, connection: Connection) -> None:
        """Close a connection whose token was revoked while its rights were being asked for."""
        if self.revocations.covers(connection.principal):
            connection.socket.close(CloseCode.TOKEN_REVOKED, "the token was revoked")

    def _close_revoked(self) -> None:
        for connection in self.connections:
            self.close_if_revoked(connection)


def public_app(gateway: Gateway) -> Asgi:
    """The app that clients reach."""

    async def websocket(_request: Request) -> Response:
        return refusal(Refused("upgrade_required", ERRORS["upgrade_required"]))

    cross_origin = Middleware(
        CORSMiddleware,
        allow_origins=sorted(gateway.authenticator.origins),
        allow_headers=["Authorization", "Last-Event-ID"],
        expose_headers=["Retry-After"],
    )
    http = Starlette(
        routes=[
            Route("/v1/ws", websocket),
            Route("/v1/feeds/{feed}", _Door(gateway, feed_page), methods=["GET"]),
            Route("/v1/feeds/{feed}/events", _Door(gateway, events), methods=["GET"]),
            Route("/v1/feeds/{feed}/updates", _Door(gateway, updates), methods=["GET"]),
        ],
        middleware=[cross_origin],
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # Not by routes: what they await through would be kept as long as the connection lives.
        if scope["type"] == "websocket" and scope["path"] == "/v1/ws":
            await serve(gateway, WebSocket(scope, receive, send))
        else:
            await http(scope, receive, send)

    return app


def ops_app(gateway: Gateway) -> Starlette:
    """The app that balancers and people on the host reach."""

    async def health(_request: Request) -> Response:
        body = {
            "status": "ok",
            "connections": len(gateway.connections),
            "refused": gateway.admission.refused,
            "load": gateway.load.described(),
            "replicas": gateway.reader.described(),
            "caches": gateway.snapshots.levels.described(),
        }
        return JSONResponse(body)

    async def readiness(_request: Request) -> Response:
        reason = gateway.ready()
        if reason is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "reason": reason}, status_code=503)

    return Starlette(routes=[Route("/healthz", health), Route("/readyz", readiness)])


class _Door:
    """One that is opened with GET: an ASGI application."""

    def __init__(
        self, gateway: Gateway, answer: Callable[[Gateway, Request, Send], Awaitable[None]]
    ) -> None:
        self._gateway: Final = gateway
        self._answer: Final = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; nothing is refused any more when an answer has begun."""
        try:
            await self._answer(self._gateway, Request(scope, receive), send)
        except (Refused, Overloaded, Unavailable) as error:
            if isinstance(error, Unavailable):
                refusals.warn(error.dependency, f"requests are refused: {error}")
            self._gateway.admission.count(code_of(error))
            await refusal(error)(scope, receive, send)
