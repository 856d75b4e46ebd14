"""The commands on a real stack: publish, tail, snapshot, token, demo-history."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from livefeed import subjects
from livefeed.cli.sending import REFUSALS_SHOWN_MAX
from livefeed.topology import UPDATES
from tests.servers import OwnServers, Stack, until, update

HISTORY = Path(__file__).parents[1] / "data" / "websockets_history"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextlib.asynccontextmanager
async def running(stack: Stack, *arguments: str) -> AsyncIterator[Process]:
    """A command that runs meanwhile, with pipes."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "livefeed.cli", *arguments),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=stack.environment(gateway_port=_gateway_port(stack)),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def _gateway_port(stack: Stack) -> int | None:
    return int(stack.url.rpartition(":")[2]) if stack.gateways else None


def ndjson(updates: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(one) + "\n" for one in updates)


async def stored(stack: Stack) -> int:
    """How many updates the stream has ever taken."""
    info = await (await stack.nats()).jetstream().stream_info(UPDATES)
    return int(info.state.last_seq)


async def has_stored(stack: Stack, number: int) -> None:
    async def so_many() -> bool:
        return await stored(stack) == number

    await until(so_many, what=f"{number} updates are stored")


async def line(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(15):
        return (await process.stdout.readline()).decode().rstrip("\n")


async def write(process: Process, text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text.encode())
    await process.stdin.drain()


# publish


async def test_publish_counts_what_became_of_each_line(stack: Stack) -> None:
    """Accepted, duplicates within a batch and of an earlier run, and refused lines by number."""
    updates = [update(id=f"p{number}") for number in range(600)]
    wrong = "nonsense\n\n" + '{"updateId":"x"}\n'
    text = ndjson(updates[:300]) + wrong + ndjson([*updates[250:], updates[0]])
    done = await stack.command("publish", stdin=text)
    assert (done.stdout, done.returncode) == ("accepted 600, duplicate 51, refused 2\n", 1)
    assert [said.split(": ")[:2] for said in done.stderr.splitlines()] == [
        ["line 301", "invalid_json"],
        ["line 303", "invalid_update"],
    ]
    assert await stored(stack) == 600
    path = stack.directory / "updates.ndjson"
    path.write_text(ndjson(updates))
    done = await stack.command("publish", str(path), "--json")
    assert json.loads(done.stdout) == {"accepted": 0, "duplicate": 600, "refused": 0}
    assert (done.stderr, done.returncode) == ("", 0)
    assert await stored(stack) == 600


async def test_publish_names_the_first_refusals_only(stack: Stack) -> None:
    """A file of another kind does not flood the terminal."""
    done = await stack.command("publish", stdin="{}\n" * 50)
    assert (done.stdout, done.returncode) == ("accepted 0, duplicate 0, refused 50\n", 1)
    said = done.stderr.splitlines()
    assert len(said) == REFUSALS_SHOWN_MAX + 1
    assert said[-1] == f"… and {50 - REFUSALS_SHOWN_MAX} more"


async def test_publish_puts_everything_where_it_belongs(stack: Stack) -> None:
    """The subject has the priority and one harmless token; the id and the trace are headers."""
    updates = [
        update(priority="high", metadata={"source": "posts > *.x"}, updateId="one"),
        update(metadata={"source": "…"}, updateId="two"),
        update(priority="low", updateId="three"),
    ]
    done = await stack.command("publish", "--traceparent", TRACE, stdin=ndjson(updates))
    assert done.returncode == 0, done.stderr
    jetstream = (await stack.nats()).jetstream()
    messages = [await jetstream.get_msg(UPDATES, seq) for seq in (1, 2, 3)]
    found = {str((m.headers or {})["Nats-Msg-Id"]): m for m in messages}
    assert {name: m.subject for name, m in found.items()} == {
        "one": subjects.updates("high", "posts-x"),
        "two": subjects.updates("medium", "cli"),
        "three": subjects.updates("low", "cli"),
    }
    assert {(m.headers or {})["traceparent"] for m in messages} == {TRACE}
    assert json.loads(found["one"].data or b"") == updates[0]


async def test_publish_sends_a_slow_line_at_once(stack: Stack) -> None:
    """A line from a pipe is stored before the next one comes; Ctrl-C counts what was sent."""
    async with running(stack, "publish") as process:
        for number in range(1, 4):
            await write(process, ndjson([update(id=f"p{number}")]))
            await has_stored(stack, number)
        await write(process, '{"half":')
        process.send_signal(signal.SIGINT)
        output, _ = await process.communicate()
    assert output.decode() == "accepted 3, duplicate 0, refused 0\n"
    assert process.returncode == 130


async def test_publish_outlives_a_restart_of_nats(
    own_stack: Stack, own_servers: OwnServers
) -> None:
    """A server that is killed and comes back costs time, and neither loses nor doubles anything."""
    updates = [update(id=f"p{number}") for number in range(2_000)]
    async with running(own_stack, "publish") as process:
        await write(process, ndjson(updates[:500]))
        await has_stored(own_stack, 500)
        own_servers.nats.kill()
        await write(process, ndjson(updates[500:]))
        await own_servers.nats.start()
        output, complaints = await process.communicate(b"")
    assert process.returncode == 0, complaints
    accepted, duplicate, refused = (int(part.split()[1]) for part in output.decode().split(","))
    # A batch that was stored without an acknowledgement is a duplicate when it is sent again.
    assert (accepted + duplicate, refused) == (2_000, 0)
    assert await stored(own_stack) == 2_000


async def test_publish_without_a_stream_says_how_to_make_it(stack: Stack) -> None:
    """One line with the cause and the mend, at once."""
    await (await stack.nats()).jetstream().delete_stream(UPDATES)
    done = await stack.command("publish", stdin=ndjson([update()]))
    assert (done.returncode, done.stdout) == (1, "")
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"livefeed: nats has no stream {UPDATES}")
    assert "`livefeed provision` or `livefeed up`" in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["publish", "missing"], 1, "missing cannot be read: No such file or directory"),
        (["publish", "."], 1, ". cannot be read: Is a directory"),
        (["publish", "--traceparent", "00-0-0-0"], 2, "--traceparent"),
        (["check", "missing"], 1, "missing cannot be read: No such file or directory"),
        (["token", "--user", ""], 1, "sub must be a user id"),
        (["token", "--user", "alice", "--feeds", "Home"], 1, "feed names or prefixes"),
        (["tail", "--user", "alice", "--feeds", "a.b"], 2, "is no feed's name"),
        (["tail", "--user", "alice", "--url", "ftp://x"], 2, "expected an http or ws URL"),
        (["snapshot", "--user", "alice", "--feed", "../ops"], 2, "is no feed's name"),
        (["demo-history", "missing", "--topic"], 1, "missing cannot be read"),
        (["demo-history", "."], 2, "--user"),
        (["demo-history", ".", "--topic"], 1, "git cannot read ."),
        (["demo-history", ".", "--user", "a\n"], 2, "is no user id"),
    ],
)
async def test_wrong_use_is_one_clear_error(
    stack: Stack, arguments: list[str], code: int, words: str
) -> None:
    """The cause is named, nothing is printed to standard output, and there is no traceback."""
    done = await stack.command(*arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


# tail, snapshot, token


async def test_tail_prints_what_comes_and_goes_on_after_a_restart(stack: Stack) -> None:
    """One line an update, each once, also across a gateway that was killed."""
    gateway = await stack.start_gateway()
    await stack.start_pool()
    arguments = ["tail", "--user", "alice", "--feeds", "home,other", "--count", "3"]
    async with running(stack, *arguments) as tail:
        sent = update(
            id="p1", timestamp="2026-11-23T08:00:00Z", content={"id": "p1", "n": [1, "\n"]}
        )
        await stack.publish([sent])
        expected = '2026-11-23T08:00:00Z me/home new_content p1 {"n": [1, "\\n"]}'
        assert await line(tail) == expected
        gateway.kill()
        await stack.publish([update(id="p2", audience={"feed": True}, feed="other")])
        await gateway.start()
        assert " all/other new_content p2 " in await line(tail)
        await stack.publish([update(id="p1", kind="content_removal", content={"id": "p1"})])
        assert (await line(tail)).endswith(" me/home content_removal p1 {}")
        output, said = await tail.communicate()
    assert (output, tail.returncode) == (b"", 0)
    assert "livefeed: connected: ws://" in said.decode()
    assert "livefeed: disconnected: " in said.decode()


async def test_tail_prints_the_frames_until_it_is_caught_up(stack: Stack) -> None:
    """As scripts use it: JSON lines on standard output, words on standard error."""
    await stack.start_gateway()
    await stack.start_pool()
    await stack.publish([update(id=f"p{number}") for number in range(250)])
    await stack.settled()
    done = await _ask(stack, "tail", "--user", "alice", "--json", "--until-caught-up")
    assert done.returncode == 0
    frames = [json.loads(text) for text in done.stdout.splitlines()]
    assert [frames[0]["type"], frames[-1]["type"]] == ["connection_established", "caught_up"]
    updates = [one for f in frames if f["type"] == "feed_updates" for one in f["updates"]]
    assert {one["content"]["id"] for one in updates} == {f"p{number}" for number in range(250)}


async def test_tail_leaves_cleanly_on_ctrl_c(stack: Stack) -> None:
    """Connected or between two attempts, it is gone at once with exit code 0."""
    for prepare in (stack.start_gateway, None):
        if prepare is not None:
            await prepare()
        else:
            stack.gateways[0].kill()
        async with running(stack, "tail", "--user", "alice") as tail:
            assert tail.stderr is not None
            assert await tail.stderr.readline()
            tail.send_signal(signal.SIGINT)
            async with asyncio.timeout(3):
                output, said = await tail.communicate()
        assert (tail.returncode, output) == (0, b"")
        assert b"Traceback" not in said


@pytest.mark.parametrize(
    ("token", "feeds", "words"),
    [
        ("forged", "home", "gateway_refuses: 401"),
        ("limited", "home", "gateway_refuses: 403"),
        ("limited", "allowed,home", "feed_forbidden: home"),
    ],
)
async def test_tail_says_why_it_is_refused(
    stack: Stack, token: str, feeds: str, words: str
) -> None:
    """A refusal for good ends it with one line and exit code 1, never with attempts without end."""
    await stack.start_gateway()
    given = jwt.encode({"sub": "alice", "exp": 2**31}, "k" * 32, algorithm="HS256")
    if token == "limited":
        given = stack.token("alice", ["allowed"])
    options = ["--token", given, "--feeds", feeds, "--until-caught-up"]
    done = await _ask(stack, "tail", "--user", "alice", *options)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("livefeed: " + words)


async def test_a_key_that_is_not_the_gateways_is_noticed(stack: Stack) -> None:
    """Tokens that are signed anew for each attempt would be refused without end."""
    await stack.start_gateway()
    stack.settings["jwt_secret"] = "k" * 32
    done = await _ask(stack, "tail", "--user", "alice")
    assert done.returncode == 1
    assert "LIVEFEED_JWT_SECRET" in done.stderr.splitlines()[-1]


async def test_snapshot_is_the_feed_in_its_order(stack: Stack) -> None:
    """Each item is its content's fields, and its engagement if there is any; no removed ones."""
    await stack.start_gateway()
    await stack.start_pool()
    updates = [update(id=f"p{number:03}", content=_item(number)) for number in range(230)]
    updates += [
        update(id="p007", kind="engagement_update", content={"id": "p007", "likes": 3}),
        update(id="p008", kind="content_removal"),
        update("bob", id="foreign"),
    ]
    await stack.publish(updates)
    await stack.settled()
    done = await _ask(stack, "snapshot", "--user", "alice", "--feed", "home", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    expected = [_item(number) for number in range(230) if number != 8]
    expected[7]["engagement"] = {"likes": 3}
    assert said["items"] == expected
    assert "me/home=" in said["cursor"]
    assert said["unread"] == 229
    table = await _ask(stack, "snapshot", "--user", "alice", "--feed", "home")
    assert len(table.stdout.splitlines()) == 230
    assert "p007" in table.stdout
    assert table.stdout.splitlines()[-1].startswith("229 items, 229 unread, cursor ")


def _item(number: int) -> dict[str, Any]:
    return {"id": f"p{number:03}", "rank": -number, "title": f"ä {number}"}


async def test_snapshot_without_a_gateway_says_so(stack: Stack) -> None:
    """One line with the address."""
    gateway = await stack.start_gateway()
    gateway.kill()
    done = await _ask(stack, "snapshot", "--user", "alice", "--feed", "home")
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"livefeed: gateway is unavailable: {stack.url}: ")


async def test_token_is_what_the_gateway_takes(stack: Stack) -> None:
    """Only the token is printed; its feeds limit it, and its time is the one asked for."""
    await stack.start_gateway()
    asked = ["--user", "alice", "--feeds", "home,news-*", "--expires", "60"]
    token = (await stack.command("token", *asked)).stdout.removesuffix("\n")
    claims = jwt.decode(token, stack.settings["jwt_secret"], algorithms=["HS256"])
    assert (claims["sub"], claims["feeds"]) == ("alice", ["home", "news-*"])
    assert claims["exp"] - claims["iat"] == 60
    for feed, code in (("home", 0), ("news-1", 0), ("other", 1)):
        options = ["--user", "alice", "--feed", feed, "--token", token]
        assert (await _ask(stack, "snapshot", *options)).returncode == code, feed


async def _ask(stack: Stack, *arguments: str) -> Any:
    """Run a command that speaks to the first gateway."""
    return await stack.command(*arguments, "--url", stack.url)


# demo-history


async def test_a_history_through_the_commands_is_the_tree(stack: Stack) -> None:
    """demo-history, publish, snapshot: every file of the last tree with its last blob."""
    await stack.start_gateway()
    await stack.start_pool()
    history = str(HISTORY / "events.jsonl.gz")
    told = await stack.command("demo-history", history, "--user", "alice", "--feed", "home")
    done = await stack.command("publish", stdin=told.stdout)
    assert done.stdout == "accepted 6062, duplicate 0, refused 0\n"
    await stack.settled()
    said = await _ask(stack, "snapshot", "--user", "alice", "--feed", "home", "--json")
    shown = {item["id"]: item["blob"] for item in json.loads(said.stdout)["items"]}
    assert shown == json.loads((HISTORY / "tree.json").read_text())


async def test_a_repository_is_a_history_too(stack: Stack) -> None:
    """Renames are a removal and an addition, a merge counts once, odd paths are ids."""
    folder = stack.directory / "repository"
    folder.mkdir()
    await _git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "a").mkdir()
    (folder / "a" / "one").write_text("1")
    (folder / "odd\npath").write_text("2")
    await _commit(folder)
    await _git(folder, "mv", "a/one", "a/two")
    await _commit(folder)
    await _git(folder, "checkout", "--quiet", "-b", "side")
    (folder / "side").write_text("3")
    await _commit(folder)
    await _git(folder, "checkout", "--quiet", "main")
    await _git(folder, "merge", "--quiet", "--no-ff", "-m", "merge", "side")
    told = await stack.command("demo-history", str(folder), "--topic")
    assert told.returncode == 0, told.stderr
    updates = [json.loads(text) for text in told.stdout.splitlines()]
    assert [one["version"] for one in updates] == [1, 2, 3, 4, 5]
    found = [(one["updateType"], one["feedType"], one["content"]["id"][:8]) for one in updates]
    assert found == [
        ("new_content", "a", "a/one"),
        ("new_content", "root", "odd?path"),
        ("content_removal", "a", "a/one"),
        ("new_content", "a", "a/two"),
        ("new_content", "root", "side"),
    ]


async def _commit(folder: Path) -> None:
    await _git(folder, "add", "--all")
    await _git(folder, "commit", "--quiet", "--message", "a change")


async def _git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    process = await asyncio.create_subprocess_exec("git", "-C", str(folder), *identity, *arguments)
    assert await process.wait() == 0
