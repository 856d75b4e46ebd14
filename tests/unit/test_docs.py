"""The pages say what the code does: tables, examples and links are compared with it."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Iterable, Iterator
from importlib import util
from pathlib import Path
from typing import NamedTuple, get_args

import msgspec
import pytest

from gateway.refusals import STATUS
from livefeed import protocol, subjects, topology
from livefeed.admission import RETRY_AFTER_SECONDS
from livefeed.cli.main import COMMANDS
from livefeed.cursor import parse_cursor
from livefeed.errors import DeadLetterReason
from livefeed.feed_view import FeedItem
from livefeed.messages import PublicBody, public_body, public_update
from livefeed.over_http import Answer, Events, Reached
from livefeed.subjects import LANES
from livefeed.update import parse_update, update_schema
from tests.scripts import script
from tests.wire_faults import FRAMES, HANDSHAKES

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("clients/*/*.md")])
PROTOCOL = ROOT / "docs" / "protocol.md"
PUBLISHING = ROOT / "docs" / "publishing.md"
COMMANDS_PAGE = ROOT / "docs" / "operations" / "commands.md"

NOW_MICROSECONDS = 2_000_000_000_000_000
"""Later than every example's timestamp."""


GENERATE = script(ROOT / "docs" / "generate.py")


class Example(NamedTuple):
    """A fenced block and what the comment above it says that it is."""

    place: str
    kind: str
    text: str


def examples(kind: str) -> list[Example]:
    """Every block below `<!-- kind -->`."""
    return [example for page in PAGES for example in examples_of(page) if example.kind == kind]


def examples_of(page: Path) -> Iterator[Example]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"<!-- ([a-z ]+) -->\n```json\n(.*?)```", text, re.DOTALL):
        line = text[: found.start()].count("\n") + 1
        yield Example(f"{page.relative_to(ROOT)}:{line}", found[1], found[2])


def table_below(page: Path, heading: str, first_cell: str) -> list[list[str]]:
    """The cells of the table below a heading whose first column is headed so."""
    text = "\n" + page.read_text(encoding="utf-8")
    _, found, section = text.partition(f"\n{heading}\n")
    assert found, f"{page.name} has no heading {heading!r}"
    lines = section.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_cell} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def codes_in(cell: str) -> list[str]:
    return re.findall("`([^`]+)`", cell)


def first_codes(rows: Iterable[list[str]]) -> list[str]:
    return [codes_in(row[0])[0] for row in rows]


def test_generated_parts_are_up_to_date() -> None:
    """What is data in the code stands in the pages as the code has it."""
    stale = [path for path, text in GENERATE.pages() if GENERATE.read(path) != text]
    assert not stale, f"run `.venv/bin/python docs/generate.py`; out of date: {', '.join(stale)}"


def test_every_limit_is_explained() -> None:
    """Each bound of limits.py has its string, so that the page lists it."""
    source = (ROOT / "livefeed" / "limits.py").read_text(encoding="utf-8")
    explained = {one.name for one in GENERATE.documented(source)}
    names = {name for one in ast.parse(source).body if (name := GENERATE.assigned(one))}
    assert names - explained == {"KIB", "MIB"}


def test_every_setting_is_explained() -> None:
    """Each setting has a description, so that the page and `livefeed config` explain it."""
    fields = dict(importlib.import_module("livefeed.settings").Settings.model_fields)
    fields |= importlib.import_module("livefeed.node_settings").NodeSettings.model_fields
    assert [name for name, field in fields.items() if not field.description] == []


def test_close_codes() -> None:
    """The protocol's page lists the close codes, each with whether to come back."""
    rows = table_below(PROTOCOL, "## Close codes", "Code")
    listed = {(int(code), codes_in(name)[0]): back == "yes" for code, name, back, _ in rows}
    assert listed == {
        (int(code), code.name): code == 1012 or 4000 <= code < 4500 for code in protocol.CloseCode
    }


def test_close_codes_that_are_not_sent() -> None:
    """The page says which close codes the gateway never sends, and is right."""
    text = PROTOCOL.read_text(encoding="utf-8")
    unsent = re.search(r"Not sent\s+today:(.*?)A client", text, re.DOTALL)
    assert unsent is not None
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "gateway").glob("*.py")]
    sent = {name for source in sources for name in re.findall(r"CloseCode\.([A-Z_]+)", source)}
    named = [name for name in codes_in(unsent[1]) if name.isupper()]
    assert set(named) == {code.name for code in protocol.CloseCode} - sent


def test_error_codes() -> None:
    """The protocol's page explains every code of a frame, and every status of a refusal."""
    assert first_codes(table_below(PROTOCOL, "## Error codes", "Code")) == list(protocol.ERRORS)
    http = table_below(PROTOCOL, "### Statuses over HTTP", "Code")
    statuses = {codes_in(code)[0]: int(status) for code, status, _ in http}
    assert statuses == STATUS
    assert {code for code, _, meaning in http if "Retry-After" in meaning} == {
        f"`{code}`" for code in RETRY_AFTER_SECONDS
    }
    silent = [codes_in(code)[0] for code, _, meaning in http if not meaning]
    assert [code for code in silent if code not in protocol.ERRORS] == []


