"""A connection between a log and a client, whatever happens to the pushes.

The log is a model, the client is the real one's state, the frames are real. Nothing here waits or
connects.
"""

import functools
import json
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livefeed_client import FeedState
from msgspec import Raw

from gateway.connection import Connection
from gateway.frames import Frame
from gateway.update_frames import live_frame, page_frame
from livefeed.access import Principal
from livefeed.adapters.postgres.reads import Heads, Page, StoredUpdate
from livefeed.cursor import client_epoch
from livefeed.errors import Refused
from livefeed.messages import LiveChannel, public_update
from livefeed.position import Position
from livefeed.protocol import CursorField, Subscribe, decode_frame

USER = "alice"
CHANNELS = ("user:alice/home", "topic:home")
CONTENT_UPDATE, REMOVAL = 1, 2


@dataclass
class ModelLog:
    """One channel: item → its newest entry."""

    name: str
    head: int = 0
    floor: int = 0
    entries: dict[str, StoredUpdate] = field(default_factory=dict)

    def write(self, item: str, kind: int) -> LiveChannel:
        """Move an item to a new seq; returns what would be pushed."""
        start, self.head = self.head, self.head + 1
        update_type = ["new_content", "content_update", "content_removal"][kind]
        body = json.dumps(
            {
                "updateId": f"u{self.head}",
                "updateType": update_type,
                "feedType": "home",
                "content": {"id": item, "n": self.head},
                "timestamp": "2026-11-23T08:00:00Z",
                "version": None,
            }
        ).encode()
        self.entries[item] = StoredUpdate(self.head, 0, kind, None, 1_000_000, body)
        public = public_update(self.name, self.head, rank=None, born=1_000_000, body=body)
        return LiveChannel(self.name, start, self.head, self.floor, [Raw(public)])

    def raise_floor(self, floor: int) -> None:
        """Drop everything at or below it."""
        self.floor = min(self.head, max(self.floor, floor))
        self.entries = {k: v for k, v in self.entries.items() if v.seq > self.floor}

    def page(self, position: int, epoch: str, entries_max: int) -> Page:
        """What comes after a position."""
        newer = sorted(one for one in self.entries.values() if one.seq > position)
        shown = newer[:entries_max]
        more = len(newer) > entries_max
        end = shown[-1].seq if more else max(self.head, self.floor)
        return Page(self.name, epoch, self.head, self.floor, end, more, shown)

    def visible(self) -> dict[str, int]:
        """Item → its number, of what is shown."""
        return {
            item: json.loads(one.body)["content"]["n"]
            for item, one in self.entries.items()
            if one.kind != REMOVAL
        }


