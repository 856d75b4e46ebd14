"""What commands that speak to a gateway share: its address, a token, a line for a terminal."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import click
from livefeed_client.address import http_url

from livefeed.access import principal_of
from livefeed.adapters.tokens import sign
from livefeed.cli.terminal import printable
from livefeed.identity import is_feed
from livefeed.settings import Settings

TOKEN_SECONDS: Final = 3600
CONTENT_CHARACTERS_MAX: Final = 100
ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104  # not bound here
"""Where to reach a server that listens everywhere."""


def reachable(host: str) -> str:
    """The host of a URL that reaches what listens on an address."""
    host = ANY_ADDRESS.get(host, host)
    return f"[{host}]" if ":" in host else host


def gateway_url(settings: Settings, url: str | None) -> str:
    """The gateway's address: the given one, or that of the settings.

    Raises:
        click.BadParameter: When the given one is not an address.
    """
    if url is None:
        return f"http://{reachable(settings.gateway_host)}:{settings.gateway_port}"
    try:
        return http_url(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from error


def feed_names(text: str) -> list[str]:
    """The feeds of a list such as `home,trending`.

    Raises:
        click.BadParameter: When one of them cannot be a feed's name, or there is none.
    """
    names = [name for name in (part.strip() for part in text.split(",")) if name]
    wrong = [name for name in names if not is_feed(name)]
    if wrong or not names:
        detail = f"{wrong[0]!r} is no feed's name" if wrong else "no feed is named"
        raise click.BadParameter(detail + "; expected for example home,trending")
    return list(dict.fromkeys(names))


def user_token(
    settings: Settings,
    user: str,
    *,
    feeds: list[str] | None = None,
    seconds: int = TOKEN_SECONDS,
) -> str:
    """A user's token, signed with the configured key.

    Raises:
        AccessRefused: When the gateway would refuse such claims.
        Misconfigured: When there is no key to sign with.
    """
    now = int(time.time())
    claims: dict[str, Any] = {
        "sub": user,
        "iat": now,
        "exp": now + seconds,
        "jti": secrets.token_hex(8),
    }
    if feeds is not None:
        claims["feeds"] = feeds
    principal_of(claims, feeds_default=settings.feeds_default)
    return sign(settings, claims)


def token_source(settings: Settings, user: str) -> Callable[[], str]:
    """A function that gives a token, and a new one when half of the old one's time is over.

    A new one each time would hide from the client that its tokens are refused.
    """
    token, signed_at = user_token(settings, user), time.monotonic()

    def current() -> str:
        nonlocal token, signed_at
        if time.monotonic() - signed_at > TOKEN_SECONDS / 2:
            token, signed_at = user_token(settings, user), time.monotonic()
        return token

    return current


def short_content(content: Mapping[str, Any]) -> str:
    """A content without its id as one short line."""
    rest = {name: value for name, value in content.items() if name != "id"}
    return printable(json.dumps(rest, ensure_ascii=False), CONTENT_CHARACTERS_MAX)
