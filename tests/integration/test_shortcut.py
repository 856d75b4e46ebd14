"""What is urgent and for few is flushed by prioritize; where it cannot be, its lane takes it."""

from collections.abc import Sequence

from functions.flush import Flush
from functions.lane_plan import Addressed
from functions.shortcut import ROWS_MAX, Shortcut
from livefeed import subjects
from livefeed.errors import Unavailable, UpdateRefused
from livefeed.messages import LaneGroup, LaneMessage
from livefeed.subjects import Lane
from livefeed.topology import LANE_STREAM
from tests.integration.test_audiences import heads
from tests.servers import OwnServers, Stack, until, update


async def in_lanes(stack: Stack, lane: str = "*") -> int:
    """Messages that a lane's partitions ever got, as long as nothing is purged."""
    jetstream = (await stack.nats()).jetstream()
    state = (await jetstream.stream_info(LANE_STREAM, f"feed.lanes.{lane}.>")).state
    return sum((state.subjects or {}).values())


async def test_urgent_updates_need_no_lane_and_no_deliver(stack: Stack) -> None:
    """High, a removal and a topic arrive with prioritize alone; medium waits in its lane."""
    told: list[bytes] = []
    nats = await stack.nats()
    for subject in (subjects.live_user("alice"), subjects.live_topic("home")):
        nats.subscribe_direct(subject, lambda *parts: told.append(parts[3]))
    await stack.start_worker("prioritize")
    await stack.publish([update("alice", id="p1"), update("bob", id="p1")], "high")
    await stack.publish([update("alice", id="p0", kind="content_removal")], "medium")
    everyone = update(id="t1", audience={"feed": True})
    await stack.publish([everyone], "high")
    await until(lambda: len(told) == 3, what="devices are told")
    assert await heads(stack, ["alice", "bob"]) == {"alice": 2, "bob": 1}
    assert await in_lanes(stack) == 0
    await stack.publish([update("alice", id="p2")], "medium")

    async def waits() -> bool:
        return await in_lanes(stack) == 1

    await until(waits, what="medium is in its lane")
    assert await heads(stack, ["alice"]) == {"alice": 2}


async def test_what_is_for_many_takes_its_lane(stack: Stack) -> None:
    """A flush of more rows would keep the next urgent update waiting."""
    users = [f"user{number:05d}" for number in range(ROWS_MAX + 600)]
    await stack.start_worker("prioritize")
    await stack.publish([update(audience={"users": users})], "high")

    async def waits() -> bool:
        return await in_lanes(stack, "high") > 0

    await until(waits, what="some of it is in its lane")
    await stack.start_worker("deliver")
    await stack.settled()
    assert set((await heads(stack, users)).values()) == {1}


async def test_without_a_primary_the_lane_takes_it(
    own_stack: Stack, own_servers: OwnServers
) -> None:
    """Nothing waits in front of prioritize, and it arrives when the primary is back."""
    stack = own_stack
    await stack.start_worker("prioritize")
    await own_servers.postgres.stop()
    await stack.publish([update(f"user{number}", id="p1") for number in range(40)], "high")

    async def waits() -> bool:
        return await in_lanes(stack, "high") > 0

    await until(waits, seconds=20, what="it is in its lane")
    await own_servers.postgres.start()
    await stack.start_worker("deliver")
    await stack.settled()
    users = [f"user{number}" for number in range(40)]
    assert set((await heads(stack, users)).values()) == {1}


class Refusing(Flush):
    """A flush that says what it is told to."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.calls = 0

    async def __call__(self, messages: Sequence[LaneMessage]) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error


def addressed(lane: Lane, rows: int) -> Addressed:
    """A lane message of so many rows."""
    group = LaneGroup([f"user:{number}/home" for number in range(rows)], [None])  # type: ignore[list-item]
    return Addressed(lane, 0, LaneMessage([group]))


async def test_what_is_not_flushed_is_left_for_the_lanes() -> None:
    """Nothing is lost, whatever the flush says; and who is away is not asked each time."""
    urgent, wide, slow = addressed("high", 10), addressed("high", ROWS_MAX), addressed("low", 1)
    for error, left, calls in (
        (None, [wide, slow], 4),
        (UpdateRefused("not_persistable", "never"), [urgent, wide, slow], 4),
        (Unavailable("primary", "away"), [urgent, wide, slow], 3),
    ):
        flush = Refusing(error)
        shortcut = Shortcut(flush, clock=lambda: 0.0, jitter=lambda: 0.0)
        for _ in range(4):
            rest = await shortcut.take([urgent, wide, slow])
            assert rest == left, error
        assert flush.calls == calls, error
