"""What prioritize plans: lanes, partitions, bounds."""

import json
from collections.abc import Iterable
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.lane_plan import Contexts, Page, plan
from functions.reading import Reading, read_update
from livefeed.adapters.nats.publish import Outbound
from livefeed.channel import owner_of
from livefeed.context import RecipientContext
from livefeed.entry import Entry, EntryKey, coalesce
from livefeed.limits import (
    LANE_MESSAGE_BYTES_MAX,
    LANE_MESSAGE_CHANNELS_MAX,
    LANE_MESSAGE_ROWS_MAX,
)
from livefeed.messages import decode_lane_message
from livefeed.partition import partition_of
from livefeed.priority import lane_of
from livefeed.update import Followers, parse_update

NOW = 1_800_000_000_000_000


def reading_of(payload: bytes, *, subject: str = "") -> Reading:
    """An update as prioritize reads it."""
    parsed, items = parse_update(payload, now_microseconds=NOW)
    return read_update(
        parsed,
        items,
        subject=subject or "feed.updates.medium.tests",
        accepted_at=NOW,
        traceparent=None,
    )


def planned(
    update: dict[str, Any], *, contexts: Contexts | None = None, subject: str = ""
) -> list[Any]:
    """`(lane, partition, message)` of each lane message that an update becomes."""
    reading = reading_of(json.dumps(update).encode(), subject=subject)
    assert not isinstance(reading.audience, Followers)
    return [
        (*subject.split(".")[2:], decode_lane_message(payload))
        for subject, payload, _ in outbound([Page(reading, reading.audience)], contexts)
    ]


def outbound(pages: list[Page], contexts: Contexts | None = None) -> list[Outbound]:
    """What is published for some pages, where nothing takes the short way."""
    return [message.outbound() for message in plan(pages, contexts or {}, lane_of)]


def an_update(**changes: Any) -> dict[str, Any]:
    """A personal update."""
    return {
        "updateId": "u1",
        "userId": "alice",
        "feedType": "home",
        "updateType": "new_content",
        "content": {"id": "p1"},
        "timestamp": "2026-11-23T08:00:00Z",
        **changes,
    }


def audience_of(reading: Reading) -> list[str]:
    """Whom it is for, by name."""
    assert isinstance(reading.audience, list)
    return reading.audience


def rows_of(messages: Iterable[Outbound]) -> list[tuple[EntryKey, Entry]]:
    """What lane messages bring to the log."""
    return [
        (EntryKey(channel, update.item, update.facet), update.entry())
        for _, payload, _ in messages
        for group in decode_lane_message(payload).groups
        for update in group.updates
        for channel in group.channels
    ]


@pytest.mark.parametrize("kind", ["new_content", "content_removal", "engagement_update"])
def test_the_lane_of_a_topic_is_the_published_priority(kind: str) -> None:
    """There is no one recipient to decide for."""
    update = an_update(userId=None, audience={"feed": True}, priority="low", updateType=kind)
    assert [found for found, _, _ in planned(update)] == ["low"]


def test_each_recipient_has_a_lane_of_their_own() -> None:
    """One update, three users: who is there, who is not, and who has muted the feed."""
    users = ["here", "away", "muted"]
    contexts = {
        ("here", "home"): RecipientContext(online=True, on_screen=True, muted=False),
        ("away", "home"): RecipientContext(online=False, on_screen=False, muted=False),
        ("muted", "home"): RecipientContext(online=True, on_screen=True, muted=True),
    }
    update = an_update(userId=None, audience={"users": users}, priority="medium")
    found = {
        name: (lane, group.push)
        for lane, _, message in planned(update, contexts=contexts)
        for group in message.groups
        for name in group.channels
    }
    assert found == {
        "user:here/home": ("medium", True),
        "user:away/home": ("low", True),
        "user:muted/home": ("low", False),
    }


def test_a_large_audience_does_not_fill_the_high_lane() -> None:
    """What is one page is as urgent as the update, parts of more leave room for others."""
    payload = json.dumps(an_update(priority="high")).encode()
    reading = reading_of(payload)
    for is_part, lane in ((False, "high"), (True, "medium")):
        page = Page(reading, ["alice"], is_part=is_part)
        ((subject, _, _),) = outbound([page])
        assert subject.split(".")[2] == lane


