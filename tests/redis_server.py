"""The real redis-server of a test, on the loopback address and without a trace on disk."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path

from redis.asyncio import Redis

from livefeed.adapters.process import Child, EmbeddedServer, Launch
from tests.servers import require, server_port, tails

START_SECONDS_MAX = 10.0


class RedisServer(EmbeddedServer):
    """One that may be killed, frozen, and started again on the same port.

    Args:
        directory: Where its log is, and its data when it is told to save any.
        arguments: More of its command line.
    """

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        super().__init__("redis", directory / "redis.log")
        self.port = server_port()
        self.arguments = list(arguments)
        self.program = require(
            shutil.which("redis-server", path=f"{os.environ['PATH']}:/usr/sbin"),
            "redis-server is not installed (Debian's `redis-server`)",
        )

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self, *arguments: str) -> None:
        """Start it, and wait until it takes connections."""
        self.directory.mkdir(parents=True, exist_ok=True)
        argv = [self.program, "--bind", "127.0.0.1", "--port", str(self.port), "--save", ""]
        argv += ["--dir", str(self.directory), *self.arguments, *arguments]
        child = Child(argv, Launch(self.log, self.directory))
        await self._start(child, _ready, START_SECONDS_MAX)

    async def stop(self) -> None:
        """Stop it in peace."""
        await self._stop([(signal.SIGTERM, 5.0)])

    def tails(self) -> Iterable[tuple[str, str]]:
        """The last lines of its log, with a title."""
        return tails([self.log])

    def freeze(self) -> None:
        """Have it hang: it is there, and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def client(self, **options: object) -> Redis:
        """A client of the test's own, to be closed by it."""
        return Redis(host="127.0.0.1", port=self.port, protocol=2, **options)  # type: ignore[arg-type]


async def _ready(child: Child) -> bool:
    output = child.output()
    return "Ready to accept connections" in output or "Server initialized" in output
