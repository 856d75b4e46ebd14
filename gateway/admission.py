"""Who may come in: what is checked before a connection is accepted, the cheapest first."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from starlette.requests import HTTPConnection

from gateway.auth import Authenticator
from gateway.authorizer import Authorizer
from livefeed.access import Principal
from livefeed.admission import Counts, TokenBucket, address_key, client_address
from livefeed.errors import AccessRefused, Overloaded, Refused, Unavailable
from livefeed.filters import Types, parse_types
from livefeed.identity import is_feed
from livefeed.limits import ACCEPT_BURST_SECONDS
from livefeed.protocol import ERRORS, FEEDS_MAX
from livefeed.settings import Settings

logger = logging.getLogger(__name__)

WARN_SECONDS: Final = 10.0
"""How seldom refusals of one code are logged."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who has come in, and what for."""

    principal: Principal
    feeds: list[str]
    refused: dict[str, str]
    """What the authorizer says of some of them: error codes by feed."""
    types: Types
    """Of the updates that are wanted."""


class Admission:
    """Lets connections in while there is room, whichever door they come by."""

    def __init__(
        self, settings: Settings, authenticator: Authenticator, authorizer: Authorizer
    ) -> None:
        self._settings: Final = settings
        self._authenticator: Final = authenticator
        self._authorizer: Final = authorizer
        rate = settings.accepts_a_second
        # One always passes, however small the rate.
        burst = max(1.0, rate * ACCEPT_BURST_SECONDS)
        self._accepts: Final = TokenBucket(rate, burst, time.monotonic())
        self._addresses: Final = Counts()
        self.inside = 0
        """Connections that are in, with those whose handshake is under way."""
        self.refused: dict[str, int] = {}
        """How often somebody was, by error code."""
        self._warned_at: dict[str, float] = {}

    @asynccontextmanager
    async def enter(
        self, request: HTTPConnection, *, draining: bool, level: str
    ) -> AsyncIterator[Visitor]:
        """Let a connection in for as long as the context lasts.

        Args:
            request: Its handshake, or the request of another door that stays.
            draining: Whether the gateway is leaving.
            level: The load level.

        Raises:
            Overloaded: There is no room for it now.
            Refused: For its origin, token or feeds.
            Unavailable: It cannot be said now whether its token is good.
        """
        self._check_room(draining=draining, level=level)
        address = self._check_address(request)
        # Last: who is refused for what is its own uses up nobody's.
        self._check_rate()
        # Counted before its rights are asked for: that may wait, and others come meanwhile.
        self.inside += 1
        if address is not None:
            self._addresses.add(address)
        try:
            yield await self._check_rights(request)
        finally:
            self.inside -= 1
            if address is not None:
                self._addresses.remove(address)

    def count(self, code: str) -> None:
        """Somebody was refused, at whichever door."""
        self.refused[code] = self.refused.get(code, 0) + 1

    def _check_room(self, *, draining: bool, level: str) -> None:
        if draining:
            raise Overloaded("draining", ERRORS["draining"])
        if level == "critical":
            self._warn("busy", "connections are refused: the load is critical")
            raise Overloaded("busy", ERRORS["busy"])
        if self.inside >= self._settings.connections_max:
            self._warn("full", "connections are refused: LIVEFEED_CONNECTIONS_MAX is reached")
            raise Overloaded("full", ERRORS["full"])

    def _check_address(self, request: HTTPConnection) -> str | None:
        """Under which name the connection is counted, if it is."""
        peer = request.client.host if request.client else ""
        forwarded = request.headers.getlist("x-forwarded-for")
        address = client_address(peer, forwarded, self._settings.proxy_networks)
        key = address_key(address)
        if key and self._addresses.of(key) >= self._settings.connections_per_address_max:
            mend = "if that is a proxy of yours, add it to LIVEFEED_TRUSTED_PROXIES"
            self._warn("too_many_connections", f"connections from {key} are refused; {mend}")
            raise Overloaded("too_many_connections", ERRORS["too_many_connections"])
        return key

    def _check_rate(self) -> None:
        if not self._accepts.take(time.monotonic()):
            self._warn("busy", "connections are refused: too many come at once")
            raise Overloaded("busy", ERRORS["busy"])

    async def _check_rights(self, request: HTTPConnection) -> Visitor:
        if not self._authenticator.allows_origin(request):
            raise AccessRefused("origin_forbidden", ERRORS["origin_forbidden"])
        principal = await self._authenticator.principal(request)
        feeds = _feeds_of(request)
        types = parse_types(request.query_params.get("types"))
        allowed = [feed for feed in feeds if principal.may_follow(feed)]
        refused = await self._authorizer.refusals(principal, allowed)
        if feeds and len(refused) == len(allowed):
            if "unavailable" in refused.values():
                raise Unavailable("authorizer", "it does not say which feeds are allowed")
            raise AccessRefused("feed_forbidden", ERRORS["feed_forbidden"])
        return Visitor(principal, feeds, refused, types)

    def _warn(self, code: str, sentence: str) -> None:
        now = time.monotonic()
        if now - self._warned_at.get(code, -WARN_SECONDS) >= WARN_SECONDS:
            self._warned_at[code] = now
            logger.warning("%s", sentence)


def _feeds_of(request: HTTPConnection) -> list[str]:
    text = request.query_params.get("feeds", "")
    feeds = list(dict.fromkeys(feed for feed in text.split(",") if feed))
    if len(feeds) > FEEDS_MAX:
        raise Refused("too_many_feeds", ERRORS["too_many_feeds"])
    if not all(map(is_feed, feeds)):
        raise Refused("feed_invalid", ERRORS["feed_invalid"])
    return feeds
