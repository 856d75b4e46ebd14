"""How a part of the gateway says that something failed which it can do without for now."""

from __future__ import annotations

import logging

from livefeed.errors import LivefeedError


def warn(logger: logging.Logger, sentence: str, error: Exception) -> None:
    """Log a sentence with its cause, and with the traceback where nobody thought of it."""
    unexpected = None if isinstance(error, LivefeedError | TimeoutError) else error
    logger.warning("%s: %s", sentence, str(error) or type(error).__name__, exc_info=unexpected)
