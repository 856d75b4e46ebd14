"""The lock by which a node's agent finds the livefeed process of its node.

A record lock, not a file with a number in it: the kernel drops it with the process, however that
ends, so it is never stale, and tells the holder's process id as the asking process would see it,
also from another container.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from livefeed.errors import Misconfigured, Unavailable

logger = logging.getLogger(__name__)

FLOCK: Final = struct.Struct("@hhqqi0q")
"""`struct flock` of 64-bit Linux: type, whence, start, length, process id."""


@contextlib.contextmanager
def held(path: str | None) -> Iterator[None]:
    """Hold the lock of a node's process; without a path there is none.

    Raises:
        Misconfigured: When the file cannot be locked, or another process holds it.
    """
    if path is None:
        yield
        return
    try:
        # The lock is gone with the first descriptor of the file that this process closes.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError | PermissionError):
            detail = f"LIVEFEED_NODE_LOCK_FILE={path} is locked by another process of this node"
            raise Misconfigured(f"{detail}; give each its own, and its agent the same") from error
        raise _unusable(path, error) from error
    try:
        os.ftruncate(descriptor, 0)  # It says whom of those before us an agent has told.
        yield
    finally:
        os.close(descriptor)


def holder(path: str) -> int | None:
    """The process that holds the lock; None when there is none.

    Raises:
        Unavailable: When it cannot be told: the holder may be there, and not be seen from here.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable("node", f"{path} cannot be read: {error.strerror}") from error
    try:
        asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_, pid = FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    if kind == fcntl.F_UNLCK:
        return None
    if pid <= 0:
        detail = f"{path} is locked by a process that is not seen from here"
        raise Unavailable("node", f"{detail}; run the agent with the process ids of the host")
    return int(pid)


def tell_to_leave(path: str, pid: int) -> bool:
    """Send SIGTERM to the lock's holder; False when it has gone meanwhile.

    Once, whoever asks: a second signal means at once, and an agent that was started again does not
    remember the first one. The file says whom it was sent to; the next holder empties it.

    Raises:
        Unavailable: When that is not allowed.
    """
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except OSError as error:
        raise Unavailable("node", f"process {pid} cannot be told: {error.strerror}") from error
    try:
        # Of the descriptor we know that it is one process; now that this process is the holder.
        if holder(path) != pid:
            return False
        if _told(path) != pid:
            signal.pidfd_send_signal(process, signal.SIGTERM)
            _remember(path, pid)
    except ProcessLookupError:
        return False
    except OSError as error:
        detail = f"process {pid} cannot be told to leave: {error.strerror}"
        raise Unavailable("node", f"{detail}; run the agent as the same user") from error
    finally:
        os.close(process)
    return True


def _told(path: str) -> int | None:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _remember(path: str, pid: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    except OSError as error:
        logger.warning("%s: an agent that starts anew will tell it again: %s", path, error)
        return
    try:
        os.write(descriptor, str(pid).encode())
    finally:
        os.close(descriptor)


def check_usable(path: str) -> None:
    """Find out at once that the lock's holder would never be seen.

    Raises:
        Misconfigured: Elsewhere than on Linux, or when the file's folder is not there.
    """
    if sys.platform != "linux":
        raise Misconfigured("livefeed node-agent runs on Linux only")
    if not Path(path).parent.is_dir():
        raise Misconfigured(f"LIVEFEED_NODE_LOCK_FILE={path}: its folder does not exist")


def _unusable(path: str, error: OSError) -> Misconfigured:
    return Misconfigured(f"LIVEFEED_NODE_LOCK_FILE={path} cannot be locked: {error.strerror}")
