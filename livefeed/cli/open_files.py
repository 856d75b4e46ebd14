"""How many files this process may have open: each client takes one."""

from __future__ import annotations

import contextlib
import resource
from typing import Final

BESIDE_CLIENTS: Final = 100
"""Descriptors that a gateway has beside those of its clients: servers, pipes, logs, handshakes."""


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one, as far as it goes, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # macOS refuses what its kernel does not take, though it is the hard limit.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            return hard
    return soft


def too_few_open_files(limit: int, connections_max: int) -> str | None:
    """What a person should hear of a limit under which clients cannot be accepted, or None."""
    wanted = connections_max + BESIDE_CLIENTS
    if limit == resource.RLIM_INFINITY or limit >= wanted:
        return None
    most = max(1, limit - BESIDE_CLIENTS)
    return (
        f"this process may have {limit} files open, too few for LIVEFEED_CONNECTIONS_MAX="
        f"{connections_max}: allow it {wanted} (`ulimit -Hn`, LimitNOFILE= of systemd, --ulimit "
        f"nofile= of Docker), or set LIVEFEED_CONNECTIONS_MAX to {most}"
    )
