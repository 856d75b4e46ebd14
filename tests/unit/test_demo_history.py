"""A history told as updates: replayed in any order it ends with exactly the files that exist."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from livefeed.cli.demo_history import parse_git_log
from livefeed.demo_history import Event, Target, decode_event, feed_of, item_id, updates_of
from livefeed.entry import Entry, EntryKey, coalesce
from livefeed.errors import Refused
from livefeed.identity import is_feed, is_id, item_key, update_ref
from livefeed.order import microseconds, order_key
from livefeed.update import CONTENT_REMOVAL, facet_of, kind_of, parse_update

HISTORY = Path(__file__).parents[1] / "data" / "websockets_history"
NOW_MICROSECONDS = 2_000_000_000_000_000


def events() -> list[Event]:
    lines = gzip.decompress((HISTORY / "events.jsonl.gz").read_bytes()).splitlines()
    return [decode_event(line, number) for number, line in enumerate(lines, 1)]


def told(target: Target) -> list[dict[str, Any]]:
    return [
        update
        for line, event in enumerate(events(), 1)
        for update in updates_of(event, line, target)
    ]


def replay(updates: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """What the log shows at the end: the blob of each visible item of each feed."""
    entries: list[tuple[EntryKey, Entry]] = []
    contents: dict[bytes, tuple[str, dict[str, Any]]] = {}
    for one in updates:
        update, (item,) = parse_update(json.dumps(one).encode(), now_microseconds=NOW_MICROSECONDS)
        moment, kind = microseconds(update.timestamp), kind_of(update)
        ref = update_ref(update.update_id, item.id)
        order = order_key(version=update.version, timestamp_microseconds=moment, ref=ref)
        key = EntryKey(update.feed_type, item_key(item.id), facet_of(kind))
        entries.append((key, Entry(order, kind, item.rank, moment)))
        contents[ref] = update.feed_type, one["content"]
    shown = [one for one in coalesce(entries).values() if one.kind != CONTENT_REMOVAL]
    found = [contents[entry.order.ref] for entry in shown]
    return {(feed, content["id"]): content["blob"] for feed, content in found}


def tree() -> dict[str, str]:
    files: dict[str, str] = json.loads((HISTORY / "tree.json").read_text())
    return files


def test_the_end_is_exactly_the_tree() -> None:
    """Every path with its last blob and no deleted path, also when the events come shuffled."""
    updates = told(Target(users=("alice",), feed="home"))
    assert len(updates) == 6_062
    expected = {("home", path): blob for path, blob in tree().items()}
    assert replay(updates) == expected
    random.Random(7).shuffle(updates)
    assert replay(updates) == expected


def test_without_a_feed_each_folder_is_one() -> None:
    """The feed is the top-level folder, and the union of all feeds is the tree."""
    shown = replay(told(Target(topic=True)))
    assert shown == {(feed_of(path), path): blob for path, blob in tree().items()}
    assert {"src", "docs", "github", "root"} <= {feed for feed, _ in shown}


def test_an_update_says_everything_of_its_event() -> None:
    """The fields of one update, whole."""
    event = Event(
        at=1_364_680_936, commit="c0ffee", author="abcd", change="D", path="a/b", blob=None
    )
    (update,) = updates_of(event, 7, Target(users=("alice",), priority="high"))
    assert update.pop("updateId").startswith("history-7-")
    assert update == {
        "userId": "alice",
        "feedType": "a",
        "updateType": "content_removal",
        "content": {"id": "a/b", "blob": None, "commit": "c0ffee", "author": "abcd"},
        "priority": "high",
        "version": 7,
        "timestamp": "2013-03-30T22:02:16Z",
        "metadata": {"source": "demo-history"},
    }


@pytest.mark.parametrize(
    ("target", "audiences"),
    [
        (Target(users=("a",)), [{"userId": "a"}]),
        (Target(users=("a", "b")), [{"audience": {"users": ["a", "b"]}}]),
        (Target(topic=True), [{"audience": {"feed": True}}]),
        (Target(users=("a",), topic=True), [{"userId": "a"}, {"audience": {"feed": True}}]),
    ],
)
def test_a_target_decides_the_audience(target: Target, audiences: list[dict[str, Any]]) -> None:
    """One update for one user, for all users together, and for the topic."""
    updates = list(updates_of(events()[0], 1, target))
    found = [{k: one[k] for k in ("userId", "audience") if k in one} for one in updates]
    assert found == audiences


def test_an_update_id_is_of_one_line_and_target() -> None:
    """The same line and target give the same id again, any other gives another."""
    targets = [
        Target(users=("alice",)),
        Target(users=("alice",), feed="home"),
        Target(users=("alice", "bob")),
        Target(topic=True),
    ]
    every = [one["updateId"] for target in targets for one in told(target)]
    assert len(set(every)) == len(every)
    again = [one["updateId"] for target in targets for one in told(target)]
    assert again == every


@pytest.mark.parametrize(
    ("path", "feed"),
    [
        ("README", "root"),
        ("src/a.py", "src"),
        (".github/x", "github"),
        ("Some Folder/x", "some-folder"),
        ("ä/x", "root"),
        ("-/x", "root"),
        ("x" * 100 + "/y", "x" * 64),
    ],
)
def test_a_folder_becomes_a_feeds_name(path: str, feed: str) -> None:
    """Whatever a folder is called, its feed's name is one."""
    assert feed_of(path) == feed
    assert is_feed(feed)


