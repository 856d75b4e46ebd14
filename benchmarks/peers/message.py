"""What is published: the same bytes for every peer; and whether each came once, to its receiver."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

import msgspec
from msgspec import Struct

from benchmarks.traffic import Traffic

FAULTS: Final = ("lost", "doubled", "foreign")
FILLER: Final = (
    "A sentence that stands for what a person would read, about as long as such are. " * 64
)
EVERYONE: Final = "everyone"
"""The receiver of a topic's messages, and the name of its channel."""


class Message(Struct, gc=False):
    """What is read of a message."""

    number: int = -1
    receiver: str = ""
    due: int = 0
    """When it had to be published, in nanoseconds of the clock that all processes share."""
    recorded: bool = False


def encode(number: int, item: str, *, receiver: str, due: int, recorded: bool, size: int) -> bytes:
    """A message of so many bytes, or more where it would not hold what it has to say.

    Args:
        number: Its own; the first is 0.
        item: What it is about.
        receiver: Whose it is.
        due: When it has to be published, in nanoseconds.
        recorded: Whether its latency counts.
        size: In bytes.
    """
    head = (
        f'{{"id":"{item}","number":{number},"receiver":"{receiver}","due":{due},'
        f'"recorded":{"true" if recorded else "false"},"text":"'
    )
    return f'{head}{FILLER[: max(0, size - len(head) - 2)]}"}}'.encode()


decode: Final = msgspec.json.Decoder(Message).decode


def receiver_of(traffic: Traffic, number: int) -> str:
    """For whom a message is; also the name of the channel that it is published on."""
    return EVERYONE if traffic.topic else traffic.owner(number)


class Inbox:
    """What one client was sent, over all its connections.

    Attributes:
        receiver: Whose messages it is sent.
    """

    __slots__ = ("_doubled", "_foreign", "_judged", "_received", "receiver")

    def __init__(self, receiver: str) -> None:
        self.receiver = receiver
        self._received: set[int] = set()
        self._judged: set[int] = set()
        self._doubled = 0
        self._foreign = 0

    def take(self, message: Message) -> bool:
        """Take a message, and say whether it is a new one of ours."""
        if message.receiver != self.receiver:
            self._foreign += 1
        elif message.number in self._received:
            self._doubled += 1
        else:
            self._received.add(message.number)
            return True
        return False

    def judge(self, expected: Set[int], *, unknown: Set[int] = frozenset()) -> dict[str, int]:
        """The faults since the last time, now that everything should be here.

        What was lost then and came late is not counted again.

        Args:
            expected: The numbers of all messages for it since the last time.
            unknown: Others that may be here or not, because their publish had no answer.
        """
        never_published = self._received - self._judged - expected - unknown
        faults = {
            "lost": len(expected - self._received),
            "doubled": self._doubled,
            "foreign": self._foreign + len(never_published),
        }
        self._judged |= expected | unknown
        self._doubled = self._foreign = 0
        return faults
