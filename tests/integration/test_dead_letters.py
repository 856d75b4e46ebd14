"""What can never be handled is put aside with its origin, and nothing else is held up by it."""

import json
from typing import Any

import pytest
from nats.js.errors import APIError, NoStreamResponseError

from livefeed import subjects
from livefeed.limits import STREAM_MESSAGE_BYTES_MAX, UPDATE_BYTES_MAX
from livefeed.topology import DEAD_LETTERS
from tests.servers import Stack, until, update

BAD: list[tuple[str, bytes]] = [
    ("invalid_json", b"{"),
    ("invalid_json", b"\xff\xfe"),
    ("invalid_update", b"[" * 100_000),
    ("invalid_update", b"{}"),
    ("invalid_update", json.dumps(update(user="a\n")).encode()),
    ("invalid_update", json.dumps(update(content={"id": ""})).encode()),
    ("timestamp_in_future", json.dumps(update(timestamp="2999-01-01T00:00:00Z")).encode()),
    ("too_large", b" " * (UPDATE_BYTES_MAX + 1)),
]


async def dead_letters(stack: Stack, count: int) -> list[Any]:
    """The dead letters, when there are so many."""
    jetstream = (await stack.nats()).jetstream()

    async def enough() -> bool:
        return (await jetstream.stream_info(DEAD_LETTERS)).state.messages >= count

    await until(enough, seconds=20, what=f"{count} dead letters")
    return [await jetstream.get_msg(DEAD_LETTERS, seq=number + 1) for number in range(count)]


async def test_bad_updates_are_put_aside_with_their_origin(stack: Stack) -> None:
    """Reason, error, subject, sequence and the original bytes; good ones among them arrive."""
    await stack.start_gateway()
    await stack.start_pool()
    jetstream = (await stack.nats()).jetstream()
    reader = stack.follow("alice")
    sequences = {}
    for number, (_, payload) in enumerate(BAD):
        ack = await jetstream.publish("feed.updates.high.tests", payload)
        sequences[ack.seq] = number
        await stack.publish([update(id=f"good{number}")])
    letters = await dead_letters(stack, len(BAD))
    for letter in letters:
        reason, payload = BAD[sequences[int(letter.headers["Livefeed-Sequence"])]]
        assert letter.subject == subjects.dead_letters(reason)  # type: ignore[arg-type]
        assert letter.data == payload
        assert letter.headers["Livefeed-Subject"] == "feed.updates.high.tests"
        assert letter.headers["Livefeed-Stream"] == "FEED_UPDATES"
        assert letter.headers["Livefeed-Error"]
    await until(lambda: len(reader.ids("home")) == len(BAD), what="the good ones are there")
    await stack.settled()


async def test_a_foreign_lane_message_is_put_aside(stack: Stack) -> None:
    """Bytes that prioritize never wrote do not stop a partition."""
    await stack.start_gateway()
    await stack.start_pool()
    jetstream = (await stack.nats()).jetstream()
    for lane in subjects.LANES:
        for partition in range(16):
            await jetstream.publish(subjects.lanes(lane, partition), b'{"groups":[]}')
    reader = stack.follow("alice")
    await stack.publish([update(id="p1")])
    await until(lambda: reader.ids("home") == ["p1"], what="the good one is there")
    letters = await dead_letters(stack, 48)
    assert {letter.headers["Livefeed-Reason"] for letter in letters} == {"invalid_lane_message"}


async def test_what_could_not_be_put_aside_is_refused_at_the_door(stack: Stack) -> None:
    """A message that leaves no room for a dead letter's headers is not accepted at all."""
    jetstream = (await stack.nats()).jetstream()
    with pytest.raises(APIError, match="maximum"):
        await jetstream.publish("feed.updates.low.tests", b" " * (STREAM_MESSAGE_BYTES_MAX + 1))


@pytest.mark.parametrize("subject", ["feed.updates.urgent.posts", "feed.updates"])
async def test_a_subject_that_nobody_reads_is_refused_at_the_door(
    stack: Stack, subject: str
) -> None:
    """A typo in the priority is an error for the publisher, not a lost update."""
    jetstream = (await stack.nats()).jetstream()
    with pytest.raises(NoStreamResponseError):
        await jetstream.publish(subject, json.dumps(update()).encode())


async def test_large_updates_for_many_users_pass(stack: Stack) -> None:
    """Forty times 300 KB for eighty users is more than is held at once, and all of it arrives."""
    await stack.start_gateway()
    await stack.start_pool()
    users = [f"user-{number}" for number in range(80)]
    updates = [
        update(
            audience={"users": users},
            content=[{"id": f"p{number}-{part}", "x": "x" * 60_000} for part in range(5)],
            priority="low",
        )
        for number in range(40)
    ]
    await stack.publish(updates)
    await stack.settled(seconds=60)
    snapshot = await stack.snapshot("user-7")
    assert len(snapshot.items) == 200
