"""Revoked tokens: one by its id, or all of a user that were issued so far.

Pure. Every gateway holds those that are in force; Postgres has them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from livefeed.access import Principal

RevocationKind = Literal["user", "token"]


class Revocation(NamedTuple):
    """That a user's tokens, or one token, are good no more."""

    kind: RevocationKind
    name: str
    """The user's id, or the token's (`jti`)."""
    revoked_at: float
    """Seconds since 1970: a user's token that was issued in a later second is good."""
    until: float
    """Seconds since 1970: from then on it is as if it had never been; the tokens are expired."""


class Revocations:
    """What is revoked, as far as this process knows."""

    def __init__(self) -> None:
        self._known: dict[tuple[RevocationKind, str], Revocation] = {}

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, revocations: Iterable[Revocation]) -> bool:
        """Take some in; returns whether any of them says more than what was known."""
        news = False
        for one in revocations:
            known = self._known.get((one.kind, one.name))
            if known is None or (one.revoked_at, one.until) > (known.revoked_at, known.until):
                self._known[one.kind, one.name] = one
                news = True
        return news

    def forget(self, now: float) -> None:
        """Drop those that are over."""
        self._known = {key: one for key, one in self._known.items() if one.until > now}

    def covers(self, principal: Principal, now: float) -> bool:
        """Whether the principal's token is revoked."""
        token = self._known.get(("token", principal.token_id)) if principal.token_id else None
        if token is not None and token.until > now:
            return True
        user = self._known.get(("user", principal.user_id))
        # A token that does not say when it was issued may be an old one.
        return user is not None and user.until > now and principal.issued_at <= user.revoked_at
