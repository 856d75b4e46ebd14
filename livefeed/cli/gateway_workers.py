"""`livefeed gateway --workers N`: processes that share a port, and who starts them again.

The parent opens the sockets and serves nothing. Each worker has a socket of its own on the public
port, by which the kernel spreads what connects (decision 0020), and one on its ops port.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.listening import Doors, listen, listen_beside, reserve
from livefeed.adapters.process import Child, Launch
from livefeed.cli.running import leave_now, leave_on_signals
from livefeed.cli.supervisor import Supervisor, our_command
from livefeed.errors import LivefeedError, Unavailable
from livefeed.settings import Settings

logger = logging.getLogger(__name__)

INHERITED_VARIABLE: Final = "LIVEFEED_GATEWAY_INHERITED"
"""Tells a worker its descriptors, as JSON: public, ops, and where to say that it serves."""
READY_SECONDS_MAX: Final = 20.0
LEAVING_SECONDS_MAX: Final = 10.0
"""How long a worker may take to leave beside its drain."""


class GatewayWorker:
    """A part of the supervisor's: one process, or the successor that it handed its sockets to.

    Args:
        number: Its place, from 0.
        settings: Of the gateway.
        guard: The public port.
        ops: Where it answers health and readiness.
    """

    def __init__(
        self, number: int, settings: Settings, guard: socket.socket, ops: socket.socket
    ) -> None:
        self.name: Final = f"gateway worker {number}"
        self._settings = settings
        self._guard = guard
        self._ops = ops
        self._public: socket.socket | None = None
        self._child: Child | None = None
        self._children: list[Child] = []
        """All that may run: also a predecessor that drains, and a successor that starts."""
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Start it and return when it serves; raises Unavailable."""
        async with self._starting:
            if self._child is not None and self._child.exit_code is None:
                return  # A successor was on its way.
            if self._public is None:
                self._public = listen_beside(self._guard)
            self._child = await self._serving(self._public)

    async def wait(self) -> int:
        """Return its exit code when it ends and nobody has taken over."""
        while True:
            child = self._child
            code = 0 if child is None else await child.wait()
            # A successor that is on its way takes over the socket, or none does and it is closed.
            async with self._starting:
                if child is not self._child:
                    continue
                # Who connects meanwhile goes to the others instead of waiting here.
                self._close()
                return code

    async def replace(self) -> None:
        """Start a successor; when it serves, have the predecessor drain; raises Unavailable."""
        async with self._starting:
            before, public = self._child, self._public
            if before is None or public is None or before.exit_code is not None:
                return  # It is to be started again.
            self._child = await self._serving(public)
        await before.stop([(signal.SIGHUP, self._leaving_seconds)])

    async def stop(self) -> None:
        """Have it drain and leave; kill it when it does not."""
        if self._child is not None:
            await self._child.stop([(signal.SIGTERM, self._leaving_seconds)])

    def kill(self) -> None:
        """Kill it, whatever it is doing."""
        for child in self._children:
            child.kill()

    @property
    def _leaving_seconds(self) -> float:
        draining = self._settings.drain_wait_seconds + self._settings.drain_seconds
        return draining + LEAVING_SECONDS_MAX

    def _close(self) -> None:
        if self._public is not None:
            self._public.close()
            self._public = None

    async def _serving(self, public: socket.socket) -> Child:
        """Start a process and wait until it serves."""
        ready, say_ready = os.pipe()
        with contextlib.closing(os.fdopen(ready, "rb", buffering=0)):
            try:
                child = self._process([public.fileno(), self._ops.fileno(), say_ready])
            finally:
                os.close(say_ready)
            try:
                started = await _byte(ready)
            except BaseException:
                await child.stop([])
                raise
        if started:
            logger.info("%s: pid %d serves", self.name, child.pid)
            return child
        code = await child.stop([(signal.SIGTERM, 1.0)])
        raise Unavailable(self.name, f"it does not start (exit code {code}); its log says why")

    def _process(self, descriptors: list[int]) -> Child:
        own = {
            INHERITED_VARIABLE: json.dumps(descriptors),
            "LIVEFEED_GATEWAY_WORKERS": str(self._settings.gateway_workers),
        }
        launch = Launch(
            log=None,
            directory=Path.cwd(),
            death_signal=signal.SIGTERM,
            environment=os.environ | own,
        )
        child = Child(our_command("gateway"), launch, keep=descriptors)
        self._children = [one for one in self._children if one.exit_code is None] + [child]
        return child


