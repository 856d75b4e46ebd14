"""nchan, a module of nginx: in memory, or with a Redis that keeps every message."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.load_generator import TEXT
from benchmarks.peers.device import Send, Upgrade
from benchmarks.peers.http_publishing import HttpPublishing
from benchmarks.peers.peer import POWER_CUT, Missing, Program, ServerPeer, find_program, output_of
from benchmarks.peers.redis import REDIS_ACKNOWLEDGED, redis_program, redis_version
from livefeed.adapters.embedded import free_port

PACKAGES: Final = "nginx libnginx-mod-nchan"
META: Final = "ws+meta.nchan"
"""The subprotocol whose frames say the message's id before the message."""
END_OF_META: Final = b"\n\n"


class NchanPeer(ServerPeer):
    """nginx with one worker; durable, a Redis beside it."""

    name = "nchan"
    title = "nchan (nginx)"
    front = "nginx"
    acknowledged = REDIS_ACKNOWLEDGED
    acknowledged_fsync = POWER_CUT

    def __init__(self, folder: Path, *, durable: bool, fsync: bool = False) -> None:
        super().__init__(folder, durable=durable, fsync=fsync)
        self.redis_port = free_port()

    async def prepare(self) -> str:
        nginx = find_program("nginx", PACKAGES)
        _module(nginx)
        said = output_of(nginx, "-v").strip().removeprefix("nginx version: ")
        return f"{said}, {redis_version()}" if self.durable else said

    def programs(self) -> list[Program]:
        nginx = find_program("nginx", PACKAGES)
        name = "nchan-durable.conf" if self.durable else "nchan.conf"
        path = self.configure(
            name, module=_module(nginx), port=self.port, redis_port=self.redis_port
        )
        argv = [nginx, "-p", str(self.folder), "-c", str(path)]
        # It connects to Redis when it is started already, and refuses everything until then.
        own = Program("nginx", argv, self.port, "/publish?channel=ready")
        return [redis_program(self, self.redis_port), own] if self.durable else [own]

    @property
    def dialect(self) -> NchanDialect:
        return NchanDialect(self.port, self.durable)

    @property
    def publishing(self) -> HttpPublishing:
        return HttpPublishing("nchan", self.port, "/publish?channel={channel}")


@dataclass(frozen=True, slots=True)
class NchanDialect:
    """A frame is a message; with its id where it has to be asked for what follows it."""

    port: int
    durable: bool
    opcode: int = TEXT

    def device(self, user: str, channel: str) -> NchanDevice:
        """A device that subscribes to one channel."""
        path = f"/subscribe?channel={channel}"
        return ReplayingDevice(path) if self.durable else NchanDevice(path)


class NchanDevice:
    """A subscription, at most once."""

    __slots__ = ("_path", "ready")

    def __init__(self, path: str) -> None:
        self._path = path
        self.ready = False

    def upgrade(self) -> Upgrade:
        """Begin a connection."""
        self.ready = False
        return Upgrade(self._path)

    def opened(self, _send: Send) -> None:
        """The upgrade is the subscription."""
        self.ready = True

    def take(self, frame: bytes, _send: Send) -> Sequence[bytes]:
        """The message that a frame is."""
        return (frame,)


class ReplayingDevice(NchanDevice):
    """A subscription that says where it left off."""

    __slots__ = ("_last",)

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._last = ""
        """The id of the last message."""

    def upgrade(self) -> Upgrade:
        """Begin a connection."""
        self.ready = False
        after = f"&last_event_id={self._last}" if self._last else ""
        return Upgrade(self._path + after, META)

    def take(self, frame: bytes, _send: Send) -> Sequence[bytes]:
        """The message of a frame, whose id is kept."""
        meta, _, body = frame.partition(END_OF_META)
        self._last = meta.split(b"\n", 1)[0].removeprefix(b"id: ").decode()
        return (body,)


def _module(nginx: str) -> Path:
    """The module's file; raises Missing."""
    found = re.search(r"--modules-path=(\S+)", output_of(nginx, "-V"))
    path = Path(found[1] if found else "modules", "ngx_nchan_module.so")
    if not path.is_file():
        raise Missing(f"`apt install {PACKAGES}`")
    return path
