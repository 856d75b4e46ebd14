"""Pages of a snapshot, each of another moment, and what follows from their cursor: exactly the log.

The log is a model, the answers and the client are real.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livefeed_client import FeedState
from livefeed_client.pages import Page, of_one_epoch, read_snapshot_pages, state_of
from livefeed_client.state import Cursor

from gateway.snapshots import read_snapshot
from livefeed.adapters.postgres.reads import StoredUpdate
from livefeed.adapters.postgres.snapshot_reads import SnapshotPage
from livefeed.channel import channels_of, client_name
from livefeed.entry import Entry, born_of, merge
from livefeed.errors import Refused
from livefeed.feed_view import PageKey, PageQuery, parse_query
from livefeed.identity import update_ref
from livefeed.messages import public_update
from livefeed.order import order_key
from livefeed.update import CONTENT_REMOVAL, KINDS, facet_of
from tests.reference_feed import Moment, reference_page

USER, FEED = "alice", "home"
OWN, EVERYONES = channels_of(USER, FEED)
ITEMS = "abcdef"
NEW, UPDATE, REMOVAL, ENGAGEMENT = range(4)


@dataclass
class Channel:
    """One channel of the log: (item, facet) → its newest entry, and where it stands."""

    head: int = 0
    floor: int = 0
    places: dict[tuple[str, int], tuple[int, Entry]] = field(default_factory=dict)


class Log:
    """A log of a feed's two channels, and every moment that it went through."""

    def __init__(self) -> None:
        self.channels = {OWN: Channel(), EVERYONES: Channel()}
        self.bodies: dict[bytes, bytes] = {}
        self.moments: list[Moment] = []
        self._numbers = 0
        self._remember()

    def write(
        self,
        item: str,
        kind: int,
        *,
        channel: str = OWN,
        rank: float | None = None,
        stamp: int | None = None,
        version: int | None = None,
    ) -> None:
        """An update comes; it changes what it is newer than."""
        self._numbers += 1
        stamp = self._numbers if stamp is None else stamp
        ref = update_ref(f"u{self._numbers}", item)
        order = order_key(version=version, timestamp_microseconds=stamp, ref=ref)
        self.bodies[ref] = _body(item, kind, self._numbers, version)
        given, here = Entry(order, kind, rank, born_of(kind, stamp)), self.channels[channel]
        seq, held = here.places.get((item, facet_of(kind)), (0, None))
        merged = given if held is None else merge(held, given)
        if merged == held:
            return
        # A removed item that learns of its birth stays where it is.
        if held is None or merged.order != held.order or held.kind != CONTENT_REMOVAL:
            here.head += 1
            seq = here.head
        here.places[item, facet_of(kind)] = (seq, merged)
        self._remember()

    def raise_floor(self, channel: str, floor: int) -> None:
        """Everything at or below it is gone."""
        here = self.channels[channel]
        here.floor = max(here.floor, min(here.head, floor))
        here.places = {key: held for key, held in here.places.items() if held[0] > here.floor}
        self._remember()

    def write_anything(self, choices: random.Random) -> None:
        """Whatever may happen to a log."""
        channel = choices.choice((OWN, EVERYONES))
        if choices.random() < 0.1:
            floor = self.channels[channel].head - choices.randint(0, 6)
            self.raise_floor(channel, floor)
            return
        self.write(
            choices.choice(ITEMS),
            choices.choice((NEW, NEW, UPDATE, UPDATE, REMOVAL, ENGAGEMENT, ENGAGEMENT)),
            channel=channel,
            rank=choices.choice((None, -1.0, 0.0, 1.0, 2.0)),
            stamp=choices.choice((None, None, choices.randint(1, 5))),
            version=choices.choice((None, None, None, choices.randint(0, 9))),
        )

    def updates_above(self, positions: Mapping[str, int]) -> dict[str, Any]:
        """The frame that brings everything above some positions."""
        moment = self.moments[-1]
        updates = [
            json.loads(public_update(name, one.seq, rank=one.rank, born=one.born, body=one.body))
            for name, entries in moment.entries.items()
            for one in sorted(entries)
            if one.seq > positions.get(client_name(name), 0)
        ]
        return {
            "type": "feed_updates",
            "updates": updates,
            "cursor": {client_name(name): head for name, head in moment.heads.items()},
            "floor": {client_name(name): floor for name, floor in moment.floors.items()},
        }

    def _remember(self) -> None:
        entries = {
            name: [
                StoredUpdate(
                    seq, facet, entry.kind, entry.rank, entry.born, self.bodies[entry.order.ref]
                )
                for (_, facet), (seq, entry) in channel.places.items()
            ]
            for name, channel in self.channels.items()
        }
        heads = {name: channel.head for name, channel in self.channels.items()}
        floors = {name: channel.floor for name, channel in self.channels.items()}
        self.moments.append(Moment("e1", heads, floors, entries))


