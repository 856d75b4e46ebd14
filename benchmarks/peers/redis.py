"""The Redis of a peer that keeps its messages there."""

from __future__ import annotations

from typing import Final

from benchmarks.peers.peer import Program, ServerPeer, find_program, output_of

PACKAGE: Final = "redis-server"
REDIS_ACKNOWLEDGED: Final = "a crash (Redis fsyncs every second)"


def redis_program(peer: ServerPeer, port: int) -> Program:
    """A Redis in the folder of a peer; raises Missing."""
    appendfsync = "always" if peer.fsync else "everysec"
    path = peer.configure("redis.conf", port=port, appendfsync=appendfsync)
    return Program("redis", [find_program("redis-server", PACKAGE), str(path)], port)


def redis_version() -> str:
    """Its version; raises Missing."""
    said = output_of(find_program("redis-server", PACKAGE), "--version").split()
    return " ".join(["redis", *(word.removeprefix("v=") for word in said if word.startswith("v="))])