class World:
    """A log of two channels, a connection, a client, and requests for pages that wait."""

    def __init__(self, choices: random.Random) -> None:
        self.choices = choices
        self.epoch = "epoch1"
        self.logs = {name: ModelLog(name) for name in CHANNELS}
        self.requests: list[tuple[str, int, Position]] = []
        self.full = False
        self.client = FeedState()
        self.resets = 0
        self.frames: list[dict[str, Any]] = []
        self.seen: dict[tuple[str, str], int] = {}
        self.connect()

    # What a connection needs of its surroundings.

    def request(self, connection: Connection, channel: str, *, later: bool = False) -> None:
        """Have a page sent some time."""
        if connection is self.connection:
            position = connection.positions[channel]
            self.requests.append((channel, position.position, position))

    def follow(self, _connection: Connection, _feed: str) -> None:
        """Nothing to do: pushes are offered by hand."""

    unfollow = follow

    @property
    def has_room(self) -> bool:
        """Whether the outbox takes more."""
        return not self.full

    def send(self, frame: Frame) -> None:
        """Give a frame to the client, and check that no item goes back."""
        parsed = json.loads(frame.payload)
        self.frames.append(parsed)
        assert not self.full or parsed["type"] != "feed_updates" or parsed["replay"]
        if parsed["type"] in {"reset", "connection_established"}:
            self.seen.clear()
            self.resets += parsed["type"] == "reset"
        for update in parsed.get("updates", ()):
            key = (update["channel"], update["content"]["id"])
            assert update["seq"] >= self.seen.get(key, 0)
            self.seen[key] = update["seq"]
        self.client.apply(parsed)

    # What happens.

    def connect(self) -> None:
        """Connect, with the cursor that the client holds."""
        self.requests.clear()
        self.full = False
        self.connection = Connection(
            "c", Principal(USER, ("*",), 2e9), epoch=self.epoch, catch_ups=self, subscriptions=self
        )
        self.connection.socket = self  # type: ignore[assignment]
        cursor = self.client.cursor
        self.connection.establish([])
        frame = {"type": "subscribe", "feeds": ["home"]}
        if cursor is not None and cursor.epoch:
            frame["cursor"] = {"epoch": cursor.epoch, "positions": dict(cursor.positions)}
        decoded = decode_frame(json.dumps(frame))
        assert isinstance(decoded, Subscribe)
        self.connection.subscribe(decoded.feeds, decoded.cursor)

    def write(self) -> None:
        """An update is flushed; its push is lost, doubled, late, or comes."""
        log = self.logs[self.choices.choice(CHANNELS)]
        batch = log.write(self.choices.choice("abcde"), self.choices.randrange(3))
        for _ in range(self.choices.choice([0, 1, 1, 1, 2])):
            self.connection.live(self.epoch, batch, functools.partial(live_frame, batch))

    def answer(self) -> None:
        """One waiting request gets its page."""
        if self.requests:
            number = self.choices.randrange(len(self.requests))
            channel, after, asked = self.requests.pop(number)
            page = self.logs[channel].page(after, self.epoch, self.choices.randint(1, 3))
            self.give(page, asked, after)

    def give(self, page: Page, asked: Position, after: int) -> None:
        """A page comes."""
        frames = functools.partial(page_frame, page, after)
        self.connection.page(page, asked, after=after, frames=frames)

    def resubscribe(self) -> None:
        """The client leaves the feed and comes back to it, from the beginning."""
        self.seen.clear()
        self.connection.unsubscribe(["home"])
        self.client = FeedState()
        epoch = client_epoch(self.connection.epoch, USER)
        self.client.apply({"type": "connection_established", "epoch": epoch})
        self.connection.subscribe(["home"], None)

    def trim(self) -> None:
        """A floor is raised."""
        log = self.logs[self.choices.choice(CHANNELS)]
        log.raise_floor(self.choices.randint(0, log.head))

    def fill(self) -> None:
        """The client stops reading, or reads again."""
        self.full = not self.full
        if not self.full:
            self.connection.has_room()

    def restore(self) -> None:
        """The log becomes another one, that may be behind."""
        self.epoch = f"epoch{int(self.epoch[5:]) + 1}"
        for log in self.logs.values():
            log.head = self.choices.randint(0, log.head)
            log.floor = min(log.floor, log.head)
            log.entries = {k: v for k, v in log.entries.items() if v.seq <= log.head}

    def check_heads(self, *, quietly: bool = False) -> None:
        """The gateway compares with the heads; meanwhile more may be written."""
        marks = self.connection.marks()
        heads = {name: log.head for name, log in self.logs.items()}
        floors = {name: log.floor for name, log in self.logs.items()}
        found = Heads(self.epoch, heads, floors)
        connection = self.connection
        for _ in range(0 if quietly else self.choices.randint(0, 2)):
            self.write()  # While the gateway waits for the answer.
        resets = self.resets
        expected = found.epoch != connection.epoch
        connection.head(found, marks)
        assert expected or self.resets == resets, "no reset under ordinary traffic"

    def finish(self) -> None:
        """No more faults: what waits is answered, and heads are compared."""
        if self.choices.random() < 0.3:
            self.connect()
        if self.full:
            self.fill()
        self.answer_all()
        self.check_heads(quietly=True)
        self.answer_all()

    def answer_all(self) -> None:
        """Every request, and those that follow from it, gets its page."""
        for _ in range(1000):
            self.answer()
        assert not self.requests


