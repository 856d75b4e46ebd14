"""python-socketio on uvicorn: rooms, and a `publish` event that is sent on to one of them.

Run by the benchmark with the interpreter of its own environment; the argument is the port.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import socketio
import uvicorn

# What is not asked for costs nothing: no polling, no logs, no cookies.
server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], cors_allowed_origins=[])


async def connect(sid: str, _environ: dict[str, Any], auth: dict[str, str] | None) -> None:
    """Put a client into the room that it asks for."""
    if auth and "room" in auth:
        await server.enter_room(sid, auth["room"])


async def publish(_sid: str, room: str, message: dict[str, Any]) -> None:
    """Send a message to everyone in a room, and tell the publisher that it was."""
    await server.emit("message", message, room=room)


server.on("connect", connect)
server.on("publish", publish)

if __name__ == "__main__":
    # With the defaults most of its time goes into looking through what all connections hold, which
    # is never garbage: with 10,000 of them a message costs three times as much.
    gc.set_threshold(700_000, 50, 1_000)
    uvicorn.run(
        socketio.ASGIApp(server),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        backlog=4096,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        access_log=False,
        log_level="warning",
    )
