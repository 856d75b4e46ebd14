"""Follows and mutes: what the commands and the SQL of the docs write, prioritize reads."""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from livefeed.adapters.postgres.context import read_contexts, read_followers
from livefeed.adapters.postgres.follows import add_follows, end_follows, follow_pages
from livefeed.adapters.postgres.mutes import add_mutes, mute_pages, remove_mutes
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.presence import PresenceTable
from livefeed.context import RecipientContext
from livefeed.follow import Follow
from livefeed.limits import AUDIENCE_ROWS_MAX
from tests.servers import Stack

LATER = 2_000_000_000_000_000
"""Microseconds since 1970, after every follow of these tests."""
PAGE = Path(__file__).parents[2] / "docs" / "audiences.md"


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(
        database, dependency="primary", connections_max=8, timeout_seconds=30, application="tests"
    )
    yield pool
    await pool.close()


async def followers(pool: Pool, actor: str = "author-7", **options: Any) -> list[str]:
    """Every follower, read in pages of three."""
    found, after = [], ""
    while True:
        page = await read_followers(pool, actor, after=after, limit=3, accepted_at=LATER, **options)
        found += page
        if len(page) < 3:
            return found
        after = page[-1]


async def rows(pool: Pool) -> list[dict[str, Any]]:
    return [dict(row) for row in await pool.fetch("select * from feed_follow order by 1, 2")]


def follows(*users: str, actor: str = "author-7") -> list[Follow]:
    return [Follow(actor, user) for user in users]


# The tables.


async def test_followers_come_in_pages_in_the_order_of_their_bytes(pool: Pool) -> None:
    """Each once, whatever the server's collation is; ended ones when they are asked for."""
    names = ["a", "B", "ä", "Z", "a b", "a.b", "日本", "_", "~", "10", "9"]
    await add_follows(pool, follows(*names))
    await add_follows(pool, follows("stranger", actor="author-70"))
    await end_follows(pool, "author-7", ["B", "~", "stranger", "nobody"])
    ordered = sorted(names, key=str.encode)
    assert await followers(pool, removal=True) == ordered
    assert await followers(pool, removal=False) == [one for one in ordered if one not in {"B", "~"}]
    assert await read_followers(
        pool, "author-7", after="Z", removal=True, accepted_at=LATER, limit=2
    ) == ["_", "a"]
    assert await followers(pool, "author-70", removal=False) == ["stranger"]
    assert await followers(pool, "nobody", removal=True) == []


async def test_a_follow_ends_and_begins_again(pool: Pool) -> None:
    """Its row stays; what is so already changes nothing; a new beginning is a new `since`."""
    assert await add_follows(pool, follows("alice", "bob", "alice")) == 2
    before = await rows(pool)
    assert await add_follows(pool, follows("alice", "bob")) == 0
    assert await rows(pool) == before
    assert await end_follows(pool, "author-7", ["alice", "nobody"]) == 1
    ended = (await rows(pool))[0]["ended"]
    assert ended > before[0]["since"]
    assert await end_follows(pool, "author-7", ["alice"]) == 0
    assert (await rows(pool))[0]["ended"] == ended
    assert await add_follows(pool, follows("alice", "bob")) == 1
    after = await rows(pool)
    assert after[0]["ended"] is None
    assert after[0]["since"] > ended
    assert after[1] == before[1]


async def test_writers_of_the_same_follows_do_not_block_each_other(pool: Pool) -> None:
    """Many who begin and end the same ones in any order: no deadlock, every follow stands."""
    users = [f"u{number}" for number in range(300)]

    async def work(seed: int) -> None:
        order = random.Random(seed).sample(users, len(users))
        for _ in range(5):
            await add_follows(pool, follows(*order))
            await end_follows(pool, "author-7", order)

    await asyncio.gather(*map(work, range(6)))
    await add_follows(pool, follows(*users))
    assert await followers(pool, removal=False) == sorted(users)


async def test_pages_of_lists(pool: Pool) -> None:
    """More follows and mutes than a page has are listed whole."""
    number = AUDIENCE_ROWS_MAX + 2
    users = [f"u{one:05}" for one in range(number)]
    await add_follows(pool, follows(*users[:AUDIENCE_ROWS_MAX]))
    await add_follows(pool, follows(*users[AUDIENCE_ROWS_MAX:]))
    pages = [page async for page in follow_pages(pool, "author-7", ended=False)]
    assert [len(page) for page in pages] == [AUDIENCE_ROWS_MAX, 2]
    assert [row.follower for page in pages for row in page] == users
    await add_mutes(pool, "alice", users[:AUDIENCE_ROWS_MAX])
    await add_mutes(pool, "alice", users[AUDIENCE_ROWS_MAX:])
    assert sorted([one async for page in mute_pages(pool, "alice") for one in page]) == users