def test_what_breaks_the_rules() -> None:
    """The protocol's page lists every fault that is tested, with the answer that is tested."""
    heading = "## What breaks the rules"
    for column, faults in (("Frames", FRAMES), ("Handshake", HANDSHAKES)):
        rows = table_below(PROTOCOL, heading, column)
        listed = {name: codes_in(answer)[0] for name, answer in rows if not name.startswith("~~")}
        assert listed == {fault.name: fault.answer for fault in faults}


def test_every_refusal_in_the_code_is_explained() -> None:
    """No code is raised towards a client that the protocol's page does not have."""
    text = PROTOCOL.read_text(encoding="utf-8")
    kinds = {"AccessRefused", "FrameRefused", "CursorRefused"}
    raised = {
        *refusals("gateway", {*kinds, "Refused"}),
        *refusals("livefeed", kinds),
    }
    assert "cursor_foreign" in raised  # the search finds something
    assert [code for code in sorted(raised) if f"`{code}`" not in text] == []


def refusals(folder: str, kinds: set[str]) -> Iterator[str]:
    """The codes with which a folder's code makes errors of these kinds; not those of commands."""
    for path in (ROOT / folder).rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_bytes())):
            match call:
                case ast.Call(func=ast.Name(id=kind), args=[ast.Constant(value=str(code)), *_]):
                    if kind in kinds and "cli" not in path.parts:
                        yield code


def test_dead_letter_reasons() -> None:
    """The publishers' page has every reason, in the code's order."""
    rows = table_below(PUBLISHING, "## Dead letters", "Reason")
    assert first_codes(rows) == list(get_args(DeadLetterReason))


def test_subjects() -> None:
    """The subjects that the publishers' page promises are read with the priority it says."""
    rows = table_below(PUBLISHING, "## Subjects", "Subject")
    for subject, lane in rows:
        example = codes_in(subject)[0].replace("<source>", "posts")
        assert subjects.priority_of(example) == lane
    explicit = [subjects.updates(lane, "<source>") for lane in LANES]
    assert first_codes(rows) == [*explicit, f"{subjects.UPDATES_PREFIX}<source>"]


def test_streams_and_consumers() -> None:
    """The publishers' page has each stream with its subjects, and every consumer's name."""
    rows = {
        codes_in(name)[0]: (codes_in(given), full, codes_in(readers))
        for name, given, full, _, readers in table_below(PUBLISHING, "## Subjects", "Stream")
    }
    streams = topology.streams(bytes_max=1)
    assert set(rows) == {stream.name for stream in streams}
    for stream in streams:
        given, full, readers = rows[stream.name]
        assert set(given) == set(stream.subjects)
        assert full.startswith("refuses" if stream.discard == "new" else "deletes")
        consumers = {one.name for one in topology.consumers() if one.stream == stream.name}
        patterns = [
            name.replace("<lane>", "[a-z]+").replace("<partition>", "[0-9]+") for name in readers
        ]
        assert [one for one in consumers if not any(re.fullmatch(p, one) for p in patterns)] == []
        assert bool(patterns) == bool(consumers)


def test_lanes_and_windows() -> None:
    """The windows on the publishers' page are the settings' defaults."""
    fields = importlib.import_module("livefeed.settings").Settings.model_fields
    for lane, window, setting in table_below(PUBLISHING, "## Lanes", "Lane"):
        if lane == "high":
            continue
        assert codes_in(setting) == [f"LIVEFEED_WINDOW_{lane.upper()}_SECONDS"]
        assert window == f"{fields[f'window_{lane}_seconds'].default:g} s"


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name: str) -> None:
    """Each command stands in the table with its `--help` line, as soon as it is there."""
    if util.find_spec(COMMANDS[name]) is None:
        pytest.skip(f"{COMMANDS[name]} is not written yet")
    text = importlib.import_module(COMMANDS[name]).command.get_short_help_str(limit=1000)
    rows = table_below(COMMANDS_PAGE, "# Commands", "Command")
    does: dict[str, str] = {}
    for usage, said in rows:
        does.setdefault(codes_in(usage)[0].split()[0], said)
    assert does.get(name) == GENERATE.cell(text), "run `.venv/bin/python docs/generate.py`"


def test_no_command_is_promised_that_is_not_there() -> None:
    """Every `livefeed X` and `./dev X` of the pages is a command or a task of ./dev."""
    known = {*COMMANDS, "check", "test", "format"}
    named = {
        (page.name, word)
        for page in PAGES
        for line in page.read_text(encoding="utf-8").splitlines()
        for word in re.findall(r"(?:`livefeed|\./dev) ([a-z][a-z-]+)", line)
    }
    assert sorted(one for one in named if one[1] not in known) == []


def test_updates_in_examples_are_updates() -> None:
    """An example that is called an update is accepted by the parser."""
    found = examples("update")
    assert found
    for example in found:
        _, items = parse_update(example.text.encode(), now_microseconds=NOW_MICROSECONDS)
        assert items, example.place


