"""PostgreSQL refuses to run as root: it runs as `nobody` then, with no more access than needed."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import Final

from livefeed.adapters.process import Identity
from livefeed.errors import Misconfigured

UNPRIVILEGED_USER: Final = "nobody"


def server_identity() -> Identity | None:
    """Return who PostgreSQL runs as: None for ourselves, somebody else when we are root."""
    if os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam(UNPRIVILEGED_USER)
    except KeyError:
        raise Misconfigured(
            f"PostgreSQL does not run as root, and there is no user {UNPRIVILEGED_USER} here: run "
            "this as another user, or name a server that runs with LIVEFEED_DATABASE_URL"
        ) from None
    return Identity(user.pw_uid, user.pw_gid)


def make_reachable(folder: Path, identity: Identity) -> None:
    """Let the identity pass a folder and those above it: only o+x, only where it is missing."""
    resolved = folder.resolve()
    for step in (resolved, *resolved.parents):
        found = step.stat()
        if found.st_uid != identity.uid and not found.st_mode & stat.S_IXOTH:
            step.chmod(stat.S_IMODE(found.st_mode) | stat.S_IXOTH)


def make_readable(folder: Path) -> None:
    """Let everybody read a folder of the wheel, where pip was run with a umask that forbade it."""
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        wanted = stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
        if mode & wanted != wanted:
            path.chmod(stat.S_IMODE(mode) | wanted)


def claim(folder: Path, identity: Identity) -> None:
    """Give a data directory and all in it to the identity, unless it has it already."""
    if folder.stat().st_uid == identity.uid:
        return
    for path in (*folder.rglob("*"), folder):
        os.chown(path, identity.uid, identity.gid, follow_symlinks=False)
