"""Lines of a file or of standard input, each with a bound: what the NDJSON commands read."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Final, NamedTuple

from livefeed.errors import LivefeedError, UpdateRefused
from livefeed.limits import KIB, UPDATE_BYTES_MAX
from livefeed.update import FeedUpdate, parse_update

STANDARD_INPUT: Final = "-"
BLOCK_BYTES: Final = 64 * KIB
BLOCKS_AHEAD_MAX: Final = 16
"""Blocks that are read before anybody asks for them."""
LINE_BYTES_MAX: Final = UPDATE_BYTES_MAX
BLANKS: Final = b" \t\r"
"""What JSON calls white space, within a line."""


class InputUnreadable(LivefeedError):
    """A file that cannot be read, or that is not what the command reads."""


class Line(NamedTuple):
    """One line that is not blank."""

    number: int
    """The first line of the input is 1."""
    text: bytes
    """Without the white space around it; only the beginning when it is too long."""
    too_long: bool


class LineSplitter:
    """Cuts blocks into lines; of a line that is too long it keeps the beginning only."""

    def __init__(self) -> None:
        self._number = 0
        self._kept = bytearray()
        self._too_long = False

    def feed(self, block: bytes) -> list[Line]:
        """The lines that this block ends."""
        *ends, rest = block.split(b"\n")
        lines = [line for end in ends if (line := self._end(end)) is not None]
        self._keep(rest)
        return lines

    def finish(self) -> list[Line]:
        """The last line, if nothing ended it."""
        line = self._end(b"")
        return [] if line is None else [line]

    def _keep(self, part: bytes) -> None:
        room = LINE_BYTES_MAX - len(self._kept)
        self._too_long = self._too_long or len(part) > room
        self._kept += part[:room]

    def _end(self, part: bytes) -> Line | None:
        self._keep(part)
        self._number += 1
        text, too_long = bytes(self._kept).strip(BLANKS), self._too_long
        self._kept.clear()
        self._too_long = False
        return Line(self._number, text, too_long) if text or too_long else None


class BlockReader:
    """Reads a descriptor ahead in a thread of its own, which may wait for input for ever.

    A thread of the default executor would be waited for at the end of the program.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._blocks: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = threading.Semaphore(BLOCKS_AHEAD_MAX)
        self._error: OSError | None = None
        self.stopped = False
        threading.Thread(target=self._read_all, name="read-input", daemon=True).start()

    async def read(self) -> bytes:
        """Everything that is there, at least one byte of it; nothing at the end.

        Raises:
            OSError: When reading failed.
        """
        blocks = [await self._blocks.get()]
        while blocks[-1] and not self._blocks.empty():
            blocks.append(self._blocks.get_nowait())
        self._room.release(len(blocks))
        if not blocks[-1]:
            self._blocks.put_nowait(b"")  # The end is for every later call too.
        data = b"" if self.stopped else b"".join(blocks)
        if not data and self._error is not None:
            raise self._error
        return data

    def stop(self) -> None:
        """Pretend that the input ends here."""
        self.stopped = True
        self._blocks.put_nowait(b"")

    def _read_all(self) -> None:
        block = b"?"
        while block:
            self._room.acquire()
            try:
                block = os.read(self._descriptor, BLOCK_BYTES)
            except OSError as error:
                self._error, block = error, b""
            try:
                self._loop.call_soon_threadsafe(self._blocks.put_nowait, block)
            except RuntimeError:
                return  # The loop is closed: nobody waits for more.


async def read_lines(reader: BlockReader, path: str) -> AsyncIterator[tuple[list[Line], int]]:
    """The lines that are there, as they come, and how many bytes were read for them.

    What was not ended by a line's end when the reader was stopped is no line.

    Raises:
        InputUnreadable: When reading failed.
    """
    splitter = LineSplitter()
    try:
        while block := await reader.read():
            yield splitter.feed(block), len(block)
    except OSError as error:
        raise unreadable(path, error) from error
    if not reader.stopped:
        yield splitter.finish(), 0


def open_input(path: str) -> int:
    """A descriptor of a file, or of standard input.

    Raises:
        InputUnreadable: When it cannot be opened.
    """
    if path == STANDARD_INPUT:
        return sys.stdin.fileno()
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path, error) from error


def lines_of(path: str) -> Iterator[Line]:
    """Every line of an input that is not blank.

    Raises:
        InputUnreadable: When it cannot be read, or is no text at all.
    """
    descriptor, splitter, first = open_input(path), LineSplitter(), True
    try:
        while block := os.read(descriptor, BLOCK_BYTES):
            if first:
                refuse_other_formats(path, block)
                first = False
            yield from splitter.feed(block)
        yield from splitter.finish()
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        if path != STANDARD_INPUT:
            os.close(descriptor)


def refuse_other_formats(path: str, beginning: bytes) -> None:
    """Say once what would otherwise be said of every line.

    Raises:
        InputUnreadable: When it is compressed, or text in another encoding than UTF-8.
    """
    if beginning.startswith(b"\x1f\x8b"):
        raise InputUnreadable(f"{name_of(path)} is compressed; decompress it with gunzip first")
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in beginning[:4]:
        raise InputUnreadable(f"{name_of(path)} is not UTF-8 text; convert it with iconv first")


def check_line(line: Line, *, now_microseconds: int) -> FeedUpdate:
    """The update that a line holds.

    Raises:
        UpdateRefused: For the reason that the server would refuse it.
    """
    if line.too_long:
        raise UpdateRefused("too_large", f"the line has more than {LINE_BYTES_MAX} bytes")
    update, _items = parse_update(line.text, now_microseconds=now_microseconds)
    return update


def unreadable(path: str, error: OSError) -> InputUnreadable:
    """The error for an input that the system does not let us read."""
    return InputUnreadable(f"{name_of(path)} cannot be read: {error.strerror or error}")


def name_of(path: str) -> str:
    """What messages call an input."""
    return "standard input" if path == STANDARD_INPUT else path
