"""Replaying dead letters: check each, publish it again, delete it, count, and name what failed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from livefeed.adapters.nats.dead_letters import DeadLetters
from livefeed.adapters.nats.publish import Publisher
from livefeed.dead_letter import DeadLetter, replayed
from livefeed.errors import DeadLetterReason, LivefeedError, OutcomeUnknown, Refused, Unavailable

REPLAYING_MAX: Final = 64
"""Letters whose acknowledgements are waited for at once."""
FAILURES_SHOWN_MAX: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which letters: those of some sequences, of one reason, or all that are there now."""

    sequences: Sequence[int] = ()
    reason: DeadLetterReason | None = None


class Result(NamedTuple):
    """What became of the letters."""

    replayed: int
    duplicate: int
    """Of the replayed: those that had been published before, but not deleted."""
    failed: int


class Replay:
    """One run.

    Args:
        letters: The queue.
        publisher: For publishing; None tries nothing and only says what would be done.
        show: Told of each of the first failures.
        progress: Told how many sequences were gone through.
    """

    def __init__(
        self,
        letters: DeadLetters,
        publisher: Publisher | None,
        *,
        show: Callable[[str], None],
        progress: Callable[[int], None],
    ) -> None:
        self._letters = letters
        self._publisher = publisher
        self._show = show
        self._progress = progress
        self._replayed = self._duplicate = self._failed = 0
        self.failure: LivefeedError | None = None
        """Why not everything was tried."""

    @property
    def result(self) -> Result:
        """The counts so far."""
        return Result(self._replayed, self._duplicate, self._failed)

    async def run(self, selection: Selection, *, last: int, mended: bytes | None = None) -> None:
        """Replay what is selected, but nothing that comes back meanwhile.

        Args:
            selection: Which letters.
            last: The newest letter when the run began.
            mended: What to publish instead of the one letter's bytes.
        """
        before = 0
        async for page in self._pages(selection, last):
            for start in range(0, len(page), REPLAYING_MAX):
                some = page[start : start + REPLAYING_MAX]
                await asyncio.gather(*(self._one(letter, mended) for letter in some))
            self._progress(1 if selection.sequences else page[-1].sequence - before)
            before = page[-1].sequence
            if self.failure is not None:
                return

    async def _pages(self, selection: Selection, last: int) -> AsyncIterator[list[DeadLetter]]:
        if not selection.sequences:
            async for page in self._letters.pages(last=last, reason=selection.reason):
                yield page
        for sequence in selection.sequences:
            letter = await self._letters.get(sequence)
            if letter is None:
                self._fail(sequence, "there is no such letter; it was replayed, dropped or expired")
            else:
                yield [letter]

    async def _one(self, letter: DeadLetter, mended: bytes | None) -> None:
        try:
            again = replayed(letter, mended, now_microseconds=time.time_ns() // 1000)
            if self._publisher is not None:
                ack = await self._letters.replay(self._publisher, letter.sequence, again)
                self._duplicate += ack.duplicate
        except Refused as refused:
            self._fail(letter.sequence, str(refused))
        except (Unavailable, OutcomeUnknown) as error:
            self.failure = error
            self._fail(letter.sequence, f"{error}; it is still there")
        else:
            self._replayed += 1

    def _fail(self, sequence: int, sentence: str) -> None:
        self._failed += 1
        if self._failed <= FAILURES_SHOWN_MAX:
            self._show(f"letter {sequence}: {sentence}")
