"""How a part of the gateway says that something failed which it can do without for now."""

from __future__ import annotations

import logging
import math
import time
from typing import Final

from livefeed.errors import LivefeedError


def warn(logger: logging.Logger, sentence: str, error: Exception) -> None:
    """Log a sentence with its cause, and with the traceback where nobody thought of it."""
    unexpected = None if isinstance(error, LivefeedError | TimeoutError) else error
    logger.warning("%s: %s", sentence, str(error) or type(error).__name__, exc_info=unexpected)


class Seldom:
    """Says the same once in a while, with how often it was not said: what befalls each of many
    requests would fill a disk.

    Args:
        logger: Says it.
        seconds: How seldom.
    """

    def __init__(self, logger: logging.Logger, seconds: float) -> None:
        self._logger: Final = logger
        self._seconds: Final = seconds
        self._said: dict[str, tuple[float, int]] = {}
        """When, and how often since then not; by one of a few names."""

    def warn(self, name: str, sentence: str) -> None:
        """Say it, unless something of this name was said a moment ago."""
        now = time.monotonic()
        said_at, unsaid = self._said.get(name, (-math.inf, 0))
        if now - said_at < self._seconds:
            self._said[name] = said_at, unsaid + 1
            return
        more = f" (and {unsaid} times more since it was said last)" if unsaid else ""
        self._logger.warning("%s%s", sentence, more)
        self._said[name] = now, 0
