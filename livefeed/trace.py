"""The W3C trace context as it travels through livefeed.

Pure. A publisher's header is taken as it is or not at all: nothing of it may break a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

HEADER: Final = "traceparent"

_pattern = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def valid(traceparent: str | None) -> str | None:
    """The header's value when it is well formed, else None."""
    if traceparent is None or _pattern.fullmatch(traceparent) is None:
        return None
    return traceparent


def is_sampled(traceparent: str) -> bool:
    """Whether whoever started the trace wants spans of it."""
    return bool(int(traceparent[-2:], 16) & 1)


def representative(traceparents: Iterable[str | None]) -> str | None:
    """The one context that speaks for a batch: a sampled one if there is any."""
    chosen = None
    for traceparent in traceparents:
        if traceparent is not None:
            if is_sampled(traceparent):
                return traceparent
            chosen = chosen or traceparent
    return chosen
