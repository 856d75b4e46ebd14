"""What the benchmark needs to know of a peer: its programs, its clients and its publisher."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.load_generator import raise_file_limit
from benchmarks.measure import Usage, usage_below, usage_of
from benchmarks.peers.device import Dialect
from benchmarks.peers.sender import Publishing
from benchmarks.stack import HOST
from livefeed.adapters.embedded import free_port
from livefeed.adapters.http import get
from livefeed.adapters.process import POLL_SECONDS, Child, Launch
from livefeed.errors import Unavailable

CONFIGURATIONS: Final = Path(__file__).parent / "configurations"
READY_SECONDS_MAX: Final = 20.0
POWER_CUT: Final = "a power cut (fsync first)"
# Where Debian puts servers, and where a plain user's PATH may not look.
PROGRAM_PATH: Final = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class Missing(Exception):
    """A peer is not on this computer; the text says what would bring it."""


class Peer(ABC):
    """The servers of one peer, in a folder of their own.

    Args:
        folder: Where its data and logs are.
        durable: Whether it has to store what it is given, so that it survives a restart.
        fsync: Whether what it accepts has to be on the disk first, where there is a setting for it.

    Attributes:
        name: As `--set only=` has it.
        title: As the tables have it.
        volatile: Whether it takes part where nothing is kept.
        front: The role that holds the clients' connections.
        acknowledged: What an accepted message survives, if it is durable.
        acknowledged_fsync: The same with `fsync`, where that makes a difference.
        redelivery_seconds: The longest pause before something that was stored is delivered late.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    volatile: ClassVar[bool] = True
    front: ClassVar[str]
    acknowledged: ClassVar[str] = "nothing"
    acknowledged_fsync: ClassVar[str] = ""
    redelivery_seconds: ClassVar[float] = 2.0

    def __init__(self, folder: Path, *, durable: bool, fsync: bool = False) -> None:
        self.folder = folder
        self.durable = durable
        self.fsync = fsync

    async def prepare(self) -> str:
        """See that all its programs are there, and return their versions.

        Raises:
            Missing: When they are not, and cannot be had.
        """
        raise NotImplementedError

    @abstractmethod
    async def start(self) -> None:
        """Start it, on the data that it left if it ran before; raises Unavailable."""

    @abstractmethod
    def kill(self) -> None:
        """Kill all of its processes at once, as a crash would; their data stays."""

    async def close(self) -> None:
        """End it; its folder goes next."""
        self.kill()

    @abstractmethod
    def usage(self) -> dict[str, Usage]:
        """What each role has used since it was started."""

    @abstractmethod
    def check(self) -> None:
        """Raise Unavailable when a part has died."""

    @property
    @abstractmethod
    def dialect(self) -> Dialect:
        """What its clients do."""

    @property
    @abstractmethod
    def publishing(self) -> Publishing:
        """What its publisher does."""


@dataclass(frozen=True, slots=True)
class Program:
    """One server process of a peer."""

    role: str
    argv: Sequence[str]
    port: int
    """It is ready when this one accepts connections."""
    path: str = ""
    """And when a GET of this path there is answered, and not by a server's error."""
    environment: Mapping[str, str] | None = None


class ServerPeer(Peer):
    """A peer that is a few programs, each with a configuration from the tree."""

    def __init__(self, folder: Path, *, durable: bool, fsync: bool = False) -> None:
        super().__init__(folder, durable=durable, fsync=fsync)
        self.port = free_port()
        self._children: dict[str, Child] = {}

    @abstractmethod
    def programs(self) -> list[Program]:
        """Write what they read, and return them in the order in which they are started."""

    async def start(self) -> None:
        raise_file_limit()  # which what is started inherits
        for program in self.programs():
            log = self.folder / f"{program.role}.log"
            # SIGTERM: a parent that is killed would leave its own children behind.
            launch = Launch(log, self.folder, signal.SIGTERM, environment=program.environment)
            child = self._children[program.role] = Child(program.argv, launch)
            await _until_accepts(program, child)

    def kill(self) -> None:
        for child in self._children.values():
            child.kill_all()
        self._children.clear()

    def usage(self) -> dict[str, Usage]:
        return {role: _whole(child.pid) for role, child in self._children.items()}

    def check(self) -> None:
        for role, child in self._children.items():
            if child.exit_code is not None:
                detail = f"it ended with {child.exit_code}; its log:\n{child.tail()}"
                raise Unavailable(role, detail)

    def configure(self, name: str, **values: object) -> Path:
        """Write a configuration of the tree, its placeholders filled in; returns its path."""
        text = (CONFIGURATIONS / name).read_text(encoding="utf-8")
        for key, value in {"folder": self.folder, "files": open_files_max(), **values}.items():
            text = text.replace(f"@{key}@", str(value))
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path


def find_program(name: str, package: str) -> str:
    """The path of a program; raises Missing with the Debian package that has it."""
    found = shutil.which(name, path=PROGRAM_PATH)
    if found is None:
        raise Missing(f"`apt install {package}`")
    return found


def output_of(*argv: str) -> str:
    """What a program says when it is asked for its version."""
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=20, stdin=subprocess.DEVNULL
    )
    return done.stdout + done.stderr


def open_files_max() -> int:
    """How many open files a process of ours may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


async def _until_accepts(program: Program, child: Child) -> None:
    deadline = asyncio.get_running_loop().time() + READY_SECONDS_MAX
    while not await (_answers(program) if program.path else _accepts(program.port)):
        late = asyncio.get_running_loop().time() > deadline
        if late or child.exit_code is not None:
            raise Unavailable(program.role, f"it does not start; its log:\n{child.tail()}")
        await asyncio.sleep(POLL_SECONDS)


async def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(HOST, port)
        writer.close()
        return True
    return False


async def _answers(program: Program) -> bool:
    with contextlib.suppress(OSError, Unavailable):
        url = f"http://{HOST}:{program.port}{program.path}"
        return (await get(url, seconds_max=READY_SECONDS_MAX)).status < 500
    return False


def _whole(pid: int) -> Usage:
    """What a process and all that it started have used."""
    own, below = usage_of([pid]), usage_below(pid)
    return Usage(own.cpu_seconds + below.cpu_seconds, own.rss_bytes + below.rss_bytes)
