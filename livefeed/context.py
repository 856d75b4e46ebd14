"""What is known about a recipient when an update for them is prioritized.

Pure. It decides how soon, never whether: what is not known is taken as "connected, not looking".
"""

from __future__ import annotations

from typing import Final, NamedTuple


class RecipientContext(NamedTuple):
    """One user and one feed at one moment."""

    online: bool
    """Whether any device is connected."""
    on_screen: bool
    """Whether a visible device follows the feed."""
    muted: bool
    """Whether the user has muted the feed."""


UNKNOWN: Final = RecipientContext(online=True, on_screen=False, muted=False)
"""Taken while the database cannot say: the published priority decides."""
