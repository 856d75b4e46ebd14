"""The lane table: how soon an update is delivered to one recipient, and whether it is pushed.

Pure, and data: the first rule that fits decides. Another function of the same signature can take
its place (`LIVEFEED_LANE_FUNCTION`). For a topic there is no one recipient: its lane is the
published priority. How old an update is changes no lane: what waited long is due at once in its
own (decision 0011).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from livefeed.context import RecipientContext
from livefeed.subjects import Lane
from livefeed.update import UpdateType


class UpdateFacts(NamedTuple):
    """What an update says of itself."""

    update_type: UpdateType
    priority: Lane
    """As published, in the update or by its subject."""
    feed: str
    source: str | None
    experiment_id: str | None


class Placement(NamedTuple):
    """How one recipient gets an update."""

    lane: Lane
    push: bool = True
    """Whether connected devices are told; those that are not find it in the log."""


LaneFunction = Callable[[UpdateFacts, RecipientContext], Placement]
"""Called once for each update and each context among its recipients; it must not wait."""


class LaneRule(NamedTuple):
    """One row: what it is for, its conditions (None: any), and what it decides."""

    reason: str
    lane: Lane | None
    """None is the published priority."""
    push: bool = True
    update_type: UpdateType | None = None
    priority: Lane | None = None
    online: bool | None = None
    on_screen: bool | None = None
    muted: bool | None = None

    def fits(self, update: UpdateFacts, recipient: RecipientContext) -> bool:
        """Whether every condition holds."""
        return (
            self.update_type in {None, update.update_type}
            and self.priority in {None, update.priority}
            and self.online in {None, recipient.online}
            and self.on_screen in {None, recipient.on_screen}
            and self.muted in {None, recipient.muted}
        )


LANE_TABLE: Final[tuple[LaneRule, ...]] = (
    LaneRule("what is removed must go at once", "high", update_type="content_removal"),
    LaneRule("a muted feed is kept, and disturbs nobody", "low", push=False, muted=True),
    LaneRule("urgent stays urgent", "high", priority="high"),
    LaneRule(
        "counters that somebody looks at", None, update_type="engagement_update", on_screen=True
    ),
    LaneRule("counters that nobody looks at", "low", update_type="engagement_update"),
    LaneRule("nobody is there to see it", "low", priority="medium", online=False),
    LaneRule("everything else, as published", None),
)


def lane_of(update: UpdateFacts, recipient: RecipientContext) -> Placement:
    """The placement of an update for one user: the default lane function."""
    rule = next(rule for rule in LANE_TABLE if rule.fits(update, recipient))
    return Placement(rule.lane or update.priority, rule.push)
