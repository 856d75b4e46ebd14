"""Blows against a stack, on a plan that a seed decides: killed, frozen, told to leave."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import psutil

from benchmarks.stack import Part, Stack
from benchmarks.traffic import clock

Deed = Literal["kill", "freeze", "restart"]
"""SIGKILL; SIGSTOP, and SIGCONT later; told to leave, as a deploy does it."""
DEEDS: Final[tuple[Deed, ...]] = get_args(Deed)
PARTS: Final[tuple[Part, ...]] = get_args(Part)
FREEZE_SECONDS: Final = (1.0, 8.0)
"""How long something stands still: less and more than the ack wait of high."""
TO_LEAVE: Final[dict[Part, signal.Signals]] = {"postgres": signal.SIGINT}
"""What asks a part to leave, where that is not SIGTERM: PostgreSQL would wait for its clients."""


@dataclass(frozen=True, slots=True)
class Blow:
    """One fault of the plan."""

    at_seconds: float
    """From the beginning of the plan."""
    part: Part
    deed: Deed
    seconds: float = 0.0
    """How long it is frozen."""

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.deed} {self.part}{lasting}"


def plan(seed: int, *, seconds: float, every_seconds: float) -> list[Blow]:
    """Blows for a while, about one each `every_seconds`; every part meets every deed in turn.

    Args:
        seed: Decides everything.
        seconds: How long; the last blow is over by then.
        every_seconds: From one to the next, in the mean.
    """
    dice = random.Random(seed)
    blows: list[Blow] = []
    every = _turns(dice)
    at = every_seconds * dice.uniform(0.25, 0.75)
    while True:
        part, deed = next(every)
        lasting = round(dice.uniform(*FREEZE_SECONDS), 1) if deed == "freeze" else 0.0
        if at + lasting + every_seconds / 2 > seconds:
            return blows
        blows.append(Blow(round(at, 2), part, deed, lasting))
        at += lasting + every_seconds * dice.uniform(0.5, 1.5)


def _turns(dice: random.Random) -> Iterator[tuple[Part, Deed]]:
    """Each pair once in random order, then all of them again."""
    while True:
        pairs = [(part, deed) for part in PARTS for deed in DEEDS]
        dice.shuffle(pairs)
        yield from pairs


@dataclass(slots=True)
class Chaos:
    """Carries a plan out.

    Attributes:
        stack: What is hit.
        blows: The plan.
        dice: Chooses one process of those that a part has.
        began: When the plan began, in ns of `clock`.
        struck: What was done, with the seconds from the beginning; a part of which nothing runs at
            the moment is passed over.
    """

    stack: Stack
    blows: list[Blow]
    dice: random.Random
    began: int = 0
    struck: list[tuple[float, Blow]] = field(default_factory=list)

    async def run(self) -> None:
        """Strike at each blow's time, or later while the one before is not over; all runs then."""
        self.began = clock()
        for blow in self.blows:
            await asyncio.sleep(blow.at_seconds - self._seconds())
            if pids := self.stack.pids(blow.part):
                self.struck.append((self._seconds(), blow))
                await self._strike(blow, self.dice.choice(sorted(pids)))

    def blow_before(self, at: int) -> Blow | None:
        """The last one that was struck by a moment, which is in ns of `clock`."""
        seconds = (at - self.began) / 1e9
        return next((blow for struck, blow in reversed(self.struck) if struck <= seconds), None)

    def _seconds(self) -> float:
        return (clock() - self.began) / 1e9

    async def _strike(self, blow: Blow, pid: int) -> None:
        if blow.deed == "freeze":
            await _freeze(pid, blow)
            return
        leave = TO_LEAVE.get(blow.part, signal.SIGTERM)
        await self.stack.end(blow.part, pid, signal.SIGKILL if blow.deed == "kill" else leave)
        await self.stack.revive()


async def _freeze(pid: int, blow: Blow) -> None:
    """Have a process stand still; with PostgreSQL's, those that it has started for its clients."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        backends = process.children(recursive=True) if blow.part == "postgres" else []
        every = [process, *backends]
        try:
            for one in every:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.suspend()
            await asyncio.sleep(blow.seconds)
        finally:
            for one in every:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.resume()
