"""Who may come in: what is checked before a handshake is accepted, the cheapest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from livefeed.access import Principal
from livefeed.errors import AccessRefused, Refused, Unavailable
from livefeed.identity import is_feed
from livefeed.protocol import ERRORS

if TYPE_CHECKING:
    from gateway.app import Gateway


def admit(gateway: Gateway, request: HTTPConnection) -> tuple[Principal, list[str]]:
    """Who comes, and which feeds are asked for.

    Raises:
        Refused: For the origin, the token or the feeds.
        Unavailable: The gateway takes nobody now.
    """
    if gateway.draining:
        raise Unavailable("gateway", "it is draining")
    if not gateway.authenticator.allows_origin(request):
        raise AccessRefused("origin_forbidden", ERRORS["origin_forbidden"])
    principal = gateway.authenticator.principal(request)
    feeds = _feeds_of(request)
    if feeds and not any(principal.may_follow(feed) for feed in feeds):
        raise AccessRefused("feed_forbidden", ERRORS["feed_forbidden"])
    return principal, feeds


def _feeds_of(request: HTTPConnection) -> list[str]:
    text = request.query_params.get("feeds", "")
    feeds = [feed for feed in text.split(",") if feed]
    if not all(map(is_feed, feeds)):
        raise Refused("feed_invalid", ERRORS["feed_invalid"])
    return feeds
