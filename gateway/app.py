"""The gateway's doors: WebSocket and snapshot; on a port of their own, health and readiness."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.auth import Authenticator, offered_subprotocols
from gateway.catch_up import CatchUp
from gateway.connection import Connection
from gateway.head_check import HeadCheck
from gateway.hub import Hub
from gateway.log_reader import LogReader
from gateway.presence import Presence, PresenceReport
from gateway.snapshots import parse_query, snapshot
from gateway.socket import Socket
from livefeed.access import Principal
from livefeed.adapters.nats.connection import Connection as Nats
from livefeed.adapters.tokens import LEEWAY_SECONDS
from livefeed.errors import AccessRefused, FrameRefused, Refused, Unavailable
from livefeed.identity import is_feed
from livefeed.protocol import (
    ERRORS,
    SUBPROTOCOL,
    CloseCode,
    Refresh,
    Subscribe,
    Unsubscribe,
    Visibility,
    decode_frame,
    reconnect,
)

logger = logging.getLogger(__name__)

BAD_FRAMES_MAX = 10
"""Bad frames that a connection may send before it is closed."""
STATUS = {
    "token_invalid": 401,
    "token_expired": 401,
    "feed_forbidden": 403,
    "origin_forbidden": 403,
    "feed_invalid": 400,
    "parameter_invalid": 400,
}


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
    connections: set[Connection] = field(default_factory=set)
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
            tasks.create_task(self._close_expired(), name="expiry")

    async def drain(self, seconds: float) -> None:
        """Send every client away, spread over a time; they come back to another gateway."""
        self.draining = True
        leaving = list(self.connections)
        secrets.SystemRandom().shuffle(leaving)
        pause = seconds / max(1, len(leaving))
        for connection in leaving:
            after = secrets.randbelow(int(seconds * 1000) + 1)
            frame = reconnect(after_milliseconds=after, reason="drain")
            connection.socket.send(frame.decode())
            connection.socket.close(CloseCode.DRAIN, "come back")
            await asyncio.sleep(pause)

    def ready(self) -> str | None:
        """Why no client should come, or None."""
        if self.draining:
            return "draining"
        return None if self.nats.is_connected else "nats is away"

    async def _close_expired(self) -> None:
        while True:
            await asyncio.sleep(1)
            now = time.time()
            for connection in list(self.connections):
                if connection.principal.expires_at + LEEWAY_SECONDS < now:
                    connection.socket.close(CloseCode.TOKEN_EXPIRED, "the token is expired")


def public_app(gateway: Gateway) -> Starlette:
    """The app that clients reach."""

    async def websocket(socket: WebSocket) -> None:
        await _serve(gateway, socket)

    async def feed(request: Request) -> Response:
        return await _feed(gateway, request)

    return Starlette(
        routes=[
            WebSocketRoute("/v1/ws", websocket),
            Route("/v1/feeds/{feed}", feed, methods=["GET"]),
        ]
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
    feed = request.path_params["feed"]
    try:
        principal = gateway.authenticator.principal(request)
        if not is_feed(feed):
            raise Refused("feed_invalid", ERRORS["feed_invalid"])
        if not principal.may_follow(feed):
            raise AccessRefused("feed_forbidden", ERRORS["feed_forbidden"])
        query = parse_query(request.query_params)
        return JSONResponse(await snapshot(gateway.reader, principal, feed, query))
    except Refused as refused:
        return _refusal(refused)
    except Unavailable as error:
        logger.warning("a snapshot could not be read: %s", error)
        return _problem(503, "unavailable", ERRORS["unavailable"], retryable=True)


async def _serve(gateway: Gateway, websocket: WebSocket) -> None:
    try:
        principal, feeds = _admit(gateway, websocket)
        # One that is out of date is found out by the first page, and answered by a reset.
        epoch = gateway.reader.epoch or (await gateway.reader.heads([])).epoch
    except Refused as refused:
        await websocket.send_denial_response(_refusal(refused))
        return
    except Unavailable as error:
        logger.warning("a client was refused: %s", error)
        answer = _problem(503, "unavailable", ERRORS["unavailable"], retryable=True)
        await websocket.send_denial_response(answer)
        return
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in offered_subprotocols(websocket) else None
    await websocket.accept(subprotocol)
    connection = Connection(
        secrets.token_hex(8),
        principal,
        epoch=epoch,
        catch_ups=gateway.catch_up,
        subscriptions=gateway.hub,
    )
    connection.socket = Socket(websocket, on_room=connection.has_room)
    writer = asyncio.create_task(connection.socket.write(), name=f"write-{connection.id}")
    gateway.connections.add(connection)
    gateway.presence.joined(principal.user_id, connection)
    try:
        connection.establish(feeds)
        gateway.head_check.add(connection)
        await _read(gateway, websocket, connection)
    except WebSocketDisconnect:
        pass
    finally:
        gateway.connections.discard(connection)
        gateway.presence.left(principal.user_id, connection)
        gateway.head_check.remove(connection)
        connection.leave()
        writer.cancel()


def _admit(gateway: Gateway, websocket: WebSocket) -> tuple[Principal, list[str]]:
    """Who comes, and which feeds are asked for; cheapest checks first."""
    if gateway.draining:
        raise Unavailable("gateway", "it is draining")
    if not gateway.authenticator.allows_origin(websocket):
        raise AccessRefused("origin_forbidden", "pages of this origin may not connect")
    principal = gateway.authenticator.principal(websocket)
    feeds = _feeds_of(websocket)
    if feeds and not any(principal.may_follow(feed) for feed in feeds):
        raise AccessRefused("feed_forbidden", ERRORS["feed_forbidden"])
    return principal, feeds


def _feeds_of(request: HTTPConnection) -> list[str]:
    text = request.query_params.get("feeds", "")
    feeds = [feed for feed in text.split(",") if feed]
    if not all(map(is_feed, feeds)):
        raise Refused("feed_invalid", ERRORS["feed_invalid"])
    return feeds


async def _read(gateway: Gateway, websocket: WebSocket, connection: Connection) -> None:
    """Read frames until the client is gone or has sent too many bad ones."""
    bad_frames = 0
    while bad_frames < BAD_FRAMES_MAX:
        await connection.socket.room()
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        try:
            if text is None:
                raise FrameRefused("frame_invalid", "frames are text")
            _carry_out(gateway, connection, text)
        except Refused as refused:
            bad_frames += 1
            connection.error(refused.code, refused.detail)
    connection.socket.close(CloseCode.BAD_FRAME, "too many bad frames")
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


def _carry_out(gateway: Gateway, connection: Connection, text: str) -> None:
    frame = decode_frame(text)
    # The next report looks at what has become of it, also when it is refused half-way.
    gateway.presence.changed(connection.principal.user_id)
    if isinstance(frame, Subscribe):
        connection.subscribe(frame.feeds, frame.cursor)
    elif isinstance(frame, Unsubscribe):
        connection.unsubscribe(frame.feeds)
    elif isinstance(frame, Refresh):
        principal = gateway.authenticator.verify(frame.token)
        if principal.user_id != connection.principal.user_id:
            raise AccessRefused("token_invalid", "it is another user's")
        connection.refresh(principal)
    elif isinstance(frame, Visibility):
        connection.visible = frame.state == "visible"
    # `seen` is a hint; nothing here depends on it yet.


def _refusal(refused: Refused) -> Response:
    status = STATUS.get(refused.code, 400)
    return _problem(status, refused.code, refused.detail, retryable=False)


def _problem(status: int, code: str, message: str, *, retryable: bool) -> Response:
    body = {"error": {"code": code, "message": message, "retryable": retryable}}
    headers = {"Retry-After": "1"} if retryable else {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="livefeed"'
    return Response(
        json.dumps(body), status_code=status, headers=headers, media_type="application/json"
    )