class Server:
    """Answers for pages, each of the moment that `choose` says."""

    def __init__(self, log: Log, limit: int, choose: Callable[[], Moment]) -> None:
        self._log = log
        self._limit = limit
        self._choose = choose

    async def snapshot_page(self, user_id: str, feed: str, query: PageQuery) -> SnapshotPage:
        """What `LogReader` has."""
        return reference_page(self._choose(), user_id, feed, query)

    async def get(self, parameters: Mapping[str, str]) -> Page:
        """One answer, as a client gets it."""
        query = parse_query({"limit": str(self._limit), **parameters})
        page: Page = json.loads(await read_snapshot(self, USER, FEED, query))  # type: ignore[arg-type]
        return page


def shown(state: FeedState) -> list[Any]:
    return [(one.place, one.seq, one.content, one.engagement) for one in state.items(FEED)]


def shown_facet(item: Mapping[str, Any]) -> Any:
    return item["content"] or item["engagement"]


def agree(log: Log, state: FeedState) -> None:
    """A client that follows on holds what one holds that was there from the beginning."""
    whole = FeedState()
    whole.apply(log.updates_above({}))
    state.apply(log.updates_above(state.cursor.positions))
    assert shown(state) == shown(whole)
    # Engagement without content shows when its content comes.
    for channel in (OWN, EVERYONES):
        for item in ITEMS:
            log.write(item, NEW, channel=channel, version=10)
    for one in (state, whole):
        one.apply(log.updates_above(one.cursor.positions))
    assert shown(state) == shown(whole)
    assert state.cursor.positions == whole.cursor.positions


@given(st.randoms(use_true_random=False), st.integers(0, 40), st.integers(1, 4))
@settings(max_examples=400)
async def test_pages_of_any_moments_and_what_follows_are_the_log(
    choices: random.Random, writes: int, limit: int
) -> None:
    log = Log()
    for _ in range(writes):
        log.write_anything(choices)

    def choose() -> Moment:
        for _ in range(choices.randint(0, 4)):
            log.write_anything(choices)
        return choices.choice(log.moments[-12:])

    pages = await read_snapshot_pages(Server(log, limit, choose).get)
    assert of_one_epoch(pages)
    for _ in range(choices.randint(0, 3)):
        log.write_anything(choices)
    agree(log, state_of(pages))


