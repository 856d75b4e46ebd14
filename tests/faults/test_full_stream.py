"""A stream filled to its limit: publishers are told, room is made, and nothing is lost."""

import json
import re
from typing import Any

import pytest

from livefeed.adapters.nats.provision import provision
from livefeed.adapters.nats.publish import FULL_CODES, StreamRefused
from livefeed.limits import KIB, MIB
from livefeed.topology import LANE_STREAM, UPDATES
from tests.servers import Stack, until, update

FULL_BYTES = 2 * MIB
TEXT = "x" * (16 * KIB)
LEFT_OVER_BYTES = 16 * 5 * KIB
"""More than the messages of one update of 4 KiB to every partition."""


async def shrink(stack: Stack) -> None:
    """Give the streams a bound that a few updates fill."""
    await provision(await stack.nats(), replicas=1, bytes_max=FULL_BYTES)


async def fill(stack: Stack) -> list[dict[str, Any]]:
    """Publish until the stream is full; returns what was accepted."""
    accepted: list[dict[str, Any]] = []
    refused: StreamRefused | None = None
    while refused is None:
        number = len(accepted)
        one = update(id=f"p{number}", content={"id": f"p{number}", "text": TEXT})
        try:
            await stack.publish([one])
        except StreamRefused as error:
            refused = error
        else:
            accepted.append(one)
    assert refused.code in FULL_CODES
    assert "livefeed pool" in str(refused)
    assert 20 < len(accepted) < 200
    return accepted


async def bytes_of(stack: Stack, stream: str) -> int:
    """How full a stream is."""
    info = await (await stack.nats()).jetstream().stream_info(stream)
    return info.state.bytes


async def test_a_full_stream_refuses_until_there_is_room_again(stack: Stack) -> None:
    """What was accepted before and after is in the log, and nothing else."""
    await shrink(stack)
    accepted = await fill(stack)
    await stack.start_gateway()
    late = update(id="late", content={"id": "late", "text": TEXT})

    with pytest.raises(StreamRefused):
        await stack.publish([late])

    async def accepts() -> bool:
        try:
            await stack.publish([late])
        except StreamRefused:
            return False
        return True

    await stack.start_pool(retain_seconds=1)
    await until(accepts, seconds=20, what="there is room again")
    await stack.settled()
    snapshot = await stack.snapshot("alice")
    assert {item.id for item in snapshot.items} == {one["content"]["id"] for one in accepted} | {
        "late"
    }


async def test_full_lanes_hold_prioritize_and_lose_nothing(stack: Stack) -> None:
    """While deliver is away prioritize keeps what does not fit, tries again, and goes on."""
    await shrink(stack)
    await stack.start_gateway()
    prioritize = await stack.start_worker("prioritize")
    users = [f"user{number}" for number in range(40)]
    updates = [
        # In every partition, so that the lanes are full long before the stream of updates is.
        update(audience={"users": users}, content={"id": f"p{number}", "text": TEXT[: 4 * KIB]})
        for number in range(60)
    ]
    await stack.publish(updates, "medium")
    await until(lambda: "holds" in prioritize.output(), seconds=20, what="something is held")

    async def lanes_are_full() -> bool:
        # What is refused is tried again in halves, until not even the last of them fits.
        return await bytes_of(stack, LANE_STREAM) > FULL_BYTES - LEFT_OVER_BYTES

    await until(lanes_are_full, seconds=30, what="the lanes are full")
    assert await bytes_of(stack, UPDATES) < FULL_BYTES / 2
    assert prioritize.running
    await stack.start_pool(retain_seconds=1)
    await stack.settled(seconds=60)
    for user in (users[0], users[-1]):
        snapshot = await stack.snapshot(user)
        assert {item.id for item in snapshot.items} == {f"p{number}" for number in range(60)}


@pytest.mark.slow  # it is patient for half a minute
async def test_the_command_says_that_the_stream_is_full(stack: Stack) -> None:
    """It gives up with the cause and the mend, and says how many were accepted."""
    await shrink(stack)
    await fill(stack)
    lines = [update(id=f"q{number}", content={"id": "q", "text": TEXT}) for number in range(9)]
    publish = await stack.command("publish", "-", stdin="\n".join(map(json.dumps, lines)))
    assert publish.returncode != 0
    # Of a pipe that comes in pieces, the last may not even be sent when it gives up.
    assert re.search("accepted 0, duplicate 0, refused [1-9]$", publish.stdout, re.MULTILINE)
    assert "the stream is full" in publish.stderr
    assert "livefeed pool" in publish.stderr
    assert "Traceback" not in publish.stderr
