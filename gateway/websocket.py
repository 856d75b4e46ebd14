"""The WebSocket's door: serves one connection, and reads its frames."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.admission import Visitor
from gateway.auth import offered_subprotocols
from gateway.connection import Connection
from gateway.refusals import code_of, refusal
from gateway.socket import open_socket
from livefeed.admission import TokenBucket
from livefeed.errors import AccessRefused, FrameRefused, Overloaded, Refused, Unavailable
from livefeed.limits import COMMANDS_A_SECOND, COMMANDS_BURST
from livefeed.protocol import (
    ERRORS,
    SUBPROTOCOL,
    CloseCode,
    Refresh,
    Seen,
    Subscribe,
    Unsubscribe,
    Visibility,
    decode_frame,
)

if TYPE_CHECKING:
    from gateway.app import Gateway

logger = logging.getLogger(__name__)

BAD_FRAMES_MAX: Final = 10
"""Bad frames that a connection may send before it is closed."""


async def serve(gateway: Gateway, websocket: WebSocket) -> None:
    """Serve one client from its handshake to its end."""
    async with AsyncExitStack() as place:
        try:
            visitor = await place.enter_async_context(gateway.admit(websocket))
            epoch = await gateway.reader.known_epoch()
        except (Refused, Overloaded, Unavailable) as error:
            if isinstance(error, Unavailable):
                logger.warning("a client was refused: %s", error)
            gateway.admission.count(code_of(error))
            await websocket.send_denial_response(refusal(error))
            return
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in offered_subprotocols(websocket) else None
        await websocket.accept(subprotocol)
        await _stay(gateway, websocket, visitor, epoch)


async def _stay(gateway: Gateway, websocket: WebSocket, visitor: Visitor, epoch: str) -> None:
    connection = gateway.connection(visitor.principal, epoch, visitor.types)
    connection.socket = open_socket(websocket, on_room=connection.room_changed)
    gateway.joined(connection)
    try:
        connection.establish(visitor.feeds, visitor.refused)
        gateway.degraded.greet(connection)
        await _read(gateway, websocket, connection)
    except WebSocketDisconnect:
        pass
    finally:
        gateway.left(connection)


async def _read(gateway: Gateway, websocket: WebSocket, connection: Connection) -> None:
    """Read frames until the client is gone or has sent too many bad ones."""
    bad_frames, clock = 0, asyncio.get_running_loop().time
    commands = TokenBucket(COMMANDS_A_SECOND, COMMANDS_BURST, clock())
    while bad_frames < BAD_FRAMES_MAX:
        await connection.socket.room()
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        try:
            if not commands.take(clock()):
                raise FrameRefused("too_many_frames", ERRORS["too_many_frames"])
            if text is None:
                raise FrameRefused("frame_invalid", "frames are text")
            await _carry_out(gateway, connection, text)
        except Unavailable as error:
            logger.warning("a frame could not be carried out: %s", error)
            connection.error("unavailable", ERRORS["unavailable"])
        except Refused as refused:
            bad_frames += 1
            connection.error(refused.code, refused.detail)
    connection.socket.close(CloseCode.BAD_FRAME, "too many bad frames")
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


async def _carry_out(gateway: Gateway, connection: Connection, text: str) -> None:
    frame = decode_frame(text)
    # The next report looks at what has become of it, also when it is refused half-way.
    gateway.presence.changed(connection.principal.user_id)
    if isinstance(frame, Subscribe):
        refused = await gateway.authorizer.refusals(connection.principal, frame.feeds)
        connection.subscribe(frame.feeds, frame.cursor, refused)
    elif isinstance(frame, Unsubscribe):
        connection.unsubscribe(frame.feeds)
    elif isinstance(frame, Refresh):
        principal = await gateway.authenticator.verify(frame.token)
        if principal.user_id != connection.principal.user_id:
            raise AccessRefused("token_invalid", "it is another user's")
        refused = await gateway.authorizer.refusals(principal, connection.feeds)
        connection.refresh(principal, refused)
        gateway.lifetimes.refreshed(connection)
        # While the authorizer was asked.
        gateway.close_if_revoked(connection)
    elif isinstance(frame, Visibility):
        connection.visible = frame.state == "visible"
    elif isinstance(frame, Seen):
        gateway.seen.note(connection, frame)
