"""What a function is to the worker that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from livefeed.adapters.nats.pull import Message
from livefeed.errors import DeadLetterReason, Unavailable, UpdateRefused
from livefeed.subjects import Lane
from livefeed.topology import Consumer


class Work(NamedTuple):
    """A message that was read and waits to be handled."""

    message: Message
    content: object
    """What the function's `read` made of it."""
    rows: int
    accepted_at: int
    """When JetStream accepted the update, microseconds since 1970."""
    updates: int = 1
    """How many updates it carries: by them a lane is quiet or busy."""
    queue: str = ""
    """Where not all of a lane fits one call, one call gets what is of one queue."""
    gathers: bool = True
    """Whether it may wait for others to be handled with; if not, it is of a queue of such."""


class Undone(NamedTuple):
    """A message that a call did not get done, while it did others."""

    work: Work
    why: UpdateRefused | Unavailable | None
    """It can never be handled; it has to wait, alone; or there was too much for one call."""


class Function(Protocol):
    """Decides what to do with messages; the worker fetches and settles them."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def failure(self) -> DeadLetterReason:
        """Why a message is put aside that makes this function's code fail."""

    @property
    def windows(self) -> Mapping[Lane, float]:
        """Seconds that each lane gathers when it is busy."""

    @property
    def rows_max(self) -> int:
        """Rows, before coalescing, that one call of `handle` may get."""

    @property
    def bytes_max(self) -> int:
        """Payload bytes that one call of `handle` may get."""

    def sources(self, partitions: frozenset[int]) -> Sequence[tuple[Lane, Consumer]]:
        """What to pull when these partitions are served."""

    def read(self, message: Message) -> Work:
        """Check a message; raises UpdateRefused for one that can never be handled."""

    async def handle(self, works: Sequence[Work]) -> Sequence[Undone]:
        """Do the work of all; when it returns, they are settled but for those that it names.

        Raises:
            Unavailable, OutcomeUnknown: Try all of them again.
            UpdateRefused: One of them can never be handled.
        """
