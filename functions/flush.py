"""The flush: from lane messages to the log, and from the log's answer to the gateways.

It coalesces, persists in one transaction and says, for each user or topic, what changed. What it
says may be lost: the log is the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from msgspec import Raw

from livefeed import subjects, trace
from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.postgres.log import Body, ChannelChange, Flushed, Log
from livefeed.channel import feed_of, owner_of
from livefeed.entry import Entry, EntryKey, coalesce
from livefeed.limits import FLUSH_BYTES_MAX, FLUSH_ROWS_MAX
from livefeed.messages import (
    LaneGroup,
    LaneMessage,
    LaneUpdate,
    LiveChannel,
    LiveMessage,
    encode_live_message,
    public_update,
)


class Portion(NamedTuple):
    """What one transaction persists."""

    entries: dict[EntryKey, Entry]
    bodies: dict[bytes, Body]


class Plan(NamedTuple):
    """What a flush does."""

    portions: list[Portion]
    pushed: frozenset[str]
    """The channels whose devices are told."""


class Flush:
    """Brings lane messages to the log and to the gateways.

    Args:
        log: Where entries go.
        connection: Where live messages go.
        is_traced: Whether live messages carry their traces now.
    """

    def __init__(
        self, log: Log, connection: Connection, *, is_traced: Callable[[], bool] = lambda: True
    ) -> None:
        self._log = log
        self._connection = connection
        self._is_traced = is_traced

    async def __call__(self, messages: Sequence[LaneMessage]) -> None:
        """Persist what all of them say, then tell the gateways.

        Raises:
            Unavailable: The log is away; do it all again.
            UpdateRefused: One of them can never be persisted.
        """
        portions, pushed = plan(messages)
        for portion in portions:
            flushed = await self._log.persist(portion.entries, portion.bodies)
            traces = {ref: body.trace for ref, body in portion.bodies.items() if body.trace}
            for subject, live, context in live_messages(flushed, traces, pushed):
                headers = {trace.HEADER: context} if context and self._is_traced() else None
                self._connection.send(subject, encode_live_message(live), headers=headers)


def plan(messages: Sequence[LaneMessage]) -> Plan:
    """Coalesce, and split into portions that each fit a flush."""
    groups = [group for message in messages for group in message.groups]
    pushed = frozenset(chain.from_iterable(group.channels for group in groups if group.push))
    return Plan(_portions(groups), pushed)


def _portions(groups: Iterable[LaneGroup]) -> list[Portion]:
    bodies: dict[bytes, Body] = {}
    entries = coalesce(_entries(groups, bodies))
    portions = [Portion({}, {})]
    size = 0
    # Channel by channel, so that few are in two portions; older entries first, as within one.
    for key in sorted(entries, key=lambda key: (key.channel, entries[key].order)):
        entry = entries[key]
        body = bodies[entry.order.ref]
        full = len(portions[-1].entries) == FLUSH_ROWS_MAX
        if portions[-1].entries and (full or size + len(body.body) > FLUSH_BYTES_MAX):
            portions.append(Portion({}, {}))
            size = 0
        portions[-1].entries[key] = entry
        if body.ref not in portions[-1].bodies:
            portions[-1].bodies[body.ref] = body
            size += len(body.body)
    return portions


def live_messages(
    flushed: Flushed, traces: Mapping[bytes, str | None], pushed: Container[str]
) -> list[tuple[str, LiveMessage, str | None]]:
    """For each user or topic that is to be told: the subject, what to say there, its trace."""
    owners: dict[str, list[ChannelChange]] = {}
    for change in flushed.changes:
        if change.channel not in pushed:
            continue
        owners.setdefault(owner_of(change.channel), []).append(change)
    return [
        (
            _subject(owner, changes[0].channel),
            _live_message(flushed, changes),
            _trace(changes, traces),
        )
        for owner, changes in owners.items()
    ]


def _entries(
    groups: Iterable[LaneGroup], bodies: dict[bytes, Body]
) -> Iterable[tuple[EntryKey, Entry]]:
    for group in groups:
        for update in group.updates:
            entry = update.entry()
            bodies.setdefault(entry.order.ref, _body(update, entry.order.ref))
            for channel in group.channels:
                yield EntryKey(channel, update.item, update.facet), entry


def _body(update: LaneUpdate, ref: bytes) -> Body:
    return Body(
        ref,
        update.update_id,
        bytes(update.body),
        update.published_at,
        update.accepted_at,
        update.trace,
    )


def _subject(owner: str, channel: str) -> str:
    if owner.startswith("user:"):
        return subjects.live_user(owner.removeprefix("user:"))
    return subjects.live_topic(feed_of(channel))


def _live_message(flushed: Flushed, changes: Iterable[ChannelChange]) -> LiveMessage:
    channels = [
        LiveChannel(
            change.channel,
            change.before,
            change.head,
            change.floor,
            _updates(change, flushed.bodies),
        )
        for change in changes
    ]
    return LiveMessage(flushed.epoch, channels)


def _updates(change: ChannelChange, bodies: Mapping[bytes, bytes]) -> list[Raw] | None:
    """The updates of a change; None when only the head can be said.

    That is so when nothing was newer (whoever flushed it first may have died before saying so), and
    when a row only learnt of its item's birth: its body is older than this flush.
    """
    if not change.placed or any(placed.entry.order.ref not in bodies for placed in change.placed):
        return None
    return [
        Raw(
            public_update(
                change.channel,
                placed.seq,
                rank=placed.entry.rank,
                born=placed.entry.born,
                body=bodies[placed.entry.order.ref],
            )
        )
        for placed in change.placed
    ]


def _trace(changes: Iterable[ChannelChange], traces: Mapping[bytes, str | None]) -> str | None:
    if not traces:
        return None
    placed = chain.from_iterable(change.placed for change in changes)
    refs = (one.entry.order.ref for one in placed)
    return trace.representative(traces.get(ref) for ref in refs)
