"""Which lane messages some updates become, each within its bounds.

Recipients of one lane and partition share messages; a body stands once for up to a thousand
of them. Updates for the same recipients share the recipients' names, and of those that one flush
would merge anyway only what is left of them goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

from functions.reading import Reading
from livefeed import subjects
from livefeed.adapters.nats.publish import Outbound
from livefeed.channel import owner_of, topic_channel, user_channel
from livefeed.context import UNKNOWN, RecipientContext
from livefeed.limits import (
    LANE_MESSAGE_BYTES_MAX,
    LANE_MESSAGE_CHANNELS_MAX,
    LANE_MESSAGE_ROWS_MAX,
)
from livefeed.messages import (
    LaneGroup,
    LaneMessage,
    LaneUpdate,
    coalesce_updates,
    encode_lane_message,
)
from livefeed.partition import partition_of
from livefeed.priority import LaneFunction, Placement, UpdateFacts
from livefeed.priority import lane_of as table_lane_of
from livefeed.subjects import LANES, Lane

logger = logging.getLogger(__name__)

GROUP_OVERHEAD_BYTES: Final = 24
GROUP_UPDATES_MAX: Final = 10
"""Updates of one group: a message of so many for a hundred channels says the least things twice."""

Contexts = Mapping[tuple[str, str], RecipientContext]
"""By user and feed; who is not in it is UNKNOWN."""

Placements = dict[UpdateFacts, dict[RecipientContext, Placement]]
"""What the lane function said of what occurred: it is asked once."""


class Page(NamedTuple):
    """An update and some of the users that it is for; None is everyone on the feed."""

    reading: Reading
    users: list[str] | None
    is_part: bool = False
    """Whether the audience is larger than this page: then nothing of it is high."""


class Share(NamedTuple):
    """What recipients have in common that share a lane message."""

    lane: Lane
    partition: int
    push: bool


class Addressed(NamedTuple):
    """A lane message and where it goes."""

    lane: Lane
    partition: int
    content: LaneMessage

    def outbound(self) -> Outbound:
        """What is published."""
        return subjects.lanes(self.lane, self.partition), encode_lane_message(self.content), None


def plan(pages: Iterable[Page], contexts: Contexts, lane_of: LaneFunction) -> Iterator[Addressed]:
    """The lane messages of some updates."""
    audiences: dict[tuple[Lane, int], dict[tuple[bool, tuple[str, ...]], list[LaneUpdate]]] = {}
    known: Placements = {}
    for page in pages:
        for share, channels in _shares(page, contexts, lane_of, known).items():
            groups = audiences.setdefault((share.lane, share.partition), {})
            groups.setdefault((share.push, tuple(channels)), []).extend(page.reading.updates)
    for (lane, partition), groups in audiences.items():
        packed = chain.from_iterable(
            _groups(channels, coalesce_updates(updates), push=push)
            for (push, channels), updates in groups.items()
        )
        for message in _messages(packed):
            yield Addressed(lane, partition, message)


def guarded(lane_of: LaneFunction) -> LaneFunction:
    """The same function; where it fails or names no lane, the table decides.

    It says how soon, never whether: no code of whoever runs this livefeed stops an update.
    """
    told = False

    def place(update: UpdateFacts, recipient: RecipientContext) -> Placement:
        nonlocal told
        try:
            placement = lane_of(update, recipient)
            if placement.lane in LANES:
                return placement
            raise ValueError(f"there is no lane {placement.lane!r}")
        except Exception:
            if not told:
                logger.exception("the lane function failed; from now on this is not said again")
            told = True
        return table_lane_of(update, recipient)

    return place


def _shares(
    page: Page, contexts: Contexts, lane_of: LaneFunction, known: Placements
) -> dict[Share, list[str]]:
    """The channels that a page goes to, by what they have in common."""
    facts = page.reading.facts
    feed = facts.feed
    if page.users is None:
        channel = topic_channel(feed)
        return {Share(facts.priority, partition_of(owner_of(channel)), True): [channel]}
    shares: dict[Share, list[str]] = {}
    placements = known.setdefault(facts, {})
    for user in page.users:
        context = contexts.get((user, feed), UNKNOWN)
        placement = placements.get(context)
        if placement is None:
            placement = placements[context] = lane_of(facts, context)
        lane, push = placement
        if page.is_part and lane == "high":
            # So many are not served in an instant, and an urgent update shall not stand behind.
            lane = "medium"
        channel = user_channel(user, feed)
        share = Share(lane, partition_of(owner_of(channel)), push)
        shares.setdefault(share, []).append(channel)
    return shares


def _groups(
    channels: Sequence[str], updates: list[LaneUpdate], *, push: bool
) -> Iterable[LaneGroup]:
    """Split into groups that each fit a lane message."""
    for some in _portions(updates):
        step = min(LANE_MESSAGE_CHANNELS_MAX, LANE_MESSAGE_ROWS_MAX // len(some))
        for start in range(0, len(channels), step):
            yield LaneGroup(list(channels[start : start + step]), some, push)


def _portions(updates: list[LaneUpdate]) -> Iterable[list[LaneUpdate]]:
    if len(updates) == 1:
        yield updates
        return
    some: list[LaneUpdate] = []
    size = 0
    for update in updates:
        # Half of a message is for the bodies, half for the channels' names.
        too_large = size + _size(update) > LANE_MESSAGE_BYTES_MAX // 2
        if some and (too_large or len(some) == GROUP_UPDATES_MAX):
            yield some
            some, size = [], 0
        some.append(update)
        size += _size(update)
    yield some


def _messages(groups: Iterable[LaneGroup]) -> Iterable[LaneMessage]:
    """Pack groups into messages, as many as fit."""
    packed: list[LaneGroup] = []
    rows = size = 0
    for group in groups:
        group_size = _group_size(group)
        too_many = rows + group.rows > LANE_MESSAGE_ROWS_MAX
        if packed and (too_many or size + group_size > LANE_MESSAGE_BYTES_MAX):
            yield LaneMessage(packed)
            packed, rows, size = [], 0, 0
        packed.append(group)
        rows, size = rows + group.rows, size + group_size
    yield LaneMessage(packed)


def _group_size(group: LaneGroup) -> int:
    # A name of 128 characters may be 4 times as many bytes, and JSON escapes none of them longer.
    names = sum(len(name.encode()) + 3 for name in group.channels)
    return names + sum(map(_size, group.updates)) + GROUP_OVERHEAD_BYTES


def _size(update: LaneUpdate) -> int:
    return len(memoryview(update.body)) + len(update.update_id) + 256