ACTIONS = ("write",) * 8 + ("answer", "answer_all") * 3
ACTIONS += ("trim", "fill", "connect", "check_heads", "restore", "resubscribe")


@settings(max_examples=400)
@given(
    actions=st.lists(st.sampled_from(ACTIONS), min_size=5, max_size=60),
    seed=st.integers(0, 2**32),
)
def test_a_client_ends_with_exactly_the_log(actions: list[str], seed: int) -> None:
    """Nothing missing, nothing extra, nothing back from the dead, and no item ever goes back."""
    world = World(random.Random(seed))
    for action in actions:
        getattr(world, action)()
    world.finish()
    shown = {name: {} for name in CHANNELS}
    names = {"me/home": CHANNELS[0], "all/home": CHANNELS[1]}
    for item in world.client.items("home"):
        shown[names[item.channel]][item.id] = item.content["n"]
    assert shown == {name: log.visible() for name, log in world.logs.items()}


def quiet_world() -> World:
    """A world whose client is caught up."""
    world = World(random.Random(7))
    world.answer_all()
    return world


def test_a_batch_of_another_epoch_resets_at_once() -> None:
    """The log is another one: nothing of the old one is mixed with it."""
    world = quiet_world()
    batch = world.logs["topic:home"].write("a", 0)
    world.epoch = "epoch2"
    world.connection.live("epoch2", batch, functools.partial(live_frame, batch))
    assert world.client.cursor is not None
    assert world.client.cursor.epoch.startswith("epoch2.")
    asked = sorted(request[:2] for request in world.requests)
    assert asked == [("topic:home", 0), ("user:alice/home", 0)]


def test_a_catch_up_goes_on_until_it_reached_what_was_pushed_meanwhile() -> None:
    """A page that was read before a commit is not the end when the commit was pushed already."""
    world = quiet_world()
    log = world.logs["topic:home"]
    lost = log.write("a", 0)
    world.connection.live("epoch1", log.write("b", 0), functools.partial(live_frame, lost))
    early = log.page(0, "epoch1", 9)
    batch = log.write("c", 0)
    world.connection.live("epoch1", batch, functools.partial(live_frame, batch))
    ((_, _, asked),) = world.requests
    world.requests.clear()
    world.give(early, asked, 0)
    assert [request[:2] for request in world.requests] == [("topic:home", 2)]


def test_a_cursor_ahead_of_the_log_starts_again() -> None:
    """A forged position, or a log that lost its end, must not hide what comes."""
    world = quiet_world()
    world.connection.unsubscribe(["home"])
    epoch = client_epoch("epoch1", USER)
    world.connection.subscribe(["home"], CursorField(epoch, {"me/home": 99}))
    (request,) = [one for one in world.requests if one[1] == 99]
    page = world.logs[request[0]].page(99, "epoch1", 9)
    world.give(page, request[2], 99)
    assert world.frames[-1]["type"] == "reset"
    assert world.frames[-1]["reason"] == "position_ahead"
    assert ("user:alice/home", 0) in [request[:2] for request in world.requests]


def test_another_users_cursor_subscribes_nothing() -> None:
    """It gets an error, and not one update."""
    world = quiet_world()
    epoch = client_epoch("epoch1", "bob")
    with pytest.raises(Refused) as refused:
        world.connection.subscribe(["work"], CursorField(epoch, {"me/work": 1}))
    assert refused.value.code == "cursor_foreign"
    assert world.connection.feeds == ["home"]


def test_a_narrower_token_ends_what_it_does_not_allow() -> None:
    """From the refresh on, a feed outside the claim is followed no more."""
    world = quiet_world()
    world.connection.refresh(Principal(USER, ("other",), 2e9))
    assert world.frames[-1]["code"] == "feed_forbidden"
    assert world.connection.feeds == []