async def run_workers(settings: Settings) -> None:
    """Run the workers until told to leave, then have all of them drain; told again, kill them.

    Raises:
        Misconfigured: When a port is taken.
        Unavailable: When a worker does not start the first time.
    """
    workers: list[GatewayWorker] = []

    def at_once(number: signal.Signals) -> None:
        for worker in workers:
            worker.kill()
        leave_now(number)

    leave, restart = leave_on_signals(at_once), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, restart.set)
    supervisor = Supervisor(logger.warning)
    with contextlib.ExitStack() as sockets:
        workers += _workers(settings, sockets)
        restarting = asyncio.create_task(_restart(workers, restart), name="restart")
        try:
            await supervisor.start(*((worker.name, worker) for worker in workers))
            logger.info("gateway: %d workers are ready", len(workers))
            await supervisor.watch(leave)
        finally:
            restarting.cancel()
            await asyncio.gather(restarting, return_exceptions=True)
            # All at once: their drains take a while.
            await asyncio.gather(*(worker.stop() for worker in workers))


def inherited_doors(leave: asyncio.Event) -> Doors | None:
    """What the parent of a worker has opened for it; None where there is no parent.

    Args:
        leave: Set when the parent sends SIGHUP: a successor accepts on the same sockets.
    """
    text = os.environ.get(INHERITED_VARIABLE)
    if text is None:
        return None
    public, ops, say_ready = json.loads(text)
    doors = Doors(
        socket.socket(fileno=public),
        socket.socket(fileno=ops),
        say_started=lambda: _say(say_ready),
    )

    def hand_over() -> None:
        doors.handed_over.set()
        leave.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hand_over)
    return doors


def is_worker() -> bool:
    """Whether this process is one of several, and its parent has the sockets."""
    return INHERITED_VARIABLE in os.environ


def _workers(settings: Settings, sockets: contextlib.ExitStack) -> Iterator[GatewayWorker]:
    port = settings.gateway_port
    guard = reserve(settings.gateway_host, port, "LIVEFEED_GATEWAY_PORT")
    sockets.enter_context(guard)
    logger.info("gateway: workers share http://%s:%d", *guard.getsockname()[:2])
    for number in range(settings.gateway_workers):
        ops_port = settings.ops_port + number if settings.ops_port else 0
        ops = sockets.enter_context(listen(settings.ops_host, ops_port, "LIVEFEED_OPS_PORT"))
        logger.info("gateway worker %d: ops on http://%s:%d", number, *ops.getsockname()[:2])
        yield GatewayWorker(number, settings, guard, ops)


async def _restart(workers: list[GatewayWorker], asked: asyncio.Event) -> None:
    """Replace one worker after the other each time that it is asked for."""
    while True:
        await asked.wait()
        asked.clear()
        for worker in workers:
            try:
                await worker.replace()
            except (LivefeedError, OSError) as error:  # OSError: of the pipe, or the fork.
                logger.warning("the restart ends here, the old workers stay: %s", error)
                break


def _say(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.write(descriptor, b"1")
    os.close(descriptor)


async def _byte(descriptor: int) -> bool:
    """Wait for a byte; False when nobody can write one any more, or it takes too long."""
    readable, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(descriptor, readable.set)
    try:
        async with asyncio.timeout(READY_SECONDS_MAX):
            await readable.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return bool(os.read(descriptor, 1))
