"""The order key: which of two updates of one facet of one item is newer.

Pure. Compared left to right, total, the same in Python (tuples) and in Postgres (row comparison of
smallint, bigint, bytea), so equal timestamps are decided and explicit versions beat clocks.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

VERSION_MAX = 2**53 - 1

_epoch = datetime(1970, 1, 1, tzinfo=UTC)


class OrderKey(NamedTuple):
    """`(explicit, version, ref)`; a greater key is newer."""

    explicit: int
    """1 when the publisher gave a version, else 0."""
    version: int
    """The publisher's version, or the timestamp in microseconds since 1970."""
    ref: bytes
    """16 bytes: hash of (updateId, content id)."""


def microseconds(moment: datetime) -> int:
    """Whole microseconds since 1970 of an aware datetime."""
    delta = moment - _epoch
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def order_key(*, version: int | None, timestamp_microseconds: int, ref: bytes) -> OrderKey:
    """The order key of an update of one item."""
    if version is None:
        return OrderKey(0, timestamp_microseconds, ref)
    return OrderKey(1, version, ref)
