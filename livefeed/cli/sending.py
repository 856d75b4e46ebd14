"""Sending many updates: atomic batches while they come fast, one by one while they come slowly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, TypeVar

from livefeed.adapters.nats.publish import (
    BATCH_MESSAGES_MIN,
    BUSY_CODES,
    Outbound,
    Publisher,
    StreamRefused,
)
from livefeed.errors import LivefeedError, Misconfigured, OutcomeUnknown
from livefeed.limits import MIB
from livefeed.topology import UPDATES

GROUP_UPDATES_MAX: Final = 256
GROUP_BYTES_MAX: Final = 1 * MIB
GROUPS_SENDING_MAX: Final = 2
"""Groups whose acknowledgements are waited for; further ones wait, so memory is bounded."""
PATIENCE_SECONDS: Final = 30.0
"""How long a server may be away or full before the rest of the input is given up."""
PAUSE_SECONDS: Final = 0.5
REFUSALS_SHOWN_MAX: Final = 20

NO_STREAM_CODES: Final = frozenset({503, 10059})
"""No JetStream at all, stream not found."""
AWAY_CODES: Final = BUSY_CODES | {503}
"""Once the stream was seen, no responder means that it elects a leader."""

Answer = TypeVar("Answer")


class Outgoing(NamedTuple):
    """One update on its way."""

    line: int
    message: Outbound


@dataclass(slots=True)
class Tally:
    """What became of the updates."""

    show: Callable[[str], None]
    """Told of the first refusals."""
    accepted: int = 0
    duplicate: int = 0
    refused: int = 0
    shown: int = field(default=0, init=False)

    def refuse(self, line: int, reason: str, detail: str) -> None:
        """Count an update that was not stored, as far as anybody knows."""
        self.refused += 1
        if self.shown < REFUSALS_SHOWN_MAX:
            self.shown += 1
            self.show(f"line {line}: {reason}: {detail}")

    @property
    def hidden(self) -> int:
        """Refusals that were not shown."""
        return self.refused - self.shown


class Sender:
    """Sends groups of updates until each is known to be stored, refused, or given up."""

    def __init__(self, publisher: Publisher, tally: Tally) -> None:
        self._publisher = publisher
        self._tally = tally
        self._room = asyncio.Semaphore(GROUPS_SENDING_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self.patience_seconds = PATIENCE_SECONDS
        self.failure: LivefeedError | None = None
        """Why the rest was given up."""

    async def send(self, group: list[Outgoing]) -> None:
        """Send a group as soon as there is room for it; returns before it is acknowledged."""
        await self._room.acquire()
        task = asyncio.create_task(self._deliver(group))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def finish(self) -> None:
        """Wait for the acknowledgements of everything that was sent."""
        await asyncio.gather(*self._tasks)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()

    async def _deliver(self, group: list[Outgoing]) -> None:
        if len(group) >= BATCH_MESSAGES_MIN and await self._as_batch(group):
            return
        await asyncio.gather(*map(self._alone, group))

    async def _as_batch(self, group: list[Outgoing]) -> bool:
        messages = [one.message for one in group]
        try:
            await self._patiently(partial(self._publisher.publish_batch, messages))
        except (StreamRefused, OutcomeUnknown):
            # A duplicate refuses the whole batch. Alone, each update gets an answer of its own.
            return False
        self._tally.accepted += len(group)
        return True

    async def _alone(self, one: Outgoing) -> None:
        if self.failure is not None:
            self._tally.refuse(one.line, "unknown", str(self.failure))
            return
        try:
            ack = await self._patiently(partial(self._publisher.publish, *one.message))
        except StreamRefused as refused:
            self._tally.refuse(one.line, "not_stored", refused.detail)
        except OutcomeUnknown as unknown:
            self._tally.refuse(one.line, "unknown", str(unknown))
        else:
            self._tally.duplicate += ack.duplicate
            self._tally.accepted += not ack.duplicate

    async def _patiently(self, publish: Callable[[], Awaitable[Answer]]) -> Answer:
        """Publish again, with the same ids, while the server may only be away for a moment."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        while True:
            try:
                return await publish()
            except (StreamRefused, OutcomeUnknown) as error:
                if isinstance(error, StreamRefused) and error.code not in AWAY_CODES:
                    raise
                if self.failure is None and loop.time() - began_at >= self.patience_seconds:
                    self.failure = error
                if self.failure is not None:
                    raise
            await asyncio.sleep(PAUSE_SECONDS)


async def check_stream(publisher: Publisher) -> None:
    """Find out at once that nobody made the stream, not after minutes of patience.

    Raises:
        Misconfigured: When there is no stream for updates.
    """
    try:
        await publisher.request(f"$JS.API.STREAM.INFO.{UPDATES}", b"", seconds=2)
    except OutcomeUnknown:
        return  # Whoever may only publish gets no answer to this.
    except StreamRefused as refused:
        if refused.code not in NO_STREAM_CODES:
            raise
        detail = f"nats has no stream {UPDATES} ({refused.detail})"
        raise Misconfigured(f"{detail}; run `livefeed provision` or `livefeed up`") from refused