def test_without_a_priority_the_subject_decides() -> None:
    """A publisher that leaves the field out has said it in the subject."""
    ((lane, _, _),) = planned(an_update(), subject="feed.updates.high.tests")
    assert lane == "high"


@given(
    users=st.integers(1, 3000),
    items=st.integers(1, 100),
    size=st.integers(0, 4000),
)
def test_lane_messages_keep_their_bounds_and_lose_nobody(users: int, items: int, size: int) -> None:
    """Every user gets every item, in its own partition, and no message is too large."""
    update = an_update(
        userId=None,
        audience={"users": [f"user-{number}" for number in range(users)]},
        content=[{"id": f"p{number}", "text": "x" * size} for number in range(items)],
    )
    update["content"] = update["content"][: max(1, 400_000 // (size + 50))]
    rows = set()
    for _, partition, message in planned(update):
        assert sum(group.rows for group in message.groups) <= LANE_MESSAGE_ROWS_MAX
        for group in message.groups:
            assert len(group.channels) <= LANE_MESSAGE_CHANNELS_MAX
            assert {partition_of(owner_of(name)) for name in group.channels} == {int(partition)}
            rows |= {(name, one.item) for name in group.channels for one in group.updates}
    assert len(rows) == users * len(update["content"])


def test_the_largest_item_fits_a_message() -> None:
    """An item at its bound, for many users with long names, stays below the bound."""
    update = an_update(
        userId=None,
        audience={"users": [f"{number:0128d}" for number in range(1000)]},
        content={"id": "p", "text": "x" * 60_000},
    )
    reading = reading_of(json.dumps(update).encode())
    assert isinstance(reading.audience, list)
    page = Page(reading, reading.audience)
    sizes = [len(payload) for _, payload, _ in outbound([page])]
    assert max(sizes) <= LANE_MESSAGE_BYTES_MAX


def test_the_audience_is_not_in_what_clients_read() -> None:
    """A recipient does not learn who else got an update."""
    update = an_update(userId=None, audience={"users": ["alice", "bob"]})
    bodies = [bytes(one.body) for _, _, m in planned(update) for g in m.groups for one in g.updates]
    assert bodies
    assert not any(b"bob" in body for body in bodies)


def test_the_content_is_the_publishers_own_bytes() -> None:
    """Numbers keep their form: nothing is read and written again on the way."""
    raw = json.dumps(an_update()).replace('{"id": "p1"}', '{"id":"p1","n":1.50,"b":1e2}').encode()
    reading = reading_of(raw)
    assert b'{"id":"p1","n":1.50,"b":1e2}' in bytes(reading.updates[0].body)


@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(["p1", "p2"]),
            st.sampled_from(["new_content", "content_update", "content_removal"]),
            st.integers(1, 4),
            st.sampled_from([["ann"], ["ann", "bob"], ["ann", "bob", "eve"]]),
        ),
        max_size=30,
    )
)
def test_what_is_handled_together_ends_as_what_is_handled_apart(
    changes: list[tuple[str, str, int, list[str]]],
) -> None:
    """Updates for the same people become fewer, and the log ends in the same state."""
    readings = [
        reading_of(
            json.dumps(
                an_update(
                    updateId=f"u{number}",
                    userId=None,
                    audience={"users": users},
                    updateType=kind,
                    content={"id": item},
                    version=version,
                )
            ).encode()
        )
        for number, (item, kind, version, users) in enumerate(changes)
    ]
    pages = [Page(reading, audience_of(reading)) for reading in readings]
    together = rows_of(outbound(pages))
    apart = chain.from_iterable(rows_of(outbound([page])) for page in pages)
    assert coalesce(together) == coalesce(apart)
    # Removals are of another lane.
    kept = {(item, kind == "content_removal", *users) for item, kind, _, users in changes}
    assert len(together) <= sum(len(users) for _, _, *users in kept)
