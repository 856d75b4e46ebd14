"""What a worker asks for: one pull for each consumer that it serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.pull import Message, Pull
from livefeed.limits import MIB
from livefeed.subjects import Lane
from livefeed.topology import Consumer

PULL_MESSAGES: Final[dict[Lane, int]] = {"high": 256, "medium": 128, "low": 128}
"""Messages of one request; a backlog answers those of all partitions at once."""
PULL_BYTES: Final = 1 * MIB
"""More than the largest message, or the server would refuse to send it."""


class Pulls:
    """The pulls of one worker.

    Args:
        connections: Where each lane is pulled.
        receive: Gets each message.
        wanted: Whether more of a lane may be asked for.
        clock: Monotonic seconds.
        once: Ask for what is there, and for nothing that comes later.
    """

    def __init__(
        self,
        connections: Mapping[Lane, Connection],
        *,
        receive: Callable[[Message, Lane], None],
        wanted: Callable[[Lane], bool],
        clock: Callable[[], float],
        once: bool = False,
    ) -> None:
        self._connections = connections
        self._receive = receive
        self._wanted = wanted
        self._clock = clock
        self._once = once
        self._pulls: dict[Consumer, tuple[Connection, Pull]] = {}
        self._stops: set[asyncio.Task[None]] = set()

    @property
    def exhausted(self) -> bool:
        """Whether the server has said of each of them that there is no more."""
        return all(pull.exhausted for _, pull in self._pulls.values())

    def serve(self, sources: Iterable[tuple[Lane, Consumer]]) -> None:
        """Pull these consumers and no others; what comes of a former one is still given on."""
        wanted = {consumer: lane for lane, consumer in sources}
        lost = [consumer for consumer in self._pulls if consumer not in wanted]
        for consumer in lost:
            stop = asyncio.create_task(self._pulls.pop(consumer)[1].stop(), name="stop-pull")
            self._stops.add(stop)
            stop.add_done_callback(self._stops.discard)
        for consumer, lane in wanted.items():
            if consumer not in self._pulls:
                pull = self._pull(lane, consumer)
                self._pulls[consumer] = self._connections[lane], pull
                pull.start()

    def ask(self) -> None:
        """Ask for more where nothing is asked for and something is wanted."""
        for _, pull in self._pulls.values():
            pull.ask()

    def ask_once_more(self) -> None:
        """Ask again, also where there was no more: a call may have brought more."""
        for _, pull in self._pulls.values():
            pull.exhausted = False
        self.ask()

    def lost(self, connection: Connection) -> None:
        """What was asked for over this connection is not coming."""
        for asked_over, pull in self._pulls.values():
            if asked_over is connection:
                pull.lost()

    async def stop(self) -> None:
        """Take no more."""
        self.serve([])
        await asyncio.gather(*self._stops, return_exceptions=True)

    def _pull(self, lane: Lane, consumer: Consumer) -> Pull:
        return Pull(
            self._connections[lane],
            consumer,
            batch=PULL_MESSAGES[lane],
            batch_bytes=PULL_BYTES,
            on_message=lambda message: self._receive(message, lane),
            wanted=lambda: self._wanted(lane),
            clock=self._clock,
            once=self._once,
        )
