"""Many devices on one topic, some of them in its crowd: each ends with exactly the log."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livefeed_client import FeedState

from gateway.connection import Connection
from gateway.hub import Hub
from gateway.turn import Turn
from gateway.update_frames import Piece
from livefeed import subjects
from livefeed.access import Principal
from livefeed.adapters.postgres.reads import Heads
from livefeed.channel import topic_channel, user_channel
from livefeed.filters import ALL_TYPES, Types
from livefeed.limits import FRAMES_A_SECOND_MAX, FRAMES_BURST
from livefeed.messages import LiveMessage, encode_live_message
from tests.model_log import ModelLog, NoNats, Pipe

TOPIC = topic_channel("home")
NO_REMOVALS: Types = ALL_TYPES - {"content_removal"}


class Device:
    """A connection and its client."""

    def __init__(self, room: Room, user: str, types: Types) -> None:
        self.room = room
        self.user = user
        self.log = ModelLog(user_channel(user, "home"))
        self.client = FeedState()
        self.seen: dict[tuple[str, str], int] = {}
        self.sent_at: list[float] = []
        self.full = self.fails = False
        self.turns: list[Turn] = []
        self.wake_at: float | None = None
        self.connection = Connection(
            user,
            Principal(user, ("*",), 2e9),
            epoch=room.epoch,
            catch_ups=self,
            subscriptions=room.hub,
            types=types,
        )
        self.connection.socket = Pipe(self.receive, lambda: self.full)  # type: ignore[assignment]
        self.connection.establish(["home"])

    # What the connection needs around it.

    def now(self) -> float:
        """The clock."""
        return self.room.clock

    def request(self, turn: Turn) -> None:
        """Have its pages sent some time."""
        self.turns.append(turn)

    def wake(self, _connection: Connection, at: float) -> None:
        """Go on when the clock is there."""
        self.wake_at = at

    def retry_at(self) -> float:
        """In a moment."""
        return self.room.clock + 0.5

    def forget(self, _connection: Connection) -> None:
        """Nothing is called again."""

    def receive(self, payload: bytes) -> None:
        """Take a frame; no item goes back, and no second has too many."""
        if self.fails:
            raise RuntimeError("the transport is gone")
        frame: dict[str, Any] = json.loads(payload)
        if frame["type"] == "feed_updates":
            now = self.room.clock
            self.sent_at = [at for at in self.sent_at if at > now - 1] + [now]
            assert len(self.sent_at) <= FRAMES_A_SECOND_MAX
            short = FRAMES_BURST / FRAMES_A_SECOND_MAX
            assert sum(at > now - short + 1e-6 for at in self.sent_at) <= FRAMES_BURST
        if frame["type"] in {"reset", "connection_established"}:
            self.seen.clear()
        for update in frame.get("updates", ()):
            key = (update["channel"], update["content"]["id"])
            assert update["seq"] > self.seen.get(key, 0), "twice, or an older one"
            self.seen[key] = update["seq"]
        self.client.apply(frame)

    # What happens to it.

    def answer(self) -> None:
        """Its turn gets its pages."""
        while self.turns and not self.full:
            turn = self.turns.pop()
            for channel, after in turn.places:
                log = self.room.log if channel == TOPIC else self.log
                turn.give(channel, Piece(log.page(after, self.room.epoch, 3), after))
            self.connection.take(turn)

    def look(self) -> None:
        """Its positions are compared with the heads."""
        logs = (self.log, self.room.log)
        heads = {log.name: log.head for log in logs}
        floors = {log.name: log.floor for log in logs}
        self.connection.head(Heads(self.room.epoch, heads, floors), self.connection.marks())

    def personal(self) -> None:
        """An update of its own is flushed."""
        batch = self.log.write(self.room.choices.choice("ab"), 0)
        self.room.push(subjects.live_user(self.user), LiveMessage(self.room.epoch, [batch]))

    def fill(self) -> None:
        """It stops reading, or reads again."""
        self.full = not self.full
        self.connection.room_changed()

    def flip(self) -> None:
        """Somebody looks, or nobody."""
        self.connection.visible = not self.connection.visible

    def again(self) -> None:
        """It follows the feed anew, from the beginning."""
        self.seen.clear()
        self.connection.unsubscribe(["home"])
        self.client = FeedState()
        self.connection.establish(["home"])


class Room:
    """A topic, its devices and a clock."""

    def __init__(self, choices: random.Random) -> None:
        self.choices = choices
        self.clock = 1000.0
        self.epoch = "epoch1"
        self.log = ModelLog(TOPIC)
        self.hub = Hub(NoNats(), lambda: self.clock)  # type: ignore[arg-type]
        filters = [ALL_TYPES, ALL_TYPES, ALL_TYPES, NO_REMOVALS]
        self.devices = [Device(self, f"u{n}", types) for n, types in enumerate(filters)]
        self.settle()

    def push(self, subject: str, message: LiveMessage) -> None:
        """A live message comes."""
        self.hub._on_live(subject.encode(), b"", b"", encode_live_message(message))

    def flush(self, *, lost: bool = False) -> None:
        """An update of the topic is flushed."""
        batch = self.log.write(self.choices.choice("abcde"), self.choices.randrange(3))
        if not lost:
            self.push(subjects.live_topic("home"), LiveMessage(self.epoch, [batch]))

    def lose(self) -> None:
        """An update is flushed and its push is lost."""
        self.flush(lost=True)

    def trim(self) -> None:
        """A floor is raised."""
        self.log.raise_floor(self.choices.randint(0, self.log.head))

    def keep_up(self) -> None:
        """The topic is busy, with pauses as the budget likes them."""
        for _ in range(6):
            self.flush()
            self.pass_time(0.3)

    def hurry(self) -> None:
        """It is busier than the budget allows."""
        for _ in range(12):
            self.flush()
            self.pass_time(0.01)

    def pass_time(self, seconds: float) -> None:
        """Time passes, and wakes whoever asked for it."""
        end = self.clock + seconds
        while (due := self.next_wake()) is not None and due.wake_at <= end:
            self.clock, due.wake_at = max(self.clock, due.wake_at), None
            due.connection.go_on()
        self.clock = end

    def next_wake(self) -> Any:
        """The device that is woken first."""
        waiting = [one for one in self.devices if one.wake_at is not None]
        return min(waiting, key=lambda one: one.wake_at, default=None)

    def restore(self) -> None:
        """The log is another one."""
        self.epoch += "x"
        for log in (self.log, *(one.log for one in self.devices)):
            log.head = self.choices.randint(0, log.head)
            log.floor = min(log.floor, log.head)
            log.entries = {k: v for k, v in log.entries.items() if v.seq <= log.head}

    def one(self) -> Device:
        """Any device."""
        return self.choices.choice(self.devices)

    def settle(self) -> None:
        """Everything that waits is answered."""
        for _ in range(400):
            for device in self.devices:
                device.answer()
            if self.next_wake() is None and not any(
                one.turns and not one.full for one in self.devices
            ):
                return
            self.pass_time(0.5)
        raise AssertionError("it goes on for ever")

    def finish(self) -> None:
        """No more faults; the heads are compared."""
        for device in self.devices:
            if device.full:
                device.fill()
            if not device.connection.visible:
                device.flip()
        self.settle()
        for device in self.devices:
            device.look()
        self.settle()


ROOM = ("flush", "keep_up", "keep_up", "hurry", "lose", "trim", "settle", "restore")
DEVICE = ("answer", "look", "personal", "fill", "flip", "again")


@settings(max_examples=250)
@given(
    actions=st.lists(
        st.sampled_from([*ROOM[:-1] * 3, ROOM[-1], *DEVICE, "settle"]), min_size=4, max_size=50
    ),
    seed=st.integers(0, 2**32),
)
def test_each_device_ends_with_exactly_the_log(actions: list[str], seed: int) -> None:
    """Also its floor, whatever its neighbours did."""
    room = Room(random.Random(seed))
    for action in actions:
        getattr(room if action in ROOM else room.one(), action)()
    room.finish()
    for device in room.devices:
        shown = {(item.channel, item.id): item.content["n"] for item in device.client.items("home")}
        expected = {("all/home", item): n for item, n in room.log.visible().items()}
        expected |= {("me/home", item): n for item, n in device.log.visible().items()}
        if device.connection.types == ALL_TYPES:
            assert shown == expected
        assert device.connection.positions[TOPIC].position == room.log.head
        assert device.connection.positions[TOPIC].floor == room.log.floor


def crowded() -> Room:
    """A room whose devices are in the crowds of their filters."""
    room = Room(random.Random(7))
    for _ in range(4):
        room.keep_up()
    assert [len(room_crowd(room, types)) for types in (ALL_TYPES, NO_REMOVALS)] == [3, 1]
    return room


def room_crowd(room: Room, types: Types) -> Any:
    """The crowd of those with a filter."""
    return room.hub._crowds[subjects.live_topic("home")][types]


def test_a_busy_topic_is_bounded_for_its_crowd() -> None:
    """Over the budget they are behind, each for itself, and none is sent too much."""
    room = crowded()
    room.hurry()
    assert subjects.live_topic("home") not in room.hub._crowds
    room.finish()


def test_who_is_sent_something_else_leaves_and_the_others_stay() -> None:
    """Its budget goes on from what the crowd was sent."""
    room = crowded()
    crowd, device = room_crowd(room, ALL_TYPES), room.devices[0]
    for _ in range(20):
        device.personal()  # `receive` counts the frames of a second.
        room.flush()
        room.pass_time(0.01)
    assert device.connection not in crowd.members()


@pytest.mark.parametrize("other", ["a live batch", "a page"])
def test_what_was_sent_before_it_came_counts(other: str) -> None:
    """Nobody comes in whose last second the crowd does not know; `receive` counts the frames."""
    room = crowded()
    device = room.devices[0]
    room.pass_time(2)
    if other == "a page":
        device.log.write("lost", 0)
        device.look()
        device.answer()
    else:
        device.personal()
    for _ in range(FRAMES_BURST):
        room.flush()
        room.pass_time(0.02)
    assert len(device.sent_at) == FRAMES_BURST


def test_a_crowd_is_told_the_floor() -> None:
    """With the frame, as whoever is alone: nobody has to read a page for it."""
    room = crowded()
    room.trim()
    room.flush()
    assert room_crowd(room, ALL_TYPES).position.floor == room.log.floor > 0
    for device in room.devices:
        device.look()
        assert not device.turns


def test_a_member_that_cannot_be_written_to_is_closed_alone() -> None:
    """The others are sent the batch."""
    room = crowded()
    broken, closed = room.devices[1], []
    broken.fails = True
    broken.connection.socket.close = lambda code, _reason: closed.append(code)  # type: ignore[method-assign]
    room.flush()
    assert closed
    for device in (room.devices[0], room.devices[2]):
        assert device.client.cursor.positions["all/home"] == room.log.head


def test_the_last_one_to_leave_ends_the_subscription() -> None:
    """And not the first one."""
    room, ended = crowded(), []
    room.hub._nats.unsubscribe_now = ended.append  # type: ignore[method-assign]
    for number, device in enumerate(room.devices):
        device.connection.leave()
        assert len(ended) == number + 1 + (number == len(room.devices) - 1)
    assert not room.hub._crowds
    assert not room.hub._followers
