"""`livefeed demo-history`: a history of files as updates, to try a whole system with."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final

import click

from livefeed.cli.client import feed_names
from livefeed.cli.lines import (
    BLOCK_BYTES,
    InputUnreadable,
    Line,
    LineSplitter,
    unreadable,
)
from livefeed.demo_history import Change, Event, Target, decode_event, updates_of
from livefeed.errors import Refused
from livefeed.identity import is_id
from livefeed.limits import AUDIENCE_USERS_MAX
from livefeed.subjects import LANES, Lane

GZIP_MARK: Final = b"\x1f\x8b"
COMMIT_MARK: Final = b"\x01"
"""Stands before a commit in what we let git print."""
HASH_CHARACTERS: Final = 12
AUTHOR_CHARACTERS: Final = 8
CHANGES: Final[dict[str, Change]] = {"A": "A", "M": "M", "D": "D", "T": "M"}
"""Git's letters; a file that became a link (T) has other content."""
GIT_LOG: Final = (
    *("-c", "log.showRoot=true", "log", "-z", "--first-parent", "-m", "--reverse"),
    *("--raw", "--no-abbrev", "--no-renames", "--ignore-submodules=none"),
    *("--no-color", "--no-show-signature", "--no-notes", "--format=%x01%H %ct %ae"),
)


@click.command("demo-history")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--user", "users", multiple=True, help="Whose own feed it is; may be repeated.")
@click.option("--topic", is_flag=True, help="It is for everyone on the feed.")
@click.option("--feed", help="One feed for everything; else each top-level folder is one.")
@click.option("--priority", type=click.Choice(LANES), default="medium", show_default=True)
def command(
    file: Path, users: tuple[str, ...], *, topic: bool, feed: str | None, priority: Lane
) -> None:
    """Print a history of files as updates, one JSON object a line, for `livefeed publish`.

    FILE is a list of events (JSON lines, gzip or not) or the folder of a git repository.
    A snapshot taken at the end shows every file that exists, with its last blob.
    """
    target = Target(_users(users), topic, _feed(feed), priority)
    if not target.users and not topic:
        raise click.UsageError("name who it is for: --user, which may be repeated, or --topic")
    events = git_events(file) if file.is_dir() else file_events(file)
    for line, event in events:
        for update in updates_of(event, line, target):
            sys.stdout.write(json.dumps(update, separators=(",", ":")) + "\n")


def file_events(path: Path) -> Iterator[tuple[int, Event]]:
    """The events of a file, with their line numbers.

    Raises:
        InputUnreadable: When it cannot be read.
        Refused: When a line is not an event.
    """
    for line in _lines(path):
        if line.too_long:
            raise Refused("history_invalid", f"line {line.number} is too long for an event")
        yield line.number, decode_event(line.text, line.number)


def git_events(folder: Path) -> Iterator[tuple[int, Event]]:
    """What happened to each file on the first-parent line of a repository, oldest first, counted.

    Raises:
        InputUnreadable: When git cannot read it.
    """
    command_line = ["git", "-C", str(folder), *GIT_LOG]
    try:
        # Complaints go to a file: a pipe that nobody reads meanwhile could fill, and stop git.
        with (
            tempfile.TemporaryFile() as complaints,
            subprocess.Popen(command_line, stdout=subprocess.PIPE, stderr=complaints) as process,
        ):
            assert process.stdout is not None
            yield from enumerate(parse_git_log(_fields(process.stdout)), 1)
            process.wait()
            complaints.seek(0)
            said = complaints.readline().decode(errors="replace").strip()
    except OSError as error:
        raise InputUnreadable(f"git cannot be started: {error.strerror}") from error
    if process.returncode:
        reason = said or f"exit code {process.returncode}"
        raise InputUnreadable(f"git cannot read {folder}: {reason}")


def parse_git_log(fields: Iterable[bytes]) -> Iterator[Event]:
    """The events in the NUL-separated output of `git log -z --raw` with our format."""
    commit, at, author = "", 0, ""
    rest = iter(fields)
    for field in rest:
        if field.startswith(COMMIT_MARK):
            head, seconds, address = field[1:].split(b" ", 2)
            commit, at, author = head.decode()[:HASH_CHARACTERS], int(seconds), _hash(address)
        elif field.lstrip(b"\n").startswith(b":"):
            # ":<mode> <mode> <blob> <blob> <letter>", and the path in the next field.
            blob, letter = field.decode().split(" ")[3:5]
            change = CHANGES[letter[0]]
            yield Event(
                at=at,
                commit=commit,
                author=author,
                change=change,
                path=next(rest).decode(errors="surrogateescape"),
                blob=None if change == "D" else blob[:HASH_CHARACTERS],
            )


def _fields(stream: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while block := stream.read(BLOCK_BYTES):
        *fields, rest = (rest + block).split(b"\0")
        yield from fields
    if rest:
        yield rest


def _lines(path: Path) -> Iterator[Line]:
    splitter = LineSplitter()
    try:
        with path.open("rb") as file:
            compressed = file.peek(len(GZIP_MARK)).startswith(GZIP_MARK)
            stream: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=file) if compressed else file
            while block := stream.read(BLOCK_BYTES):
                yield from splitter.feed(block)
        yield from splitter.finish()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputUnreadable(f"{path} is not whole: {error}") from error
    except OSError as error:
        raise unreadable(str(path), error) from error


def _users(names: tuple[str, ...]) -> tuple[str, ...]:
    users = tuple(dict.fromkeys(names))
    wrong = [name for name in users if not is_id(name)]
    if wrong:
        detail = f"{wrong[0]!r} is no user id: 1 to 128 characters, none of control"
        raise click.BadParameter(detail, param_hint="--user")
    if len(users) > AUDIENCE_USERS_MAX:
        raise click.BadParameter(f"at most {AUDIENCE_USERS_MAX} users", param_hint="--user")
    return users


def _feed(name: str | None) -> str | None:
    if name is None:
        return None
    feeds = feed_names(name)
    if len(feeds) > 1:
        raise click.BadParameter("only one feed can be named", param_hint="--feed")
    return feeds[0]


def _hash(address: bytes) -> str:
    return hashlib.sha256(address.strip().lower()).hexdigest()[:AUTHOR_CHARACTERS]
