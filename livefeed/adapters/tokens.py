"""Tokens: the one place where a JWT is signed or verified, and where its keys are read.

What is raised never holds a token or a part of one: such texts end up in logs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import jwt

from livefeed.errors import AccessRefused, Misconfigured
from livefeed.limits import KEYS_MAX, TOKEN_BYTES_MAX
from livefeed.settings import Settings

LEEWAY_SECONDS: Final = 5
"""How far clocks may be apart."""
RSA_BITS_MIN: Final = 2048

FAULTS: Final[Mapping[type[Exception], str]] = {
    jwt.ExpiredSignatureError: "the token is expired",
    jwt.InvalidSignatureError: "its signature is not by our key",
    jwt.InvalidAlgorithmError: "its alg is not the configured one",
    jwt.InvalidAudienceError: "its aud is not the configured one",
    jwt.InvalidIssuerError: "its iss is not the configured one",
    jwt.ImmatureSignatureError: "its nbf or iat is in the future",
}
"""What a holder is told. PyJWT's own texts may quote the token."""


class Keys(Protocol):
    """Where keys are looked up that have names."""

    async def key(self, key_id: str | None) -> Any:
        """The key; waits only when it is not at hand. Raises AccessRefused, Unavailable."""
        ...


class TokenVerifier:
    """Verifies tokens with the one configured algorithm.

    Args:
        settings: The algorithm, its key, and the claims that are expected.
        keys: The keys of `LIVEFEED_JWKS_URL`; without them the settings have the key.
    """

    def __init__(self, settings: Settings, keys: Keys | None = None) -> None:
        self._algorithm = settings.jwt_algorithm
        self._keys = keys
        self._key: Any = verification_key(settings) if keys is None else None
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer

    async def verify(self, token: str) -> Mapping[str, Any]:
        """The claims of a token.

        Raises:
            AccessRefused: `token_expired` when only a new token is needed, else `token_invalid`.
            Unavailable: Its key cannot be read now.
        """
        if len(token) > TOKEN_BYTES_MAX:
            raise AccessRefused("token_invalid", f"it is longer than {TOKEN_BYTES_MAX} bytes")
        key = self._key if self._keys is None else await self._keys.key(self._key_id(token))
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
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
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
            raise _refused(error) from None
        return claims

    def _key_id(self, token: str) -> str | None:
        """The `kid` of a token that might be one: no other is worth asking the keys' server."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise _refused(error) from None
        if header.get("alg") != self._algorithm:
            raise AccessRefused("token_invalid", FAULTS[jwt.InvalidAlgorithmError])
        key_id: str | None = header.get("kid")
        return key_id


def _refused(error: Exception) -> AccessRefused:
    code = "token_expired" if isinstance(error, jwt.ExpiredSignatureError) else "token_invalid"
    if isinstance(error, jwt.MissingRequiredClaimError):
        return AccessRefused(code, f"it has no {error.claim}")
    detail = "it is no JWT, or has a header or claim of the wrong form"
    return AccessRefused(code, FAULTS.get(type(error), detail))


def keys_of(document: bytes, algorithm: str) -> dict[str | None, jwt.PyJWK]:
    """The keys of a JWKS that tokens of an algorithm may be signed with, by `kid`.

    Others are passed over: of another type, for another use, with a private half, or too short.

    Raises:
        ValueError: It is no JWKS, or has no such key.
    """
    try:
        listed = json.loads(document)["keys"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ValueError("it is no JWKS") from None
    keys: dict[str | None, jwt.PyJWK] = {}
    for one in listed[:KEYS_MAX] if isinstance(listed, list) else ():
        key = _key_of(one, algorithm)
        if key is not None:
            keys.setdefault(key.key_id, key)
    if not keys:
        raise ValueError(f"it has no public key for {algorithm}")
    return keys


def _key_of(one: Any, algorithm: str) -> jwt.PyJWK | None:
    if not isinstance(one, dict) or "d" in one or not isinstance(one.get("kid"), str | None):
        return None
    # A key is for one algorithm: what it says of itself, and what it is, must be the configured.
    if one.get("alg", algorithm) != algorithm or one.get("use", "sig") != "sig":
        return None
    uses = one.get("key_ops", ["verify"])
    if algorithm == "HS256" or not isinstance(uses, list) or "verify" not in uses:
        return None
    try:
        key = jwt.PyJWK.from_dict(one, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, LookupError, OverflowError):
        return None
    return key if _long_enough(key.key) else None


def _long_enough(key: Any) -> bool:
    return getattr(key, "key_size", RSA_BITS_MIN) >= RSA_BITS_MIN


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


def verification_key(settings: Settings) -> Any:
    """The key that tokens are verified with.

    Raises:
        Misconfigured: When it is missing, or no key of the algorithm.
    """
    if settings.jwt_algorithm == "HS256":
        return _secret(settings)
    if not settings.jwt_public_key:
        raise Misconfigured(f"set LIVEFEED_JWT_PUBLIC_KEY: {settings.jwt_algorithm} needs it")
    algorithm = jwt.get_algorithm_by_name(settings.jwt_algorithm)
    try:
        # Read once; and a key of another type is found now, not by the first token.
        key = algorithm.prepare_key(_read_key(settings.jwt_public_key))
    except (jwt.PyJWTError, ValueError, TypeError):
        key = None
    if key is None or not _long_enough(key):
        detail = f"a public key for {settings.jwt_algorithm}, RSA from {RSA_BITS_MIN} bits on"
        raise Misconfigured(f"LIVEFEED_JWT_PUBLIC_KEY must be {detail}")
    return key


def _secret(settings: Settings) -> str:
    if not settings.jwt_secret:
        raise Misconfigured("set LIVEFEED_JWT_SECRET to at least 32 random bytes")
    return settings.jwt_secret


def _signing_key(settings: Settings) -> str:
    if settings.jwt_algorithm == "HS256":
        return _secret(settings)
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
