"""The lane table, row by row."""

import itertools
from typing import get_args

import pytest

from livefeed.context import UNKNOWN, RecipientContext
from livefeed.priority import LANE_TABLE, Placement, UpdateFacts, lane_of
from livefeed.subjects import LANES, Lane
from livefeed.update import UpdateType

HERE = RecipientContext(online=True, on_screen=False, muted=False)
LOOKING = RecipientContext(online=True, on_screen=True, muted=False)
AWAY = RecipientContext(online=False, on_screen=False, muted=False)
MUTED = RecipientContext(online=True, on_screen=True, muted=True)

ROWS: list[tuple[int, UpdateType, Lane, RecipientContext, Placement]] = [
    (0, "content_removal", "low", HERE, Placement("high")),
    (0, "content_removal", "low", AWAY, Placement("high")),
    (0, "content_removal", "low", MUTED, Placement("high")),
    (1, "new_content", "high", MUTED, Placement("low", push=False)),
    (1, "engagement_update", "medium", MUTED, Placement("low", push=False)),
    (2, "new_content", "high", AWAY, Placement("high")),
    (2, "engagement_update", "high", HERE, Placement("high")),
    (3, "engagement_update", "medium", LOOKING, Placement("medium")),
    (3, "engagement_update", "low", LOOKING, Placement("low")),
    (4, "engagement_update", "medium", HERE, Placement("low")),
    (5, "new_content", "medium", AWAY, Placement("low")),
    (5, "content_update", "medium", AWAY, Placement("low")),
    (6, "new_content", "medium", HERE, Placement("medium")),
    (6, "content_update", "low", LOOKING, Placement("low")),
    (6, "new_content", "medium", UNKNOWN, Placement("medium")),
]


@pytest.mark.parametrize(("row", "kind", "priority", "recipient", "placement"), ROWS)
def test_a_row_of_the_table(
    row: int, kind: UpdateType, priority: Lane, recipient: RecipientContext, placement: Placement
) -> None:
    """What it decides, and that no row before it does."""
    update = UpdateFacts(kind, priority, "home", None, None)
    fitting = [number for number, rule in enumerate(LANE_TABLE) if rule.fits(update, recipient)]
    assert fitting[0] == row
    assert lane_of(update, recipient) == placement


def test_every_row_has_a_case() -> None:
    """A row that is added without one fails here."""
    assert {row for row, *_ in ROWS} == set(range(len(LANE_TABLE)))


def test_every_combination_has_a_placement() -> None:
    """The last row has no condition, and nothing makes an update sooner than published but two."""
    contexts = itertools.starmap(RecipientContext, itertools.product([True, False], repeat=3))
    for kind, priority, context in itertools.product(get_args(UpdateType), LANES, contexts):
        placement = lane_of(UpdateFacts(kind, priority, "home", None, None), context)
        sooner = LANES.index(placement.lane) < LANES.index(priority)
        assert not sooner or kind == "content_removal"
        assert placement.push or context.muted
