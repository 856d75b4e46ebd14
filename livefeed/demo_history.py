"""A history of files, told as updates: material to try a whole system with, and to check its end.

Pure. A file is an item, its blob the state: whoever was given all events shows each file that
exists after the last one, with its last blob. Clocks in a history disagree, so the line number is
the version.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from livefeed.errors import Refused
from livefeed.identity import is_id
from livefeed.subjects import Lane
from livefeed.update import UpdateType

Change = Literal["A", "M", "D"]
UPDATE_TYPES: Final[dict[Change, UpdateType]] = {
    "A": "new_content",
    "M": "content_update",
    "D": "content_removal",
}
TOP_FEED: Final = "root"
"""The feed of files that are in no folder."""
SOURCE: Final = "demo-history"
READABLE_CHARACTERS_MAX: Final = 100


class Event(Struct, frozen=True):
    """A commit added, modified or deleted a file."""

    at: int
    """Seconds since 1970."""
    commit: str
    author: str
    change: Change
    path: str
    blob: str | None
    """The new content's id; None where the file was deleted."""


@dataclass(frozen=True, slots=True)
class Target:
    """Who is told of a history, and where."""

    users: tuple[str, ...] = ()
    """Each has it as a feed of their own."""
    topic: bool = False
    """Everyone on the feed has it."""
    feed: str | None = None
    """The one feed for everything; without it each top-level folder is a feed."""
    priority: Lane = "medium"


_decoder = msgspec.json.Decoder(Event)


def decode_event(text: bytes, line: int) -> Event:
    """Read one line of a history.

    Raises:
        Refused: When it is not an event; the text names the line.
    """
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("history_invalid", f"line {line} is not an event: {error}") from error


def updates_of(event: Event, line: int, target: Target) -> Iterator[dict[str, Any]]:
    """The updates that tell of an event.

    Args:
        event: What happened.
        line: Its place in the history, from 1.
        target: Who is told.

    Raises:
        Refused: When the event's time is none.
    """
    for audience in _audiences(target):
        yield {
            "updateId": _update_id(event, line, audience, target.feed),
            **audience,
            "feedType": target.feed or feed_of(event.path),
            "updateType": UPDATE_TYPES[event.change],
            "content": {
                "id": item_id(event.path),
                "blob": event.blob,
                "commit": event.commit,
                "author": event.author,
            },
            "priority": target.priority,
            "version": line,
            "timestamp": _timestamp(event.at, line),
            "metadata": {"source": SOURCE},
        }


def feed_of(path: str) -> str:
    """The feed of a file: its top-level folder, made a feed's name."""
    folder, slash, _ = path.partition("/")
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.lower()).lstrip("-_")[:64]
    return name if slash and name else TOP_FEED


def item_id(path: str) -> str:
    """The content id of a file: its path, or what is readable of it and a hash of it."""
    if is_id(path):
        return path
    # Paths of git need not be UTF-8; whoever reads them keeps their bytes as surrogates.
    digest = hashlib.blake2b(path.encode(errors="surrogateescape"), digest_size=8).hexdigest()
    readable = "".join(one if one.isprintable() else "?" for one in path)
    return f"{readable[:READABLE_CHARACTERS_MAX]}~{digest}"


def _audiences(target: Target) -> Iterator[dict[str, Any]]:
    if len(target.users) == 1:
        yield {"userId": target.users[0]}
    elif target.users:
        yield {"audience": {"users": list(target.users)}}
    if target.topic:
        yield {"audience": {"feed": True}}


def _update_id(event: Event, line: int, audience: dict[str, Any], feed: str | None) -> str:
    """The same again for the same event and target, and for nothing else."""
    parts = [audience, feed, line, *msgspec.structs.astuple(event)]
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()
    return f"history-{line}-{digest}"


def _timestamp(at: int, line: int) -> str:
    try:
        moment = datetime.fromtimestamp(at, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise Refused("history_invalid", f"line {line}: {at} is no time") from error
    return moment.isoformat().replace("+00:00", "Z")