async def test_contexts_of_thousands_in_one_query(pool: Pool) -> None:
    """In the order asked, also where a pair comes twice or nobody knows the user."""
    table, feeds = PresenceTable(pool), ("home", "news")
    await table.seen()
    await table.put({f"u{one}": ("home",) for one in range(0, 1_000, 2)})
    await table.put({f"u{one}": () for one in range(0, 1_000, 10)})
    for one in range(0, 3_000, 3):
        await add_mutes(pool, f"u{one}", ["news"])
    asked = [(f"u{random.randrange(3_000)}", random.choice(feeds)) for _ in range(5_000)]

    def expected(user: str, feed: str) -> RecipientContext:
        number = int(user[1:])
        online = number < 1_000 and number % 2 == 0
        return RecipientContext(
            online=online,
            on_screen=online and feed == "home" and number % 10 != 0,
            muted=feed == "news" and number % 3 == 0,
        )

    assert await read_contexts(pool, asked) == [expected(*pair) for pair in asked]
    assert await read_contexts(pool, []) == []
    unknown = RecipientContext(online=False, on_screen=False, muted=False)
    assert await read_contexts(pool, [("nobody", "home")]) == [unknown]


async def test_contexts_while_no_gateway_is_there(pool: Pool) -> None:
    """Nobody is online, and mutes are mutes."""
    await PresenceTable(pool).put({"alice": ("home",)})
    await add_mutes(pool, "alice", ["home"])
    muted = RecipientContext(online=False, on_screen=False, muted=True)
    assert await read_contexts(pool, [("alice", "home")]) == [muted]


async def test_mutes(pool: Pool) -> None:
    """Each counts once, is for its user and feed alone, and ends."""
    assert await add_mutes(pool, "alice", ["home", "news", "home"]) == 2
    assert await add_mutes(pool, "alice", ["news", "more"]) == 1
    pairs = [("alice", "home"), ("bob", "home"), ("alice", "other")]
    assert [one.muted for one in await read_contexts(pool, pairs)] == [True, False, False]
    assert await remove_mutes(pool, "alice", ["home", "never"]) == 1
    assert [page async for page in mute_pages(pool, "alice")] == [["more", "news"]]
    assert not any(one.muted for one in await read_contexts(pool, pairs))


