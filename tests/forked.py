"""Run by a test as a fork server: its processes sleep, or exit with a code."""

from __future__ import annotations

import time

from livefeed.adapters.fork_server import serve


def run(arguments: list[str]) -> int:
    """`sleep`, or a number."""
    if arguments == ["sleep"]:
        time.sleep(60)
    if arguments == ["raise"]:
        raise RuntimeError("asked to")
    return int(arguments[0])


if __name__ == "__main__":
    serve(run)
