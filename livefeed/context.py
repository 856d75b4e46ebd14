"""What is known about a recipient when an update for them is prioritized.

Pure. It decides how soon, never whether: what is not known is taken as "connected, not looking".
"""

from __future__ import annotations

from typing import Final, NamedTuple

from livefeed.limits import FOLLOWERS_PAGE_MAX, FOLLOWERS_ROWS_MAX


class RecipientContext(NamedTuple):
    """One user and one feed at one moment."""

    online: bool
    """Whether any device is connected."""
    on_screen: bool
    """Whether a visible device follows the feed."""
    muted: bool
    """Whether the user has muted the feed."""


def followers_page_max(items: int) -> int:
    """The most followers that one message of an update with so many items is for."""
    return max(1, min(FOLLOWERS_PAGE_MAX, FOLLOWERS_ROWS_MAX // items))


UNKNOWN: Final = RecipientContext(online=True, on_screen=False, muted=False)
"""Taken while the database cannot say: the published priority decides."""
