"""Keeps parts running: starts them in order, starts again what dies, stops in reverse."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from livefeed.adapters import http
from livefeed.adapters.process import Child, Launch
from livefeed.errors import LivefeedError, Unavailable
from livefeed.scaling import start_delay_seconds

STEADY_SECONDS: Final = 30.0
"""A part that ran this long has no crashes in a row."""
READY_SECONDS_MAX: Final = 20.0


class Part(Protocol):
    """Something that runs: an embedded server or a process of ours."""

    async def start(self) -> None:
        """Start it and return when it is ready; raises Unavailable."""

    async def wait(self) -> int:
        """Return its exit code when it ends; negative is the number of a signal."""

    async def stop(self) -> None:
        """Stop it politely, within a bound."""


class Process:
    """A part that is a process of ours, with its output in a log.

    Args:
        name: For messages.
        argv: The program and its arguments.
        launch: Where it runs.
        is_ready: Whether it serves now.
        stop_seconds: How long it may take to leave.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        launch: Launch,
        *,
        is_ready: Callable[[], Awaitable[bool]],
        stop_seconds: float,
    ) -> None:
        self._name = name
        self._argv = argv
        self._launch = launch
        self._is_ready = is_ready
        self._stop_seconds = stop_seconds
        self._child: Child | None = None

    async def start(self) -> None:
        """Start it and return when it is ready; raises Unavailable with its last words."""
        child = self._child = Child(self._argv, self._launch)
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not await self._is_ready():
            if child.exit_code is not None or time.monotonic() > deadline:
                await child.stop([])
                raise Unavailable(self._name, f"it does not start; its log:\n{child.tail()}")
            await asyncio.sleep(0.02)

    async def wait(self) -> int:
        """Return its exit code when it ends."""
        return 0 if self._child is None else await self._child.wait()

    async def stop(self) -> None:
        """Have it leave; kill it when it does not."""
        if self._child is not None:
            await self._child.stop([(signal.SIGTERM, self._stop_seconds)])


class Supervisor:
    """Watches parts until it is told to stop.

    Args:
        say: Tells the person at the terminal what happens.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._parts: list[tuple[str, Part]] = []
        self._stopping = False

    async def start(self, *parts: tuple[str, Part]) -> None:
        """Start parts side by side; they are stopped in reverse order of their start."""
        self._parts += parts
        await asyncio.gather(*(part.start() for _, part in parts))

    async def watch(self, leave: asyncio.Event) -> None:
        """Start again what dies, until told to leave."""
        async with asyncio.TaskGroup() as tasks:
            watchers = [
                tasks.create_task(self._keep(name, part), name=name) for name, part in self._parts
            ]
            await leave.wait()
            self._stopping = True
            for watcher in watchers:
                watcher.cancel()

    async def stop(self) -> None:
        """Stop every part, last started first."""
        self._stopping = True
        for _, part in reversed(self._parts):
            await part.stop()

    async def _keep(self, name: str, part: Part) -> None:
        crashes = 0
        while True:
            started_at = time.monotonic()
            code = await part.wait()
            if self._stopping:
                return
            crashes = 0 if time.monotonic() - started_at > STEADY_SECONDS else crashes
            crashes += 1
            delay = start_delay_seconds(crashes)
            soon = f"again in {delay:g} s" if delay else "again"
            self._say(f"{name} ended with {_describe(code)}; starting it {soon}")
            await asyncio.sleep(delay)
            await self._start_again(name, part)

    async def _start_again(self, name: str, part: Part) -> None:
        try:
            await part.start()
        except (LivefeedError, OSError) as error:  # OSError: of a pipe, or the fork.
            self._say(f"{name} does not start: {error}")
        else:
            self._say(f"{name} is running again")


async def http_answers_ok(host: str, port: int, target: str) -> bool:
    """Whether a server on this host answers a GET with 200, now."""
    try:
        answer = await http.get(f"http://{host}:{port}{target}", seconds_max=2)
    except Unavailable:
        return False
    return answer.status == 200


def our_command(*arguments: str) -> list[str]:
    """How to run a command of ours with this interpreter."""
    return [sys.executable, "-m", "livefeed.cli", *arguments]


def launch_of(log: Path, environment: dict[str, str]) -> Launch:
    """How `up` starts a process of ours: it drains when `up` is gone."""
    return Launch(
        log=log, directory=Path.cwd(), death_signal=signal.SIGTERM, environment=environment
    )


def _describe(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
