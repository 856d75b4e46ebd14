"""Moments as a person writes and reads them.

Pure. In the code a moment is microseconds since 1970.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from livefeed.errors import Refused
from livefeed.order import microseconds

UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_duration = re.compile(r"([0-9]{1,9})([smhd])")
_epoch = datetime(1970, 1, 1, tzinfo=UTC)


def parse_moment(text: str, *, now_microseconds: int) -> int:
    """A time such as `2026-11-25T08:00:00Z`, or a duration before now such as `90s`, `2h`, `7d`.

    Raises:
        Refused: When it is neither, or has no zone.
    """
    if found := _duration.fullmatch(text):
        return now_microseconds - int(found[1]) * UNITS[found[2]] * 1_000_000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        expected = "expected a duration such as 2h or 7d, or a time such as 2026-11-25T08:00:00Z"
        raise Refused("moment_invalid", expected) from error
    if moment.tzinfo is None:
        raise Refused("moment_invalid", f"{text} has no zone; add Z for UTC")
    return microseconds(moment)


def moment_of(moment: int) -> datetime:
    """A moment as Python has it."""
    return _epoch + timedelta(microseconds=moment)


def moment_text(moment: int) -> str:
    """A moment in UTC, to the microsecond."""
    return moment_of(moment).isoformat().replace("+00:00", "Z")
