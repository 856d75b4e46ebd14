"""The headers that livefeed itself puts on messages of its streams, and what stays with a message.

Pure. A message may be stored more than once: a dead letter that is replayed, an update that
`reconcile` publishes again, the rest of a long list of followers. What is told of it the first time
stays with it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Final

from livefeed import trace
from livefeed.errors import UpdateRefused
from livefeed.identity import is_id

MESSAGE_ID: Final = "Nats-Msg-Id"
ACCEPTED_AT: Final = "Livefeed-Accepted-At"
"""Microseconds since 1970: when the message was stored first, if this is not the first time."""
AFTER: Final = "Livefeed-After"
"""The last follower whom an earlier message was for."""

REASON: Final = "Livefeed-Reason"
ERROR: Final = "Livefeed-Error"
SUBJECT: Final = "Livefeed-Subject"
STREAM: Final = "Livefeed-Stream"
SEQUENCE: Final = "Livefeed-Sequence"

MICROSECONDS_DIGITS_MAX: Final = 18
"""A longer number would not fit Postgres's clock."""

Header = Callable[[str], str | None]
"""One header by its lower-case name."""


def accepted_at(header: Header, *, stored_at: int) -> int:
    """When a message was accepted first, microseconds since 1970.

    Whatever a publisher invents can make its message older, never younger.
    """
    said = header(ACCEPTED_AT.lower()) or ""
    plausible = said.isascii() and said.isdecimal() and len(said) <= MICROSECONDS_DIGITS_MAX
    return min(int(said), stored_at) if plausible else stored_at


def after(header: Header) -> str:
    """The last follower whom an earlier message was for; empty for the first message.

    Raises:
        UpdateRefused: For a header that is none of ours.
    """
    said = header(AFTER.lower())
    if not said:
        return ""
    try:
        user = base64.urlsafe_b64decode(said).decode()
    except (binascii.Error, ValueError) as error:
        raise UpdateRefused("invalid_update", f"header {AFTER}: {error}") from error
    if not is_id(user):
        raise UpdateRefused("invalid_update", f"header {AFTER} is no user id")
    return user


def after_token(user: str) -> str:
    """The value of that header."""
    return base64.urlsafe_b64encode(user.encode()).decode()


def kept(header: Header, *, stored_at: int) -> dict[str, str]:
    """The headers that stay with a message when it is stored again."""
    first = {ACCEPTED_AT: str(accepted_at(header, stored_at=stored_at))}
    told = {name: header(name.lower()) for name in (AFTER, trace.HEADER)}
    return first | {name: value for name, value in told.items() if value}
