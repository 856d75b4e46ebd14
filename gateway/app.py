"""The gateway's doors; on a port of their own, health and readiness."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from gateway.auth import Authenticator
from gateway.catch_up import CatchUp, HeadCheck, LogReader
from gateway.connection import Connection
from gateway.degraded import Degraded
from gateway.door import feed_of
from gateway.drain import close_expired
from gateway.events import events
from gateway.hub import Hub
from gateway.long_poll import updates
from gateway.presence import Presence, PresenceReport
from gateway.refusals import refusal
from gateway.snapshots import parse_query, snapshot
from gateway.websocket import serve
from livefeed.adapters.nats.connection import Connection as Nats
from livefeed.errors import Refused, Unavailable

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Gateway:
    """What the doors share."""

    nats: Nats
    authenticator: Authenticator
    reader: LogReader
    hub: Hub
    catch_up: CatchUp
    head_check: HeadCheck
    presence: Presence
    presence_report: PresenceReport
    degraded: Degraded
    connections: set[Connection]
    draining: bool = False

    async def run(self) -> None:
        """Everything that runs beside the doors, until cancelled."""

        async def pushes_were_lost() -> None:
            self.head_check.all_soon()

        self.nats.when_regained(pushes_were_lost)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.catch_up.run(), name="catch-up")
            tasks.create_task(self.head_check.run(), name="head-check")
            tasks.create_task(self.presence_report.run(), name="presence")
            tasks.create_task(self.degraded.run(), name="degraded")
            tasks.create_task(close_expired(self), name="expiry")

    def ready(self) -> str | None:
        """Why no client should come, or None."""
        if self.draining:
            return "draining"
        return None if self.nats.is_connected else "nats is away"


def public_app(gateway: Gateway) -> Starlette:
    """The app that clients reach."""

    async def websocket(socket: WebSocket) -> None:
        await serve(gateway, socket)

    def get(path: str, answer: Callable[[Gateway, Request], Awaitable[ASGIApp]]) -> Route:
        async def endpoint(request: Request) -> ASGIApp:
            try:
                return await answer(gateway, request)
            except (Refused, Unavailable) as error:
                if isinstance(error, Unavailable):
                    logger.warning("%s was refused: %s", request.url.path, error)
                return refusal(error)

        return Route(path, endpoint, methods=["GET"])

    cross_origin = Middleware(
        CORSMiddleware,
        allow_origins=sorted(gateway.authenticator.origins),
        allow_headers=["Authorization", "Last-Event-ID"],
        expose_headers=["Retry-After"],
    )
    return Starlette(
        routes=[
            WebSocketRoute("/v1/ws", websocket),
            get("/v1/feeds/{feed}", _feed),
            get("/v1/feeds/{feed}/events", events),
            get("/v1/feeds/{feed}/updates", updates),
        ],
        middleware=[cross_origin],
    )


def ops_app(gateway: Gateway) -> Starlette:
    """The app that balancers and people on the host reach."""

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok", "connections": len(gateway.connections)})

    async def readiness(_request: Request) -> Response:
        reason = gateway.ready()
        if reason is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "reason": reason}, status_code=503)

    return Starlette(routes=[Route("/healthz", health), Route("/readyz", readiness)])


async def _feed(gateway: Gateway, request: Request) -> Response:
    principal = gateway.authenticator.principal(request)
    feed = feed_of(request, principal)
    query = parse_query(request.query_params)
    return JSONResponse(await snapshot(gateway.reader, principal, feed, query))
