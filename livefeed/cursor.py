"""The cursor: what a client holds, so that it can continue where it was.

Pure. A cursor is an epoch and a position in each channel. The epoch that a client sees also names
the user (by a hash), so another user's cursor is refused instead of silently skipping updates.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from livefeed.channel import from_client_name
from livefeed.errors import CursorRefused
from livefeed.limits import CONNECTION_FEEDS_MAX

_epoch = re.compile(r"([A-Za-z0-9_-]{1,64})\.([0-9a-f]{16})")
_position = re.compile(r"0|[1-9][0-9]{0,18}")
POSITION_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """An epoch as the client sees it, and positions by the client's channel names."""

    epoch: str
    positions: Mapping[str, int] = field(default_factory=dict)


def client_epoch(epoch: str, user_id: str) -> str:
    """The log's epoch as one user sees it."""
    return f"{epoch}.{_user_tag(epoch, user_id)}"


def resolve(
    cursor: Cursor, *, epoch: str, user_id: str
) -> dict[str, int] | Literal["epoch_changed"]:
    """Positions by channel name in the log, or the news that the log is another one now.

    Raises:
        CursorRefused: When it is no cursor, or another user's.
    """
    match = _epoch.fullmatch(cursor.epoch)
    if match is None:
        raise CursorRefused("cursor_invalid", "its epoch is not one that this server gave out")
    if match[2] != _user_tag(match[1], user_id):
        raise CursorRefused("cursor_foreign", "it belongs to another user")
    positions = _positions(cursor.positions, user_id)
    return positions if match[1] == epoch else "epoch_changed"


def format_cursor(cursor: Cursor) -> str:
    """The cursor as one line of text, for a URL parameter or `Last-Event-ID`."""
    positions = ",".join(f"{name}={seq}" for name, seq in sorted(cursor.positions.items()))
    return f"{cursor.epoch}:{positions}"


def parse_cursor(text: str) -> Cursor:
    """Read `format_cursor`'s text.

    Raises:
        CursorRefused: When it is no cursor.
    """
    epoch, colon, rest = text.partition(":")
    if not colon:
        raise CursorRefused("cursor_invalid", "expected <epoch>:<channel>=<position>,…")
    positions: dict[str, int] = {}
    for part in rest.split(",") if rest else []:
        name, _, digits = part.partition("=")
        if not _position.fullmatch(digits) or name in positions:
            raise CursorRefused("cursor_invalid", "expected <epoch>:<channel>=<position>,…")
        positions[name] = int(digits)
    return Cursor(epoch, positions)


def _positions(positions: Mapping[str, int], user_id: str) -> dict[str, int]:
    if len(positions) > 2 * CONNECTION_FEEDS_MAX:
        raise CursorRefused("cursor_invalid", f"more than {2 * CONNECTION_FEEDS_MAX} channels")
    resolved: dict[str, int] = {}
    for name, seq in positions.items():
        channel = from_client_name(name, user_id)
        if channel is None:
            raise CursorRefused("cursor_invalid", "a channel is me/<feed> or all/<feed>")
        if not 0 <= seq <= POSITION_MAX:
            raise CursorRefused(
                "cursor_invalid", f"a position is a number from 0 to {POSITION_MAX}"
            )
        resolved[channel] = seq
    return resolved


def _user_tag(epoch: str, user_id: str) -> str:
    return hashlib.blake2b(f"{epoch}\0{user_id}".encode(), digest_size=8).hexdigest()
