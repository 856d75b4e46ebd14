"""What a flush persists and what it tells the gateways."""

from msgspec import Raw

from functions.flush import Portion, live_messages, plan
from livefeed.adapters.postgres.log import Body, ChannelChange, Flushed, Placed
from livefeed.entry import EntryKey
from livefeed.limits import FLUSH_BYTES_MAX, FLUSH_ROWS_MAX, LIVE_MESSAGE_BYTES_MAX
from livefeed.messages import (
    LaneGroup,
    LaneMessage,
    LaneUpdate,
    decode_live_message,
    encode_live_message,
)

EVERYBODY = frozenset({"user:a/home", "user:a/work", "user:b/home", "topic:home"})
"""Every channel of these tests."""
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def lane_update(
    number: int,
    *,
    item: int = 1,
    version: int | None = None,
    size: int = 0,
    trace: str | None = None,
) -> LaneUpdate:
    """One item of one update."""
    return LaneUpdate(
        ref=f"{number:032x}",
        explicit=1,
        version=number if version is None else version,
        item=item,
        facet=0,
        kind=0,
        rank=None,
        born=number,
        update_id=f"u{number}",
        published_at=number,
        accepted_at=number,
        trace=trace,
        body=Raw(b'{"updateId":"u%d","x":"%s"}' % (number, b"x" * size)),
    )


def message(channels: list[str], *updates: LaneUpdate) -> LaneMessage:
    """A lane message of one group."""
    return LaneMessage([LaneGroup(channels, list(updates))])


def test_a_flush_holds_the_newest_of_each_item() -> None:
    """A thousand updates of one item are one row."""
    messages = [message(["user:a/home"], lane_update(number)) for number in range(1, 1001)]
    (portion,) = plan(messages).portions
    assert list(portion.entries) == [EntryKey("user:a/home", 1, 0)]
    assert [body.update_id for body in portion.bodies.values()] == ["u1000"]


def test_a_large_flush_is_split() -> None:
    """Each portion keeps its bounds, and no row is in two."""
    updates = [lane_update(number, item=number, size=1000) for number in range(1, 101)]
    channels = [f"user:{number}/home" for number in range(100)]
    portions = plan([message(channels, *updates)]).portions
    assert sum(len(portion.entries) for portion in portions) == 10_000
    for portion in portions:
        assert len(portion.entries) <= FLUSH_ROWS_MAX
        assert sum(len(body.body) for body in portion.bodies.values()) <= FLUSH_BYTES_MAX


def flushed(bodies: dict[bytes, Body], *changes: ChannelChange) -> Flushed:
    """The log's answer, with these bodies stored."""
    return Flushed("epoch", list(changes), {ref: body.body for ref, body in bodies.items()})


def traces(portion: Portion) -> dict[bytes, str | None]:
    """The traces of a portion's bodies."""
    return {ref: body.trace for ref, body in portion.bodies.items()}


def test_a_user_gets_one_message_for_all_channels() -> None:
    """Feeds of one user travel together, users apart."""
    portion = plan(
        [message(["user:a/home", "user:a/work", "user:b/home"], lane_update(1))]
    ).portions[0]
    (entry, *_) = portion.entries.values()
    changes = [
        ChannelChange(name, 0, 1, 0, [Placed(1, entry)])
        for name in ("user:a/home", "user:a/work", "user:b/home")
    ]
    live = live_messages(flushed(portion.bodies, *changes), traces(portion), EVERYBODY)
    assert [[channel.channel for channel in one.channels] for _, one, _ in live] == [
        ["user:a/home", "user:a/work"],
        ["user:b/home"],
    ]


def test_what_is_not_pushed_is_persisted_and_not_told() -> None:
    """A muted feed's devices find it in the log; beside it, others are told as always."""
    quiet = LaneMessage([LaneGroup(["user:a/work"], [lane_update(1)], push=False)])
    planned = plan([quiet, message(["user:a/home"], lane_update(1))])
    assert {key.channel for key in planned.portions[0].entries} == {"user:a/home", "user:a/work"}
    changes = [ChannelChange(name, 0, 1, 0) for name in ("user:a/home", "user:a/work")]
    ((_, live, _),) = live_messages(flushed({}, *changes), {}, planned.pushed)
    assert [channel.channel for channel in live.channels] == ["user:a/home"]


def test_one_update_that_is_pushed_tells_of_all() -> None:
    """A channel of which anything is to be told is told as a whole, or it would have a gap."""
    quiet = LaneMessage([LaneGroup(["user:a/home"], [lane_update(1)], push=False)])
    assert "user:a/home" in plan([quiet, message(["user:a/home"], lane_update(2))]).pushed


def test_a_flush_that_changed_nothing_says_the_head_only() -> None:
    """Whoever flushed it first may have died before saying so."""
    change = ChannelChange("user:a/home", 7, 7, 0)
    ((_, live, _),) = live_messages(flushed({}, change), {}, EVERYBODY)
    assert live.channels[0].updates is None
    assert live.channels[0].end == 7


def test_a_row_whose_body_is_not_at_hand_says_the_head_only() -> None:
    """A row that only learnt of its item's birth keeps an older body."""
    portion = plan([message(["user:a/home"], lane_update(1))]).portions[0]
    (entry,) = portion.entries.values()
    change = ChannelChange("user:a/home", 0, 1, 0, [Placed(1, entry)])
    ((_, live, _),) = live_messages(flushed({}, change), {}, EVERYBODY)
    assert live.channels[0].updates is None


def test_a_trace_reaches_the_live_message() -> None:
    """The publisher's context goes with what it published."""
    portion = plan([message(["user:a/home"], lane_update(1, trace=TRACE))]).portions[0]
    (entry,) = portion.entries.values()
    change = ChannelChange("user:a/home", 0, 1, 0, [Placed(1, entry)])
    ((subject, _, trace),) = live_messages(
        flushed(portion.bodies, change), traces(portion), EVERYBODY
    )
    assert trace == TRACE
    assert subject == "feed.users.YQ"


def test_a_live_message_that_would_be_too_large_says_the_heads() -> None:
    """The gateway then reads the log."""
    updates = [lane_update(number, item=number, size=30_000) for number in range(1, 12)]
    portion = plan([message(["topic:home"], *updates)]).portions[0]
    placed = [Placed(number, entry) for number, entry in enumerate(portion.entries.values(), 1)]
    change = ChannelChange("topic:home", 0, len(placed), 0, placed)
    ((subject, live, _),) = live_messages(
        flushed(portion.bodies, change), traces(portion), EVERYBODY
    )
    payload = encode_live_message(live)
    assert subject == "feed.topics.home"
    assert len(payload) <= LIVE_MESSAGE_BYTES_MAX
    assert decode_live_message(payload).channels[0].updates is None
