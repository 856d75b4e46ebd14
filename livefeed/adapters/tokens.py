"""Tokens: the one place where a JWT is signed or verified."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jwt

from livefeed.errors import AccessRefused, Misconfigured
from livefeed.limits import TOKEN_BYTES_MAX
from livefeed.settings import Settings

LEEWAY_SECONDS: Final = 5
"""How far clocks may be apart."""


class TokenVerifier:
    """Verifies tokens with the one configured algorithm and key."""

    def __init__(self, settings: Settings) -> None:
        self._algorithm = settings.jwt_algorithm
        self._key = verification_key(settings)
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer

    def verify(self, token: str) -> Mapping[str, Any]:
        """The claims of a token.

        Raises:
            AccessRefused: `token_expired` when only a new token is needed, else `token_invalid`.
        """
        if len(token) > TOKEN_BYTES_MAX:
            raise AccessRefused("token_invalid", f"it is longer than {TOKEN_BYTES_MAX} bytes")
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key,
                algorithms=[self._algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={
                    "require": ["exp", "sub"],
                    # Without a configured audience a token that has one is for somebody else.
                    "verify_aud": True,
                },
            )
        except jwt.ExpiredSignatureError as error:
            raise AccessRefused("token_expired", "the token is expired") from error
        except (jwt.InvalidTokenError, ValueError, OverflowError, RecursionError) as error:
            raise AccessRefused("token_invalid", str(error) or type(error).__name__) from error
        return claims


def sign(settings: Settings, claims: Mapping[str, Any]) -> str:
    """A token with these claims.

    Raises:
        Misconfigured: When the key to sign with is not configured.
    """
    claims = dict(claims)
    if settings.jwt_audience:
        claims.setdefault("aud", settings.jwt_audience)
    if settings.jwt_issuer:
        claims.setdefault("iss", settings.jwt_issuer)
    return jwt.encode(claims, _signing_key(settings), algorithm=settings.jwt_algorithm)


def verification_key(settings: Settings) -> str:
    """The key that tokens are verified with.

    Raises:
        Misconfigured: When it is missing.
    """
    if settings.jwt_algorithm == "HS256":
        if not settings.jwt_secret:
            raise Misconfigured("set LIVEFEED_JWT_SECRET to at least 32 random bytes")
        return settings.jwt_secret
    if not settings.jwt_public_key:
        raise Misconfigured(f"set LIVEFEED_JWT_PUBLIC_KEY: {settings.jwt_algorithm} needs it")
    return _read_key(settings.jwt_public_key)


def _signing_key(settings: Settings) -> str:
    if settings.jwt_algorithm == "HS256":
        return verification_key(settings)
    if not settings.jwt_private_key:
        raise Misconfigured("set LIVEFEED_JWT_PRIVATE_KEY to sign tokens here")
    return _read_key(settings.jwt_private_key)


def _read_key(value: str) -> str:
    """A key that is given as PEM text or as the path of a file with it."""
    if value.startswith("-----BEGIN"):
        return value
    try:
        return Path(value).read_text()
    except OSError as error:
        raise Misconfigured(f"the key file {value} cannot be read: {error.strerror}") from error
