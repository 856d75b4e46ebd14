"""What the doors over HTTP share: who may come in, for which feed, from which cursor.

Behind each of them is a connection like that of a WebSocket: one recovery path, one rule of order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.types import Receive, Send

from gateway.connection import Connection
from livefeed.access import Principal
from livefeed.cursor import Cursor, resolve
from livefeed.errors import Refused
from livefeed.filters import Types
from livefeed.identity import is_feed
from livefeed.over_http import Reached, parse_position
from livefeed.protocol import ERRORS, CursorField

if TYPE_CHECKING:
    from gateway.app import Gateway


@dataclass(frozen=True, slots=True)
class Visit:
    """What a request over HTTP asks for."""

    principal: Principal
    feed: str
    types: Types
    cursor: Cursor | None
    epoch: str
    """The log's."""

    def reached(self) -> Reached:
        """Where its client is."""
        return Reached(self.feed, self.cursor)

    def connection(self, gateway: Gateway) -> Connection:
        """A connection for it, which follows nothing yet."""
        return gateway.connection(self.principal, self.epoch, self.types)

    def begin(self, gateway: Gateway, connection: Connection) -> None:
        """Greet the client and follow its feed from its cursor, which `visit` has checked."""
        cursor = self.cursor
        field = None if cursor is None else CursorField(cursor.epoch, dict(cursor.positions))
        connection.establish([])
        gateway.degraded.greet(connection)
        connection.subscribe([self.feed], field)


@asynccontextmanager
async def visit(gateway: Gateway, request: Request) -> AsyncIterator[Visit]:
    """Let a request in for as long as it is served; `Last-Event-ID` goes before `cursor`.

    Raises:
        Overloaded: There is no room for it now.
        Refused: For the origin, the token, the feed, the types or a cursor that is not its own.
        Unavailable: The log was not reached yet.
    """
    async with gateway.admit(request) as visitor:
        principal = visitor.principal
        feed = await feed_of(gateway, request, principal)
        # An `EventSource` that comes back sends the header, to the URL that it began with.
        text = request.headers.get("last-event-id") or request.query_params.get("cursor")
        cursor = parse_position(text)
        epoch = await gateway.reader.known_epoch()
        # Again: while the authorizer was asked it may have been revoked. From here to the first
        # frame nothing waits, so what is refused is refused with a status.
        gateway.revocations.check(principal)
        if cursor is not None:
            resolve(cursor, epoch=epoch, user_id=principal.user_id)
        yield Visit(principal, feed, visitor.types, cursor, epoch)


async def feed_of(gateway: Gateway, request: Request, principal: Principal) -> str:
    """The feed of the URL.

    Raises:
        Refused: It is none, or not for this token.
        Unavailable: The authorizer cannot say whether it is.
    """
    feed: str = request.path_params["feed"]
    if not is_feed(feed):
        raise Refused("feed_invalid", ERRORS["feed_invalid"])
    await gateway.authorizer.require(principal, feed)
    return feed


@contextmanager
def served(gateway: Gateway, connection: Connection) -> Iterator[None]:
    """Have a connection counted, checked and reported for as long as it is served."""
    gateway.joined(connection)
    try:
        yield
    finally:
        gateway.left(connection)


async def answer_head(send: Send, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Answer a `HEAD`: what a `GET` would begin with, and nothing to wait for."""
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
    await send({"type": "http.response.body", "body": b""})


async def gone(receive: Receive) -> None:
    """Return when the client of a request is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