@pytest.mark.parametrize(
    "path", ["a\nb", "a\x7f", "x" * 129, "caf\udce9", "\udcff" * 200, "\u2028\n"]
)
def test_a_path_that_is_no_id_becomes_one(path: str) -> None:
    """Control characters, bytes that are not UTF-8 and length do not lose or join files."""
    assert is_id(item_id(path))
    assert item_id(path) != item_id(path + "x")
    assert item_id("src/a b.py") == "src/a b.py"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"at":1}',
        b'{"at":1,"commit":"c","author":"a","change":"R","path":"p","blob":null}',
        b'{"at":"1","commit":"c","author":"a","change":"A","path":"p","blob":"b"}',
    ],
)
def test_a_line_that_is_no_event_is_named(line: bytes) -> None:
    """The error says which line it was."""
    with pytest.raises(Refused, match="line 12 is not an event"):
        decode_event(line, 12)


def test_a_time_that_is_none_is_named() -> None:
    """A number of seconds that no calendar has is refused, not a traceback."""
    event = Event(at=10**18, commit="c", author="a", change="A", path="p", blob="b")
    with pytest.raises(Refused, match="line 3: 1000000000000000000 is no time"):
        list(updates_of(event, 3, Target(topic=True)))


def test_the_output_of_git_is_read_by_its_places() -> None:
    """Paths may look like commits or have line feeds; a change of type is a modification."""
    commit, blob, none = b"0123456789abcdef" * 2 + b"01234567", b"f" * 40, b"0" * 40
    fields = [
        b"\x01" + commit + b" 1700000000 a b@example.org",
        b"\n:000000 100644 " + none + b" " + blob + b" A",
        b":looks like\none",
        b":100644 000000 " + blob + b" " + none + b" D",
        b"\x01gone",
        b":100644 120000 " + blob + b" " + blob + b" T",
        b"\xff",
        b"\x01" + commit + b" 1700000001 a b@example.org",
    ]
    found = list(parse_git_log(fields))
    assert [(one.change, one.path, one.blob) for one in found] == [
        ("A", ":looks like\none", "f" * 12),
        ("D", "\x01gone", None),
        ("M", "\udcff", "f" * 12),
    ]
    assert {(one.at, one.commit) for one in found} == {(1_700_000_000, "0123456789ab")}
