"""Who a connection is and which feeds it may follow.

Pure: `gateway/auth.py` verifies a token and makes a `Principal` of its claims.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from livefeed.errors import AccessRefused
from livefeed.identity import is_id

_pattern = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\*?|\*")
CLAIM_FEEDS_MAX = 256
MOMENT_MAX = 1e12
"""Seconds since 1970 that are no date any more."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The verified holder of a token."""

    user_id: str
    feeds: tuple[str, ...]
    """Feed names, or prefixes that end in `*`."""
    expires_at: float
    """Seconds since 1970."""
    token_id: str = ""
    """The claim `jti`, by which one token is revoked; empty when it has none."""
    issued_at: float = 0.0
    """The claim `iat`, seconds since 1970: what was issued before a user was revoked is too old; 0
    when it does not say."""

    def may_follow(self, feed: str) -> bool:
        """Whether the token allows a feed."""
        return any(
            feed.startswith(pattern[:-1]) if pattern.endswith("*") else feed == pattern
            for pattern in self.feeds
        )


def principal_of(claims: Mapping[str, Any], *, feeds_default: Iterable[str]) -> Principal:
    """The principal of a token whose signature and expiry were verified.

    Args:
        claims: The token's claims: `sub`, `exp`, and `feeds`, `jti`, `iat` where it has them.
        feeds_default: What a token without the claim `feeds` may follow.

    Raises:
        AccessRefused: For claims of the wrong form.
    """
    user_id, feeds = claims.get("sub"), claims.get("feeds", list(feeds_default))
    if not isinstance(user_id, str) or not is_id(user_id):
        detail = "sub must be a user id: 1 to 128 characters, none of control"
        raise AccessRefused("token_invalid", detail)
    if not isinstance(feeds, list) or len(feeds) > CLAIM_FEEDS_MAX:
        raise AccessRefused("token_invalid", f"feeds must be a list of at most {CLAIM_FEEDS_MAX}")
    if not all(isinstance(feed, str) and _pattern.fullmatch(feed) for feed in feeds):
        raise AccessRefused(
            "token_invalid", "feeds must hold feed names or prefixes such as news-*"
        )
    token_id = claims.get("jti", "")
    if not isinstance(token_id, str) or (token_id and not is_id(token_id)):
        raise AccessRefused("token_invalid", "jti must be 1 to 128 characters, none of control")
    issued_at = _moment(claims, "iat") if "iat" in claims else 0.0
    return Principal(user_id, tuple(feeds), _moment(claims, "exp"), token_id, issued_at)


def _moment(claims: Mapping[str, Any], name: str) -> float:
    """A claim that is a time; True, a text of digits and 1e308 are none."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < MOMENT_MAX:
        raise AccessRefused("token_invalid", f"{name} must be seconds since 1970")
    return float(value)
