"""A connection between a log and a client, whatever happens to the pushes.

The log is a model, the client is the real one's state, the frames are real. Nothing here waits or
connects.
"""

import functools
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
from gateway.update_frames import Piece, live_frame
from livefeed import subjects
from livefeed.access import Principal
from livefeed.adapters.postgres.reads import Heads, Page
from livefeed.cursor import client_epoch
from livefeed.errors import Refused
from livefeed.limits import (
    FRAMES_A_SECOND_MAX,
    FRAMES_BURST,
    HIDDEN_FRAME_SECONDS,
    HIDDEN_FRAMES_BURST,
)
from livefeed.messages import LiveMessage, encode_live_message
from livefeed.protocol import CursorField, Subscribe, decode_frame
from tests.model_log import ModelLog, NoNats, Pipe

USER = "alice"
CHANNELS = ("user:alice/home", "topic:home")
TOPIC = CHANNELS[1]


class World:
    """A log of two channels, a connection, a client, turns that wait for pages, and a clock."""

    def __init__(self, choices: random.Random) -> None:
        self.choices = choices
        self.epoch = "epoch1"
        self.logs = {name: ModelLog(name) for name in CHANNELS}
        self.turns: list[Turn] = []
        self.clock = 1000.0
        self.wake_at: float | None = None
        self.sent_at: list[float] = []
        """When frames of updates were sent on this connection."""
        self.full = False
        self.hub = Hub(NoNats(), self.now)  # type: ignore[arg-type]
        self.connection: Connection | None = None
        self.client = FeedState()
        self.resets = 0
        self.frames: list[dict[str, Any]] = []
        self.seen: dict[tuple[str, str], int] = {}
        self.connect()

    # What a connection needs of its surroundings.

    def now(self) -> float:
        """The clock."""
        return self.clock

    def request(self, turn: Turn) -> None:
        """Have its pages sent some time."""
        if turn.connection is self.connection:
            assert not self.turns, "one turn at a time"
            self.turns.append(turn)

    def wake(self, connection: Connection, at: float) -> None:
        """Go on when the clock is there."""
        assert at > self.clock
        if connection is self.connection:
            self.wake_at = at

    def retry_at(self) -> float:
        """In a moment."""
        return self.clock + 0.5

    def forget(self, _connection: Connection) -> None:
        """Nothing to do: it is never called again."""

    def receive(self, payload: bytes) -> None:
        """Give a frame to the client, and check that no item goes back."""
        parsed = json.loads(payload)
        self.frames.append(parsed)
        if parsed["type"] == "feed_updates":
            assert not self.full or parsed["replay"]
            self.sent_at.append(self.clock)
            within = [at for at in self.sent_at if at > self.clock - 1]
            assert len(within) <= FRAMES_A_SECOND_MAX
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
        if self.connection is not None:
            self.connection.leave()
        self.turns.clear()
        self.sent_at.clear()
        self.wake_at = None
        self.full = False
        principal = Principal(USER, ("*",), 2e9)
        self.connection = Connection(
            "c", principal, epoch=self.epoch, catch_ups=self, subscriptions=self.hub
        )
        self.connection.socket = Pipe(self.receive, lambda: self.full)  # type: ignore[assignment]
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
        self.flush(self.choices.choice(CHANNELS), self.choices.choice([0, 1, 1, 1, 2]))

    def flush(self, channel: str, pushes: int = 1) -> None:
        """An update is flushed, and its push comes so often."""
        batch = self.logs[channel].write(self.choices.choice("abcde"), self.choices.randrange(3))
        message = encode_live_message(LiveMessage(self.epoch, [batch]))
        topic = channel == TOPIC
        subject = subjects.live_topic("home") if topic else subjects.live_user(USER)
        for _ in range(pushes):
            self.hub._on_live(subject.encode(), b"", b"", message)

    def keep_up(self) -> None:
        """The topic is busy for a while, and its pushes come."""
        for _ in range(8):
            self.flush(TOPIC)
            self.pass_time(0.3)

    def write_many(self) -> None:
        """More than the budget allows live."""
        for _ in range(12):
            self.write()
            self.clock += 0.01

    def answer(self) -> None:
        """The turn that waits gets its pages; some of them could not be read."""
        if self.turns:
            turn = self.turns.pop()
            for channel, after in turn.places:
                page = self.logs[channel].page(after, self.epoch, self.choices.randint(1, 3))
                failed = self.choices.random() < 0.1
                turn.give(channel, None if failed else Piece(page, after))
            self.connection.take(turn)

    def answer_whole(self) -> None:
        """The turn that waits gets all there is."""
        turn = self.turns.pop()
        for channel, after in turn.places:
            turn.give(channel, Piece(self.logs[channel].page(after, self.epoch, 99), after))
        self.connection.take(turn)

    def give(self, turn: Turn, page: Page) -> None:
        """The one page of a turn comes."""
        self.turns.remove(turn)
        ((channel, after),) = turn.places
        assert turn.give(channel, Piece(page, after))
        self.connection.take(turn)

    def tick(self) -> None:
        """A moment passes."""
        self.pass_time(self.choices.choice([0.001, 0.05, 0.3, 2.0]))

    def pass_time(self, seconds: float) -> None:
        """Time passes, and wakes the connection when it asked for it."""
        end = self.clock + seconds
        while self.wake_at is not None and self.wake_at <= end:
            self.clock, self.wake_at = self.wake_at, None
            self.connection.go_on()
        self.clock = end

    def hide(self) -> None:
        """Nobody looks."""
        self.connection.visible = False

    def show(self) -> None:
        """Somebody looks."""
        self.connection.visible = True

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
        self.connection.room_changed()

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
        """Every turn, and those that follow from it, gets its pages, as time allows."""
        for _ in range(1000):
            if self.turns:
                self.answer()
            elif self.wake_at is not None and not self.full:
                self.pass_time(self.wake_at - self.clock)
            else:
                break
        assert not self.turns

    @property
    def asked(self) -> list[tuple[str, int]]:
        """What is asked for, in order."""
        return sorted(place for turn in self.turns for place in turn.places)


