"""The lane table: how soon an update is delivered to one recipient.

Pure, data first. For a topic there is no one recipient: its lane is the published priority.
"""

from __future__ import annotations

from livefeed.limits import AGED_SECONDS
from livefeed.subjects import Lane
from livefeed.update import CONTENT_REMOVAL, ENGAGEMENT_UPDATE


def topic_lane(*, priority: Lane, age_seconds: float) -> Lane:
    """The lane of an update for everyone on a feed."""
    return "high" if age_seconds > AGED_SECONDS else priority


def personal_lane(*, priority: Lane, kind: int, age_seconds: float) -> Lane:
    """The lane of an update for one user.

    Args:
        priority: What the publisher said.
        kind: The update's kind, see `update.KINDS`.
        age_seconds: Time since JetStream accepted it: what waited long has waited enough.
    """
    if kind == CONTENT_REMOVAL or age_seconds > AGED_SECONDS:
        return "high"
    if kind == ENGAGEMENT_UPDATE and priority != "high":
        return "low"
    return priority
