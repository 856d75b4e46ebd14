"""What gateways say to each other on `feed.control.…` (core NATS): contracts of the messages.

Pure. Each of them may be lost: what it is about is found out some seconds later, or not needed.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from livefeed.admission import Session
from livefeed.limits import FLEET_CONNECTIONS_MAX
from livefeed.revocation import Revocation


class GatewayCount(Struct, frozen=True):
    """How many connections a gateway has; each second."""

    gateway: str
    connections: Annotated[int, Meta(ge=0, le=FLEET_CONNECTIONS_MAX)]
    """Bounded, as JSON's are of any length: Python has no float for the longest ones."""
    draining: bool = False
    """It is leaving: its connections are no measure for the others."""


class SessionsQuestion(Struct, frozen=True, tag="ask"):
    """Which connections do you have of these users? The answer goes to the reply subject."""

    gateway: str
    users: list[str]


class SessionsAnswer(Struct, frozen=True):
    """The connections that a gateway has, of those users of a question that it has."""

    users: dict[str, list[Session]]


class SessionsSurplus(Struct, frozen=True, tag="close"):
    """These are the oldest of users who have too many: whoever has them closes them."""

    users: dict[str, list[str]]


SessionsMessage = SessionsQuestion | SessionsSurplus
_sessions: msgspec.json.Decoder[SessionsMessage] = msgspec.json.Decoder(SessionsMessage)


class Revoked(Struct, frozen=True):
    """What was revoked just now."""

    revocations: list[Revocation]


Message = TypeVar("Message")

encode = msgspec.json.Encoder().encode
"""A message as bytes."""


def decode(payload: bytes, kind: type[Message]) -> Message | None:
    """A message of a kind, or None: another version's, or none at all."""
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def decode_sessions(payload: bytes) -> SessionsMessage | None:
    """A question or a surplus, or None."""
    try:
        return _sessions.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