ACTIONS = ("write",) * 8 + ("answer", "answer_all") * 3 + ("write_many", "tick", "keep_up") * 2
ACTIONS += ("trim", "fill", "connect", "check_heads", "restore", "resubscribe", "hide", "show")


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
    assert world.asked == [("topic:home", 0), ("user:alice/home", 0)]


def test_a_catch_up_goes_on_until_it_reached_what_was_pushed_meanwhile() -> None:
    """A page that was read before a commit is not the end when the commit was pushed already."""
    world = quiet_world()
    log = world.logs["topic:home"]
    lost = log.write("a", 0)
    world.connection.live("epoch1", log.write("b", 0), functools.partial(live_frame, lost))
    early = log.page(0, "epoch1", 9)
    batch = log.write("c", 0)
    world.connection.live("epoch1", batch, functools.partial(live_frame, batch))
    (turn,) = world.turns
    world.give(turn, early)
    assert world.asked == [("topic:home", 2)]


def test_a_cursor_ahead_of_the_log_starts_again() -> None:
    """A forged position, or a log that lost its end, must not hide what comes."""
    world = quiet_world()
    world.connection.unsubscribe(["home"])
    world.logs["topic:home"].write("a", 0)
    epoch = client_epoch("epoch1", USER)
    world.connection.subscribe(["home"], CursorField(epoch, {"me/home": 99}))
    assert world.asked == [("topic:home", 0), ("user:alice/home", 99)]
    before = len(world.frames)
    world.answer_whole()
    (reset,) = world.frames[before:]
    assert (reset["type"], reset["reason"]) == ("reset", "position_ahead")
    assert world.asked == [("topic:home", 0), ("user:alice/home", 0)]
    world.answer_whole()
    assert [frame["type"] for frame in world.frames[before + 1 :]] == ["feed_updates", "caught_up"]


def pushed(world: World, item: str) -> None:
    """An update of the topic is flushed, and its push comes."""
    batch = world.logs["topic:home"].write(item, 0)
    world.connection.live("epoch1", batch, functools.partial(live_frame, batch))


def updates_since(world: World, number: int) -> list[dict[str, Any]]:
    """The frames of updates after the first `number` frames."""
    return [frame for frame in world.frames[number:] if frame["type"] == "feed_updates"]


