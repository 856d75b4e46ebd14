"""Sending clients away: all of them when the gateway leaves, one when its time is over."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from gateway.connection import Connection
from gateway.frames import Frame
from livefeed.alarms import Alarms
from livefeed.limits import AGE_SPREAD_SHARE, RECONNECT_SPREAD_SECONDS
from livefeed.protocol import CloseCode, reconnect

if TYPE_CHECKING:
    from gateway.app import Gateway

ENDED_AT_ONCE: Final = 1_000
"""Connections whose time is over that are looked at in one second."""
TURN_SECONDS: Final = 0.02
"""Who is due within this goes in the same turn: a sleep for each would take longer than planned."""


async def drain(gateway: Gateway, *, wait_seconds: float, seconds: float) -> None:
    """Take nobody more, wait for the balancer to notice, then send every client away.

    Args:
        gateway: Which is not ready from now on.
        wait_seconds: How long the balancer takes to notice.
        seconds: Over how long the clients are sent.
    """
    gateway.draining = gateway.fleet.draining = True
    await asyncio.sleep(wait_seconds)
    sent = set(gateway.connections)
    await send_all_away(sent, seconds, "drain")
    # Whose handshake was under way when the draining began.
    await send_all_away(gateway.connections - sent, 0, "drain")


async def send_all_away(connections: Iterable[Connection], seconds: float, reason: str) -> None:
    """Send clients away in random order, evenly over a time."""
    leaving = list(connections)
    random.shuffle(leaving)
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    for number, connection in enumerate(leaving):
        ahead = began_at + seconds * number / len(leaving) - loop.time()
        if ahead > TURN_SECONDS:
            await asyncio.sleep(ahead)
        send_away(connection, reason)
    # The last one has its share of the time too.
    await asyncio.sleep(max(0.0, began_at + seconds - loop.time()) if leaving else 0)


def send_away(connection: Connection, reason: str) -> None:
    """Tell a client to come back to whichever gateway the balancer chooses, and close."""
    after = random.randrange(int(RECONNECT_SPREAD_SECONDS * 1000) + 1)
    frame = reconnect(after_milliseconds=after, reason=reason)
    connection.socket.send(Frame(frame))
    connection.socket.close(CloseCode.DRAIN, "come back")


class Lifetimes:
    """Ends connections whose token has run out, or that have become too old.

    Args:
        age_seconds_max: How old a connection may become.
        grace_seconds: How long it may still bring a new token when its own has run out.
    """

    def __init__(self, age_seconds_max: float, grace_seconds: float) -> None:
        self._age_seconds_max: Final = age_seconds_max
        self._grace_seconds: Final = grace_seconds
        self._too_old_at: dict[Connection, float] = {}
        self._due: Alarms[Connection] = Alarms()

    def add(self, connection: Connection) -> None:
        """End a connection when it is time."""
        age = self._age_seconds_max * (1 - AGE_SPREAD_SHARE * random.random())
        self._too_old_at[connection] = time.time() + age
        self.refreshed(connection)

    def refreshed(self, connection: Connection) -> None:
        """Its token is another one."""
        self._set(connection, connection.principal.expires_at)

    def remove(self, connection: Connection) -> None:
        """It has ended."""
        self._too_old_at.pop(connection, None)
        self._due.discard(connection)

    async def run(self) -> None:
        """End what is due, until cancelled."""
        while True:
            await asyncio.sleep(1)
            now = time.time()
            for connection in self._due.due(now, ENDED_AT_ONCE):
                self._end(connection, now)

    def _end(self, connection: Connection, now: float) -> None:
        closes_at = connection.principal.expires_at + self._grace_seconds
        if closes_at <= now:
            connection.socket.close(CloseCode.TOKEN_EXPIRED, "the token is expired")
        elif self._too_old_at[connection] <= now:
            send_away(connection, "age")
        else:
            connection.expired()
            self._set(connection, closes_at)

    def _set(self, connection: Connection, at: float) -> None:
        self._due.set(connection, min(self._too_old_at[connection], at))
