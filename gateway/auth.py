"""Who a request is from: the token of a request or of a WebSocket handshake."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable

from starlette.requests import HTTPConnection

from livefeed.access import Principal, principal_of
from livefeed.adapters.key_set import KeySet
from livefeed.adapters.tokens import TokenVerifier
from livefeed.errors import AccessRefused
from livefeed.protocol import BEARER_SUBPROTOCOL
from livefeed.settings import Settings


class Authenticator:
    """Verifies tokens and origins.

    Args:
        settings: The key, the origins.
        check: Called with each principal; raises what it is refused with, such as a revocation.
        keys: The keys of `LIVEFEED_JWKS_URL`, where it is set.
    """

    def __init__(
        self,
        settings: Settings,
        check: Callable[[Principal], None],
        keys: KeySet | None = None,
    ) -> None:
        self._check = check
        self._keys = keys
        self._verifier = TokenVerifier(settings, keys)
        self._feeds_default = settings.feeds_default
        self.origins = {origin.rstrip("/").lower() for origin in settings.allowed_origins}
        """Of pages that may connect, or `*`."""

    async def run(self) -> None:
        """Keep the keys at hand, until cancelled."""
        if self._keys is not None:
            await self._keys.run()

    def ready(self) -> str | None:
        """Why no token can be verified yet, or None."""
        if self._keys is None or self._keys.read_once:
            return None
        return f"the keys of tokens could not be read: {self._keys.fault}"

    async def principal(self, request: HTTPConnection) -> Principal:
        """The holder of the request's token; raises AccessRefused, Unavailable."""
        return await self.verify(_token_of(request))

    async def verify(self, token: str) -> Principal:
        """The holder of a token; raises AccessRefused, Unavailable, and what `check` raises."""
        claims = await self._verifier.verify(token)
        principal = principal_of(claims, feeds_default=self._feeds_default)
        self._check(principal)
        return principal

    def allows_origin(self, request: HTTPConnection) -> bool:
        """Whether a page of this origin may connect; what sends no Origin is no browser."""
        origins = request.headers.getlist("origin")
        if not origins or "*" in self.origins:
            return True
        if len(origins) > 1:
            return False
        # Exact scheme, host and port: a prefix or suffix would let somebody else's host through.
        origin = origins[0].lower()
        same = origin in {f"http://{_host(request)}", f"https://{_host(request)}"}
        return same or origin in self.origins


def offered_subprotocols(request: HTTPConnection) -> list[str]:
    """The subprotocols that a handshake offers."""
    offered: Iterable[str] = request.headers.getlist("sec-websocket-protocol")
    return [part.strip() for header in offered for part in header.split(",")]


def _token_of(request: HTTPConnection) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    if scheme.lower() == "basic":
        return _password_of(token)
    for offered in offered_subprotocols(request):
        if offered.startswith(BEARER_SUBPROTOCOL):
            return offered.removeprefix(BEARER_SUBPROTOCOL)
    detail = "send it as `Authorization: Bearer …` or as subprotocol `bearer.…`"
    raise AccessRefused("token_invalid", f"there is no token; {detail}")


def _password_of(credentials: str) -> str:
    """The token of a program that knows users and passwords only: the user is `bearer`."""
    try:
        user, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except ValueError:
        user, password = "", ""
    if user != "bearer" or not password:
        raise AccessRefused("token_invalid", "the user must be `bearer`, the password the token")
    return password


def _host(request: HTTPConnection) -> str:
    return request.headers.get("host", "").lower()
