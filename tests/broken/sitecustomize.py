"""Breaks livefeed on purpose, to see that a benchmark's verifiers notice.

Python imports a module of this name by itself, in every process whose path has this folder: that is
what a test puts there, and nothing of it is in the product. BROKEN names the faults, by part and
kind; each happens once, in the first gateway or worker to which it can.
"""

from __future__ import annotations

# ruff: noqa: PLC0415  # what a process does not use, it does not import
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PERSONAL_FRAME = b'"channel":"me/'
FRAMES_BEFORE = 5
"""Frames that pass as they are, so that what is broken stands in the middle."""
CORPUS = "user:smoke-"
"""How the channels begin whose log is compared with the model."""


def break_frames(kind: str) -> None:
    """A gateway that does not send a frame, sends it twice, or sends it to somebody else too."""
    from gateway import socket

    made = socket.DirectSocket.__init__
    sent: list[tuple[object, bytes]] = []

    def faulty(self: Any, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **named)
        write: Callable[[bytes], None] = self.write

        def break_one(data: bytes) -> None:
            if PERSONAL_FRAME not in data or len(sent) > FRAMES_BEFORE:
                write(data)
                return
            others = [frame for whose, frame in sent if whose is not self]
            sent.append((self, data))
            broken = len(sent) > FRAMES_BEFORE
            if broken and kind == "foreign" and not others:
                sent.pop()
                broken = False
            if not (broken and kind == "lost"):
                write(data)
            if broken and kind == "doubled":
                write(data)
            if broken and kind == "foreign":
                write(others[-1])

        self.write = break_one

    socket.DirectSocket.__init__ = faulty  # type: ignore[method-assign]


def break_log(kind: str) -> None:
    """A log that loses an entry, gives one seq to two, or has an item that nobody published."""
    from livefeed.adapters.postgres.log import Log

    persist = Log.persist

    async def faulty(self: Any, entries: Mapping[Any, Any], bodies: Mapping[Any, Any]) -> Any:
        mine = [key for key in entries if key.channel.startswith(CORPUS)]
        if mine and kind == "foreign":
            entries = {**entries, mine[-1]._replace(item=mine[-1].item ^ 1): entries[mine[-1]]}
        flushed = await persist(self, entries, bodies)
        if mine and kind in BREAK_ENTRIES:
            # After each flush: a later one would mend it with what it writes.
            async with self._pool.connection() as connection:
                await connection.execute(BREAK_ENTRIES[kind], mine[-1].channel)
        return flushed

    Log.persist = faulty  # type: ignore[method-assign]


_ENDS = """(
    select channel_id, min(feed_entry.seq) as low, max(feed_entry.seq) as high
    from feed_entry join feed_channel on feed_channel.id = channel_id where name = $1
    group by channel_id having count(*) > 1
) ends where feed_entry.channel_id = ends.channel_id and feed_entry.seq = ends.low"""
BREAK_ENTRIES = {
    "lost": f"delete from feed_entry using {_ENDS}",
    "doubled": f"update feed_entry set seq = ends.high from {_ENDS}",
}


def break_answers(kind: str) -> None:
    """A gateway whose snapshots lack an item, have it twice, or have somebody else's."""
    from gateway import snapshots

    right = snapshots.answer
    others: dict[str, Any] = {}

    def faulty(
        moment: Any, user_id: str, feed: str, *, items: Sequence[Any], **named: Any
    ) -> bytes:
        given = list(items)
        theirs = [item for whose, item in others.items() if whose != user_id]
        if given:
            others[user_id] = given[0]
        if kind == "lost":
            given = given[1:]
        elif kind == "doubled":
            given = given[:1] + given
        elif theirs:
            given = [*given, theirs[0]]
        return right(moment, user_id, feed, items=given, **named)

    snapshots.answer = faulty


WORKERS = {"worker", "livefeed.cli.fork_server"}
"""One that is started, and what the others are forked from."""
PARTS: dict[str, tuple[set[str], Callable[[str], None]]] = {
    "frames": ({"gateway"}, break_frames),
    "log": (WORKERS, break_log),
    "answers": ({"gateway"}, break_answers),
}

for fault in filter(None, os.environ.get("BROKEN", "").split(",")):
    part, _, of_kind = fault.partition(":")
    processes, break_it = PARTS[part]
    if processes & {*sys.orig_argv}:
        break_it(of_kind)