def test_what_exceeds_the_budget_comes_in_one_frame() -> None:
    """Forty batches at once: a few live, then one page with the newest entry of each item."""
    world = quiet_world()
    before = len(world.frames)
    for number in range(40):
        pushed(world, f"item{number % 5}")
    world.pass_time(1)
    world.answer_whole()
    *live, page = updates_since(world, before)
    assert [frame["replay"] for frame in live] == [False] * len(live)
    assert len(live) < FRAMES_A_SECOND_MAX
    assert page["replay"]
    assert sorted(one["seq"] for one in page["updates"]) == [36, 37, 38, 39, 40]


def test_a_turn_has_its_place_in_the_budget() -> None:
    """While pages are under way live batches leave their frame its place."""
    world = quiet_world()
    world.logs["user:alice/home"].write("a", 0)
    world.check_heads(quietly=True)
    assert world.asked == [("user:alice/home", 0)]
    before = len(world.frames)
    for number in range(10):
        pushed(world, f"item{number}")
    assert len(updates_since(world, before)) == FRAMES_BURST - 1
    world.answer_whole()
    assert len(updates_since(world, before)) == FRAMES_BURST


def test_who_keeps_up_with_a_topic_is_in_its_crowd() -> None:
    """Until anything else is sent: then it goes on alone, from where the crowd was."""
    world = quiet_world()
    world.keep_up()
    crowd = world.connection._crowd
    assert crowd is not None
    world.keep_up()
    assert world.connection._crowd is crowd
    assert world.connection.positions[TOPIC].position == world.logs[TOPIC].head == 16
    world.flush(CHANNELS[0])
    assert world.connection._crowd is None
    assert not len(crowd)
    world.flush(TOPIC)
    assert world.connection.positions[TOPIC].position == world.logs[TOPIC].head
    assert not world.turns, "nothing was missed"
    world.keep_up()
    assert world.connection._crowd is not None


@pytest.mark.parametrize("event", ["hide", "fill", "resubscribe", "connect", "restore"])
def test_who_cannot_keep_up_leaves_the_crowd(event: str) -> None:
    """Whatever makes it different from the others."""
    world = quiet_world()
    world.keep_up()
    crowd = world.connection._crowd
    assert crowd is not None
    getattr(world, event)()
    world.flush(TOPIC)
    assert world.connection._crowd is None
    assert not len(crowd)


def test_a_lost_push_is_found_by_a_crowd_too() -> None:
    """By its next batch, or by the comparison of heads."""
    for finds in (lambda world: world.flush(TOPIC), lambda world: world.check_heads(quietly=True)):
        world = quiet_world()
        world.keep_up()
        world.logs[TOPIC].write("lost", 0)
        position = world.connection.positions[TOPIC].position
        finds(world)
        assert world.asked == [(TOPIC, position)]


def test_several_channels_catch_up_in_one_frame() -> None:
    """A connection that comes back to many feeds is not held up by the budget."""
    world = World(random.Random(7))
    for name in CHANNELS:
        world.logs[name].write("a", 0)
    world.connect()
    before = len(world.frames)
    world.answer_whole()
    (frame,) = updates_since(world, before)
    assert frame["cursor"] == {"me/home": 1, "all/home": 1}
    assert {one["channel"] for one in frame["updates"]} == {"me/home", "all/home"}


def test_a_hidden_connection_gets_few_frames_and_everything() -> None:
    """An update each half second for a minute: a frame each ten seconds, then exact when shown."""
    world = quiet_world()
    world.hide()
    before = len(world.frames)
    for number in range(115):
        pushed(world, f"item{number % 5}")
        world.pass_time(0.5)
        if world.turns:
            world.answer_whole()
    frames = updates_since(world, before)
    assert 6 <= len(frames) <= HIDDEN_FRAMES_BURST + 60 / HIDDEN_FRAME_SECONDS
    world.show()
    assert world.asked, "it is not made to wait when somebody looks"
    world.answer_all()
    assert world.client.cursor is not None
    assert world.client.cursor.positions["all/home"] == 115


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