async def test_the_sql_of_the_page(pool: Pool) -> None:
    """Each statement for applications does what it says, and nothing when it comes again."""
    found = re.finditer(r"<!-- sql ([a-z ]+) -->\n```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    sql = {one[1]: one[2] for one in found}
    assert set(sql) == {"follow", "many follows", "end", "mute", "unmute"}
    for _ in range(2):
        await pool.fetch(sql["follow"], "author-7", "alice")
        await pool.fetch(sql["many follows"], ["author-7"] * 3, ["bob", "alice", "bob"])
        assert await followers(pool, removal=False) == ["alice", "bob"]
    before = await rows(pool)
    for _ in range(2):
        await pool.fetch(sql["end"], "author-7", "alice")
        assert await followers(pool, removal=False) == ["bob"]
        assert await followers(pool, removal=True) == ["alice", "bob"]
    await pool.fetch(sql["follow"], "author-7", "alice")
    after = await rows(pool)
    assert (after[0]["ended"], after[1]) == (None, before[1])
    assert after[0]["since"] > before[0]["since"]
    for name, muted in (("mute", True), ("unmute", False)):
        for _ in range(2):
            await pool.fetch(sql[name], "alice", "home")
            assert (await read_contexts(pool, [("alice", "home")]))[0].muted is muted


# The commands.


async def good(stack: Stack, *arguments: str, stdin: str = "") -> str:
    """What a command prints that succeeds and complains of nothing."""
    done = await stack.command(*arguments, stdin=stdin)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


async def test_follow_by_command(stack: Stack, pool: Pool) -> None:
    """Add, end, list: counted, and read by prioritize."""
    author = ("--actor", "author-7")
    assert await good(stack, "follow", "add", *author, "bob", "a b", "bob") == (
        "added 2, unchanged 0\n"
    )
    assert await good(stack, "follow", "add", *author, "bob", "äö") == "added 1, unchanged 1\n"
    assert await good(stack, "follow", "end", *author, "bob", "x") == "ended 1, unchanged 1\n"
    assert await followers(pool, removal=False) == ["a b", "äö"]
    listed = await good(stack, "follow", "list", *author, "--ended", "--json")
    found = [json.loads(line) for line in listed.splitlines()]
    assert [one["follower"] for one in found] == ["a b", "bob", "äö"]
    assert [one["ended"] is None for one in found] == [True, False, True]
    assert all(one["since"].endswith("Z") for one in found)
    lines = (await good(stack, "follow", "list", *author)).splitlines()
    assert [line.split("  ")[1] for line in lines] == ["a b", "äö"]
    assert "ended" not in "".join(lines)
    assert await good(stack, "follow", "list", "--actor", "nobody") == ""


async def test_mute_by_command(stack: Stack, pool: Pool) -> None:
    """Add, remove, list: counted, and read by prioritize."""
    alice = ("--user", "alice")
    assert await good(stack, "mute", "add", *alice, "news", "home") == "added 2, unchanged 0\n"
    assert (await read_contexts(pool, [("alice", "news")]))[0].muted
    assert await good(stack, "mute", "list", *alice) == "home\nnews\n"
    assert await good(stack, "mute", "remove", *alice, "news", "x") == "removed 1, unchanged 1\n"
    assert await good(stack, "mute", "list", *alice, "--json") == '{"feed": "home"}\n'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["follow", "add", "--actor", "a", ""], "'' is no id"),
        (["follow", "add", "--actor", "a\n", "b"], "is no id: expected 1 to 128 characters"),
        (["follow", "end", "--actor", "a", "x" * 129], "is no id"),
        (["follow", "add", "--actor", "a"], "Missing argument 'USER...'"),
        (["follow", "list"], "Missing option '--actor'"),
        (["mute", "add", "--user", "a", "Home"], "'Home' is no feed's name"),
        (["mute", "list", "--user", "\x07"], "is no id"),
        (["follow", "import", "missing.csv"], "missing.csv cannot be read: No such file"),
    ],
)
async def test_what_is_called_wrongly(stack: Stack, arguments: list[str], said: str) -> None:
    """One sentence says what was expected, without a traceback, and nothing is written."""
    done = await stack.command(*arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_database_that_is_not_there(stack: Stack) -> None:
    """The error says what to do."""
    stack.settings["database_url"] = "postgresql://livefeed@127.0.0.1:9/livefeed"
    done = await stack.command("mute", "list", "--user", "alice")
    assert done.returncode == 1
    assert "start it with `livefeed up`, or set LIVEFEED_DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr


async def test_import(stack: Stack, pool: Pool) -> None:
    """CSV with a header and JSON, from a file and a pipe; wrong lines are named and left out."""
    text = "\ufeffactor,follower\nauthor-7,bob\n\n" + '{"actor":"author-7","follower":"a,b"}\n'
    wrong = "author-7\n" + "author-7," + "x" * 129 + "\n" + "author-7,bob\n"
    done = await stack.command("follow", "import", stdin=text + wrong + '"author-7","c, d"')
    assert (done.stdout, done.returncode) == ("added 3, unchanged 1, refused 2\n", 1)
    assert [said.split(": ")[:2] for said in done.stderr.splitlines()] == [
        ["line 5", "invalid_follow"],
        ["line 6", "invalid_follow"],
    ]
    assert await followers(pool, removal=False) == ["a,b", "bob", "c, d"]
    await end_follows(pool, "author-7", ["bob"])
    path = stack.directory / "follows.csv"
    path.write_text("author-7,bob\nauthor-8,bob\nauthor-7,bob\n")
    counts = json.loads(await good(stack, "follow", "import", str(path), "--json"))
    assert counts == {"added": 2, "unchanged": 1, "refused": 0}
    assert await followers(pool, removal=False) == ["a,b", "bob", "c, d"]


async def test_an_import_of_many_is_in_bounded_memory(stack: Stack, pool: Pool) -> None:
    """More lines take no more memory; each line is there, and again changes none."""
    peaks = []
    for number in (150_000, 400_000):
        path = stack.directory / f"{number}.csv"
        path.write_text("".join(f"author-{one % 7},u{one}\n" for one in range(number)))
        counts, peak = await asyncio.to_thread(_import, stack, path)
        assert counts["added"] + counts["unchanged"] == number
        peaks.append(peak)
    (row,) = await pool.fetch("select count(*) from feed_follow")
    assert row["count"] == 400_000
    assert peaks[1] < peaks[0] + 8 * 1024, f"KiB at most: {peaks}"


def _import(stack: Stack, path: Path) -> tuple[dict[str, int], int]:
    """The counts of an import, and the most memory that it had, in KiB."""
    # Not `getrusage`: what the parent had when it forked counts there.
    script = (
        "import pathlib, re, sys; from livefeed.cli.main import cli\n"
        "cli(sys.argv[1:], standalone_mode=False)\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "follow", "import", str(path), "--json"],
        capture_output=True,
        check=True,
        env=stack.environment(),
        text=True,
        timeout=120,
    )
    counts, peak = done.stdout.splitlines()
    return json.loads(counts), int(peak)
