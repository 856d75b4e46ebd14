"""The publisher for a peer, in a process of its own: it keeps its schedule, whatever comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from benchmarks.load_process import Link
from benchmarks.peers.message import encode, receiver_of
from benchmarks.publisher import Burst, Published, post_all
from benchmarks.traffic import Traffic

Publish = Callable[[str, bytes, str], Awaitable[None]]
"""Publishes a message on a channel under an id, and returns when it is accepted; raises
OutcomeUnknown or Unavailable."""
Sabotage = Literal["", "drop", "double", "misdirect"]
"""What is done wrong on purpose, so that one sees whether it is noticed."""
NOBODY: Final = "nobody"


class Publishing(Protocol):
    """How messages are published to one peer; passed to another process, so it is picklable."""

    def open(self) -> AbstractAsyncContextManager[Publish]:
        """Connect."""
        ...


@dataclass(frozen=True, slots=True)
class Reopen:
    """Connect again, to servers that were started again."""


@dataclass(frozen=True, slots=True)
class Letters:
    """What is published, and with which fault."""

    publishing: Publishing
    traffic: Traffic
    payload_bytes: int
    sabotage: Sabotage = ""


async def send(link: Link, letters: Letters) -> None:
    """The load: connects, and answers each Burst with a Published."""
    while True:
        async with letters.publishing.open() as publish:
            link.send(None)
            while isinstance(command := await link.receive(), Burst):
                link.send(await send_all(publish, letters, command))


async def send_all(publish: Publish, letters: Letters, burst: Burst) -> Published:
    """Publish all of a burst on its schedule, with the fault in its middle."""
    traffic = letters.traffic
    victim = burst.first + burst.count // 2 if burst.recorded else -1

    async def post(number: int, *, due: int, recorded: bool) -> None:
        channel = receiver_of(traffic, number)
        fault = letters.sabotage if number == victim else ""
        receiver = NOBODY if fault == "misdirect" else channel

        def message(item: str) -> bytes:
            size = letters.payload_bytes
            return encode(number, item, receiver=receiver, due=due, recorded=recorded, size=size)

        item, message_id = f"item-{number}", traffic.update_id(number)
        if fault != "drop":
            await publish(channel, message(item), message_id)
        if fault == "double":
            # Of another item and id: a peer that knows those would make one of the two, rightly.
            await publish(channel, message(f"{item}-again"), f"{message_id}-again")

    return await post_all(post, burst)
