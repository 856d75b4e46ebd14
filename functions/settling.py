"""What a worker has in hand, until each message is acknowledged, put aside or given back."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from functions.life import Summary
from livefeed import headers, subjects
from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.publish import Publisher
from livefeed.adapters.nats.pull import Message
from livefeed.errors import (
    DeadLetterReason,
    LivefeedError,
    OutcomeUnknown,
    Unavailable,
    UpdateRefused,
)
from livefeed.subjects import LANES, Lane
from livefeed.topology import ACK_WAIT_SECONDS

logger = logging.getLogger(__name__)

DEAD_LETTER_PAUSE_SECONDS: Final = 2.0
"""How long no dead letter is tried after one could not be stored."""
REFUSED_MAX: Final = 100
"""Messages that wait to be dead-lettered; above it nothing more is asked for."""
DELAY_SECONDS_MAX: Final = 30.0
"""How long a message waits at most that has to wait alone."""
KEEP_ALIVE_SECONDS: Final = 0.25
"""How often is looked whether a lane's messages have to be kept alive."""


class Settling:
    """The messages in a worker's hands.

    Args:
        connection: NATS.
        publisher: For dead letters and for the last acknowledgement of a batch.
        summary: Counts what was put aside; carries the worker's name.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        summary: Summary,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._summary = summary
        self._clock = clock
        self._in_hand: dict[str, tuple[Lane, Message]] = {}
        """By stream and sequence, until it is settled: a redelivery meanwhile says nothing new."""
        self._refused: deque[tuple[Message, UpdateRefused]] = deque()
        self._dead_letters_at = 0.0
        self._kept_alive_at: dict[Lane, float] = dict.fromkeys(LANES, clock())

    @property
    def refused(self) -> int:
        """How many messages wait to be put aside."""
        return len(self._refused)

    def take(self, message: Message, lane: Lane) -> bool:
        """Have a message in hand; False when it is already."""
        if message.key in self._in_hand:
            return False
        self._in_hand[message.key] = lane, message
        return True

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """They were handled; the server knows it when this returns, or delivers them again."""
        for message in messages:
            self._in_hand.pop(message.key, None)
        self._connection.send_each([message.reply for message in messages[:-1]], b"+ACK")
        # Acks of one connection are processed in order: the last one's answer speaks for all.
        try:
            await self._publisher.request(messages[-1].reply, b"+ACK", seconds=2.0)
        except LivefeedError:
            # They will be delivered again, and change nothing.
            logger.debug("%s: acknowledgements may be lost", self._summary.worker)

    def refuse(self, message: Message, refused: UpdateRefused) -> None:
        """It can never be handled: it waits to be put aside."""
        self._refused.append((message, refused))

    def dead_letter_due(self, now: float) -> bool:
        """Whether a message can be put aside now."""
        return bool(self._refused) and now >= self._dead_letters_at

    async def dead_letter_one(self) -> None:
        """Put one message aside; when that fails, hand the others back and wait a while."""
        message, refused = self._refused.popleft()
        if not await self._dead_letter(message, refused):
            self._dead_letters_at = self._clock() + DEAD_LETTER_PAUSE_SECONDS
            self._give_back([message, *(waiting for waiting, _ in self._refused)])
            self._refused.clear()

    def delay(self, message: Message) -> None:
        """Have a message delivered again after a while, the longer the more often it came."""
        self._in_hand.pop(message.key, None)
        seconds = min(DELAY_SECONDS_MAX, 2.0 ** min(message.deliveries - 1, 16))
        self._connection.send(message.reply, b'-NAK {"delay": %d}' % (seconds * 1e9))

    async def _dead_letter(self, message: Message, refused: UpdateRefused) -> bool:
        """Put a message aside with its origin; only then take it from the consumer."""
        reason: DeadLetterReason = refused.reason
        origin = {
            headers.MESSAGE_ID: message.key,
            headers.REASON: reason,
            headers.ERROR: refused.detail[:512],
            headers.SUBJECT: message.subject,
            headers.STREAM: message.stream,
            headers.SEQUENCE: str(message.sequence),
            **headers.kept(message.header, stored_at=message.stored_at),
        }
        try:
            await self._publisher.publish(subjects.dead_letters(reason), message.payload, origin)
        except (Unavailable, OutcomeUnknown) as error:
            worker = self._summary.worker
            logger.warning("%s: a dead letter waits for redelivery: %s", worker, error)
            return False
        self._in_hand.pop(message.key, None)
        self._connection.send(message.reply, b"+TERM " + reason.encode())
        self._summary.dead_lettered += 1
        return True

    def give_back_all(self) -> None:
        """Have everything in hand delivered again, to whoever asks."""
        self._give_back([message for _, message in self._in_hand.values()])

    def _give_back(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self._in_hand.pop(message.key, None)
            self._connection.send(message.reply, b"-NAK")

    async def keep_alive(self) -> None:
        """Tell the server that what is in hand is in good hands, also while a call runs."""
        while True:
            await asyncio.sleep(KEEP_ALIVE_SECONDS)
            now = self._clock()
            for lane, kept_at in self._kept_alive_at.items():
                if now - kept_at >= ACK_WAIT_SECONDS[lane] / 3:
                    self._kept_alive_at[lane] = now
                    for held_in, message in self._in_hand.values():
                        if held_in == lane:
                            self._connection.send(message.reply, b"+WPI")
