"""Sending clients away: all of them when the gateway leaves, one when its token has run out."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING

from gateway.frames import Frame
from livefeed.adapters.tokens import LEEWAY_SECONDS
from livefeed.protocol import CloseCode, reconnect

if TYPE_CHECKING:
    from gateway.app import Gateway


async def drain(gateway: Gateway, seconds: float) -> None:
    """Send every client away, spread over a time; they come back to another gateway."""
    gateway.draining = True
    leaving = list(gateway.connections)
    secrets.SystemRandom().shuffle(leaving)
    pause = seconds / max(1, len(leaving))
    for connection in leaving:
        after = secrets.randbelow(int(seconds * 1000) + 1)
        frame = reconnect(after_milliseconds=after, reason="drain")
        connection.socket.send(Frame(frame))
        connection.socket.close(CloseCode.DRAIN, "come back")
        await asyncio.sleep(pause)


async def close_expired(gateway: Gateway) -> None:
    """Close connections whose token has run out, until cancelled."""
    while True:
        await asyncio.sleep(1)
        now = time.time()
        for connection in list(gateway.connections):
            if connection.principal.expires_at + LEEWAY_SECONDS < now:
                connection.socket.close(CloseCode.TOKEN_EXPIRED, "the token is expired")