@given(st.randoms(use_true_random=False), st.integers(0, 40), st.integers(1, 4))
async def test_pages_of_one_moment_show_each_item_once_and_in_order(
    choices: random.Random, writes: int, limit: int
) -> None:
    """No page more is read, and nothing has to be followed."""
    log = Log()
    for _ in range(writes):
        log.write_anything(choices)
    pages = await read_snapshot_pages(Server(log, limit, lambda: log.moments[-1]).get)
    items = [item for page in pages for item in page["items"]]
    keys = [(item["channel"], shown_facet(item)["id"]) for item in items]
    assert len(set(keys)) == len(keys)
    assert len(pages) == max(1, -(-len(items) // limit))
    ranks = [-float("inf") if item["rank"] is None else item["rank"] for item in items]
    assert ranks == sorted(ranks, reverse=True)
    whole = FeedState()
    whole.apply(log.updates_above({}))
    assert shown(state_of(pages)) == shown(whole)
    assert all(page["unread"] == len(shown(whole)) for page in pages)


async def test_the_largest_position_would_lose_an_item() -> None:
    """`b` moves up after the first page was made: it is in neither page, and below the second."""
    log = Log()
    log.write("a", NEW, rank=2.0)
    log.write("b", NEW, rank=1.0)
    server = Server(log, 1, lambda: log.moments[-1])
    first = await server.get({})
    log.write("b", UPDATE, rank=3.0)
    second = await server.get({"after": first["next"]})
    pages = [first, second]
    assert [item["content"]["id"] for page in pages for item in page["items"]] == ["a"]
    largest = FeedState()
    largest.apply(log.updates_above(Cursor.parse(second["cursor"]).positions))
    assert largest.items(FEED) == []
    agree(log, state_of(pages))


async def test_engagement_goes_with_its_content_past_every_page() -> None:
    """It did not change, so no position brings it again: it is read by itself."""
    log = Log()
    log.write("a", NEW, rank=2.0)
    log.write("b", NEW, rank=1.0)
    log.write("b", ENGAGEMENT)
    moments = [log.moments[-1]]
    log.write("b", UPDATE, rank=3.0)
    moments += log.moments[-1:] * 2
    server = Server(log, 1, lambda: moments.pop(0))
    pages = await read_snapshot_pages(server.get)
    assert [len(page["items"]) for page in pages] == [1, 0, 1]
    lost = state_of(pages[:2])
    lost.apply(log.updates_above(lost.cursor.positions))
    assert [item.engagement for item in lost.items(FEED)] == [None, None]
    agree(log, state_of(pages))


async def test_a_floor_takes_content_from_its_engagement() -> None:
    """Between pages with one cursor: nothing was written, and still it is in none of them."""
    log = Log()
    for item, rank in (("b", 1.0), ("a", 2.0), ("c", 0.0)):
        log.write(item, NEW, rank=rank)
    log.write("b", ENGAGEMENT)
    before = log.moments[-1]
    log.raise_floor(OWN, 1)
    after = log.moments[-1]
    moments = [before, after, before, after]
    pages = await read_snapshot_pages(Server(log, 1, lambda: moments.pop(0)).get)
    shown_ids = [[item["id"] for item in map(shown_facet, page["items"])] for page in pages]
    assert shown_ids == [["a"], ["c"], [], ["b"]]
    assert len({page["cursor"] for page in pages}) == 1
    agree(log, state_of(pages))


async def test_what_is_below_the_floor_of_any_page_is_gone() -> None:
    log = Log()
    log.write("a", NEW, rank=2.0)
    log.write("b", NEW, rank=1.0)
    server = Server(log, 1, lambda: log.moments[-1])
    first = await server.get({})
    log.raise_floor(OWN, 1)
    pages = [first, await server.get({"after": first["next"]})]
    for order in (pages, pages[::-1]):
        assert [item.id for item in state_of(order).items(FEED)] == ["b"]


async def test_pages_of_two_epochs_do_not_fit() -> None:
    log = Log()
    log.write("a", NEW)
    page = await Server(log, 1, lambda: log.moments[-1]).get({})
    assert of_one_epoch([page, page])
    assert not of_one_epoch([page, {**page, "cursor": "e2.0123456789abcdef:"}])


async def test_an_item_says_where_its_facets_stand() -> None:
    """What is of its content is null without content."""
    log = Log()
    log.write("a", NEW, rank=2.5, version=7)
    log.write("a", ENGAGEMENT)
    log.write("b", ENGAGEMENT)
    first, second = (await Server(log, 9, lambda: log.moments[-1]).get({}))["items"]
    assert first == {
        "channel": "me/home",
        "seq": 1,
        "rank": 2.5,
        "updateId": "u1",
        "timestamp": "2026-11-23T08:00:00Z",
        "version": 7,
        "content": {"id": "a", "n": 1},
        "engagementSeq": 2,
        "engagement": {"id": "a", "n": 2},
    }
    assert {name for name, value in second.items() if value is not None} == {
        "channel",
        "engagementSeq",
        "engagement",
    }


# Parameters.


@given(
    st.floats(allow_nan=False, max_value=1e300),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 1),
)
def test_a_place_reads_back(rank: float, item: int, channel: int) -> None:
    key = PageKey(rank, item, channel)
    assert PageKey.parse(str(key)) == key


def test_equal_queries_have_one_key() -> None:
    """However they are spelled: another order of types, a removal that is never shown, a zero."""
    both = [
        {"limit": "7", "types": "engagement_update,new_content"},
        {"limit": "007", "types": "new_content,content_removal,engagement_update"},
    ]
    assert len({parse_query(one) for one in both}) == 1
    assert len({parse_query(one).key() for one in both}) == 1
    zeros = [parse_query({"after": str(PageKey(zero, 1, 0))}) for zero in (0.0, -0.0)]
    assert zeros[0].key() == zeros[1].key()
    assert (
        parse_query({}).key() == PageQuery().key() == parse_query({"types": ",".join(KINDS)}).key()
    )
    assert parse_query({}) == PageQuery()
    place = str(PageKey(-1e300, -(2**63), 1))
    keys = {
        parse_query(one).key()
        for one in (
            {},
            {"limit": "200", "after": place},
            {"after": place},
            {"types": "new_content"},
        )
    }
    assert len(keys) == 4
    assert max(map(len, keys)) <= 40


@pytest.mark.parametrize(
    "parameters",
    [
        {"limit": "0"},
        {"limit": "201"},
        {"limit": "٣"},
        {"limit": ""},
        {"types": ""},
        {"types": "likes"},
        {"cursor": "e1:"},
        {"Limit": "1"},
        {"after": ""},
        {"after": "x"},
        {"after": "é" * 23},
        {"after": str(PageKey(1.0, 2, 0)) + "="},
        {"after": str(PageKey(1.0, 2, 0))[:-1] + "B"},
        {"after": str(PageKey(1.0, 2, 2))},
        {"after": str(PageKey(float("nan"), 2, 0))},
        {"after": str(PageKey(float("inf"), 2, 0))},
        {"after": "A" * 8_000},
    ],
)
def test_what_is_no_parameter_is_refused(parameters: dict[str, str]) -> None:
    with pytest.raises(Refused) as refused:
        parse_query(parameters)
    assert refused.value.code == "parameter_invalid"


def _body(item: str, kind: int, number: int, version: int | None) -> bytes:
    return json.dumps(
        {
            "updateId": f"u{number}",
            "updateType": KINDS[kind],
            "feedType": FEED,
            "content": {"id": item, "n": number},
            "timestamp": "2026-11-23T08:00:00Z",
            "version": version,
        }
    ).encode()
