"""`livefeed check` and how its lines are read: each wrong line is named, whatever is in it."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from livefeed.cli.check import PROBLEMS_MAX, command
from livefeed.cli.lines import LINE_BYTES_MAX, InputUnreadable, LineSplitter
from livefeed.update import update_schema

GOOD = json.dumps(
    {
        "updateId": "u1",
        "userId": "alice",
        "feedType": "home",
        "updateType": "new_content",
        "content": {"id": "p1"},
        "timestamp": "2020-01-01T00:00:00Z",
    }
).encode()

Check = Callable[..., Result]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Runs the command on a file with these bytes."""

    def run(content: bytes, *options: str) -> Result:
        path = tmp_path / "updates.ndjson"
        path.write_bytes(content)
        return CliRunner().invoke(command, [str(path), *options])

    return run


def test_a_good_file_is_said_to_be_good(check: Check) -> None:
    """Blank lines do not count, and the last line needs no end."""
    result = check(GOOD + b"\n\n \t\r\n" + GOOD + b"\r\n" + GOOD)
    assert (result.exit_code, result.output) == (0, "checked 3, wrong 0\n")


def test_wrong_lines_are_named(check: Check) -> None:
    """The line's number in the file, the reason, and a sentence."""
    lines = [
        GOOD,
        b"",
        b"nonsense",
        b"{}",
        GOOD.replace(b"alice", b"a\\n"),
        GOOD.replace(b"alice", b"\xe9"),
        GOOD.replace(b"2020", b"9020"),
        b"x" * (LINE_BYTES_MAX + 1),
        GOOD.replace(b"p1", b"p" * 129),
    ]
    result = check(b"\n".join(lines))
    assert result.exit_code == 1
    *named, summary = result.output.splitlines()
    assert [line.split(": ")[:2] for line in named] == [
        ["line 3", "invalid_json"],
        ["line 4", "invalid_update"],
        ["line 5", "invalid_update"],
        ["line 6", "invalid_json"],
        ["line 7", "timestamp_in_future"],
        ["line 8", "too_large"],
        ["line 9", "invalid_update"],
    ]
    assert "a user id has control characters" in named[2]
    assert named[5].endswith(f"the line has more than {LINE_BYTES_MAX} bytes")
    assert summary == "checked 8, wrong 7"


def test_as_json_it_is_one_bounded_object(check: Check) -> None:
    """Every wrong line counts, the first thousand are listed."""
    result = check(GOOD + b"\n" + b"{\n" * (PROBLEMS_MAX + 5), "--json")
    assert result.exit_code == 1
    said = json.loads(result.output)
    assert (said["checked"], said["wrong"]) == (PROBLEMS_MAX + 6, PROBLEMS_MAX + 5)
    assert len(said["problems"]) == PROBLEMS_MAX
    first = said["problems"][0]
    assert (first["line"], first["reason"]) == (2, "invalid_json")
    assert json.loads(check(GOOD, "--json").output) == {"checked": 1, "wrong": 0, "problems": []}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no updates"),
        (b"\n \n", "has no updates"),
        (gzip.compress(GOOD), "is compressed; decompress it with gunzip first"),
        (GOOD.decode().encode("utf-16"), "is not UTF-8 text; convert it with iconv first"),
        (GOOD.decode().encode("utf-16-be"), "is not UTF-8 text"),
    ],
)
def test_a_file_that_holds_no_updates_is_one_error(
    check: Check, content: bytes, words: str
) -> None:
    """It is said once of the file, not of every line."""
    error = check(content).exception
    assert isinstance(error, InputUnreadable)
    assert words in str(error)


@pytest.mark.parametrize("path", ["missing.ndjson", "."])
def test_a_file_that_cannot_be_read_is_one_error(path: str) -> None:
    """The error names the file and why."""
    error = CliRunner().invoke(command, [path]).exception
    assert isinstance(error, InputUnreadable)
    assert str(error).startswith(f"{path} cannot be read: ")


def test_the_schema_is_printed() -> None:
    """It needs no file."""
    assert json.loads(CliRunner().invoke(command, ["--schema"]).output) == update_schema()


def test_without_a_file_it_says_what_to_name() -> None:
    """It does not wait for a person to type updates."""
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 2
    assert "name a FILE" in result.output


@given(text=st.text("ab {}\n\r\t", max_size=60).map(str.encode), cuts=st.lists(st.integers(0, 60)))
def test_lines_do_not_depend_on_the_blocks(text: bytes, cuts: list[int]) -> None:
    """However the input is cut into blocks, its lines are the same."""
    edges = [0, *sorted(cuts), len(text)]
    splitter = LineSplitter()
    found = [
        line for start, end in itertools.pairwise(edges) for line in splitter.feed(text[start:end])
    ]
    found += splitter.finish()
    stripped = [(number, part.strip(b" \t\r")) for number, part in enumerate(text.split(b"\n"), 1)]
    assert [(one.number, one.text) for one in found] == [pair for pair in stripped if pair[1]]
    assert not any(one.too_long for one in found)


def test_a_line_without_end_takes_no_memory() -> None:
    """Only the beginning of a line that is too long is kept; the next line is whole again."""
    splitter = LineSplitter()
    for _ in range(64):
        assert splitter.feed(b"x" * 65_536) == []
    long, short = splitter.feed(b"x\n ok \n")
    assert (long.number, long.too_long, len(long.text)) == (1, True, LINE_BYTES_MAX)
    assert (short.number, short.too_long, short.text) == (2, False, b"ok")


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        (b'"updateId": "u1", ', b"", "`updateId`"),
        (b'"u1"', b"7", "`$.updateId`"),
        (b'"alice"', b"[]", "`$.userId`"),
        (b'"home"', b'"HOME"', "`$.feedType`"),
        (b'"new_content"', b'"new"', "`$.updateType`"),
        (b'{"id": "p1"}', b'{"id": 1}', "content.id"),
        (b'{"id": "p1"}', b"7", "content"),
        (b'{"id": "p1"}', b'{"id": "p1", "rank": "1"}', "content.rank"),
        (b'"2020-01-01T00:00:00Z"', b'"yesterday"', "`$.timestamp`"),
        (b'"updateId"', b'"version": -1, "updateId"', "`$.version`"),
        (b'"updateId"', b'"priority": "urgent", "updateId"', "`$.priority`"),
        (b'"updateId"', b'"metadata": {"batchId": 1}, "updateId"', "`$.metadata.batchId`"),
        (b'"updateId"', b'"colour": "red", "updateId"', "`colour`"),
        (b'"userId": "alice"', b'"audience": {"users": [1]}', "`$.audience.users[0]`"),
    ],
)
def test_the_field_is_named(check: Check, before: bytes, after: bytes, field: str) -> None:
    """Whoever mends a fixture sees at once where to look."""
    assert before in GOOD
    result = check(GOOD + b"\n" + GOOD.replace(before, after), "--json")
    assert result.exit_code == 1
    (problem,) = json.loads(result.output)["problems"]
    assert (problem["line"], problem["reason"]) == (2, "invalid_update")
    assert field in problem["detail"]