def test_updates_in_examples_fit_the_schema() -> None:
    """And by the schema that publishers check with."""
    validate = pytest.importorskip("jsonschema").validate
    for example in examples("update"):
        validate(json.loads(example.text), update_schema())


def test_updates_in_shell_examples_are_updates() -> None:
    """Lines that one may paste into `livefeed publish` are accepted."""
    lines = [
        line
        for page in PAGES
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith('{"updateId"') and line.endswith("}")
    ]
    assert lines
    for line in lines:
        parse_update(line.encode(), now_microseconds=NOW_MICROSECONDS)


def test_client_frames_are_read() -> None:
    """Each example of a client's frame is one, and each kind of frame has an example."""
    kinds = {type(protocol.decode_frame(example.text)) for example in examples("client frame")}
    assert kinds == set(get_args(protocol.ClientFrame))


def test_server_frames_have_the_fields_of_the_code() -> None:
    """Each example of a server's frame has the fields that the server sends, and no others."""
    sent = {frame["type"]: frame for frame in map(msgspec.json.decode, server_frames())}
    shown = {}
    for example in examples("server frame"):
        frame = json.loads(example.text)
        shown[frame["type"]] = frame
        assert set(frame) == set(sent[frame["type"]]), example.place
    assert set(shown) == set(sent)
    (update,) = shown["feed_updates"]["updates"]
    assert set(update) == set(msgspec.json.decode(public_update_bytes()))


def public_update_bytes() -> bytes:
    """An update as the server puts it into a frame."""
    body = PublicBody(
        update_id="u",
        update_type="new_content",
        feed_type="home",
        content=msgspec.Raw(b"{}"),
        timestamp="t",
        version=None,
        priority="high",
        metadata={},
    )
    return public_update("user:alice/home", 1, rank=None, born=0, body=public_body(body))


def server_frames() -> list[bytes]:
    """One frame of each kind, as the server makes it."""
    return [
        protocol.connection_established(
            connection_id="c", user_id="alice", feeds=["home"], timestamp="t", epoch="e"
        ),
        protocol.feed_updates(
            batch_id="b", timestamp="t", updates=[], cursor={}, floor={}, replay=True, more=False
        ),
        protocol.caught_up(["home"]),
        protocol.reset(["home"], "epoch_changed", "e"),
        protocol.error("unavailable", "m", retryable=True),
        protocol.reconnect(after_milliseconds=1, reason="drain"),
        protocol.degraded(realtime=False, poll_after_milliseconds=1),
    ]


def test_snapshot_example_holds_together() -> None:
    """The snapshot's cursor is one, of its feed's channels, and its items have the real fields."""
    (example,) = examples("snapshot")
    snapshot = json.loads(example.text)
    fields = set(FeedItem.__struct_encode_fields__)
    assert [set(item) for item in snapshot["items"]] == [fields] * 2
    assert isinstance(snapshot["unread"], int)
    cursor = parse_cursor(snapshot["cursor"])
    assert set(cursor.positions) == set(snapshot["floor"])
    assert {item["channel"] for item in snapshot["items"]} <= set(cursor.positions)


def test_examples_over_http_have_the_fields_of_the_code() -> None:
    """The last event of a stream, and the answer of a long poll with a reset."""
    (closed,) = examples("closed event")
    sent = Events.closed(4001, "the token is expired").partition(b"data: ")[2]
    assert json.loads(closed.text) == json.loads(sent)
    (poll,) = examples("long poll")
    answer = Answer(Reached("home", None))
    answer.add(protocol.reset(["home"], "epoch_changed", "e"))
    shown, real = json.loads(poll.text), json.loads(answer.body())
    assert set(shown) == set(real)
    assert set(shown["reset"]) == set(real["reset"])
    assert parse_cursor(shown["cursor"]).epoch == shown["reset"]["epoch"]


def test_other_examples_are_json() -> None:
    """Every block that is called JSON is."""
    for page in PAGES:
        for found in re.finditer(r"```json\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            json.loads(found[1])


def test_python_examples_are_python() -> None:
    """Every block that is called Python can be read by it."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
            ast.parse(found[1])


def test_relative_links_resolve() -> None:
    """A link to a file leads to one, and one to a heading leads to a heading of that page."""
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page))
        if not target.startswith(("http://", "https://", "mailto:"))
        and not leads_somewhere(page, target)
    ]
    assert broken == []


def without_code(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    there = (page.parent / path).resolve() if path else page
    if not there.exists():
        return False
    return not anchor or anchor in {anchor_of(title) for title in headings(there)}


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)


def anchor_of(heading: str) -> str:
    """The anchor that a forge gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_decision_is_in_the_index() -> None:
    """The index names each record by its own title's number, and nothing else."""
    folder = ROOT / "docs" / "decisions"
    records = sorted(path.name for path in folder.glob("0*.md"))
    listed = re.findall(r"\]\((0[^)]+)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert listed == records
    for name in records:
        assert (folder / name).read_text(encoding="utf-8").startswith(f"# {name[:4]}: ")
