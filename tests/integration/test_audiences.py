"""Whom an update reaches: followers page by page, those who left, and the code of whoever asks."""

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg
import pytest

from functions.audience import AudiencePage, ContextCache
from functions.flush import Flush
from functions.prioritize import ROWS_MAX, Prioritize
from functions.shortcut import Shortcut
from livefeed import subjects
from livefeed.adapters.nats.connection import close, connect
from livefeed.adapters.nats.publish import Publisher
from livefeed.adapters.nats.pull import Message
from livefeed.adapters.postgres.log import Log
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.reads import read_heads
from livefeed.channel import user_channel
from livefeed.context import RecipientContext
from livefeed.priority import lane_of
from livefeed.subjects import LANES
from livefeed.topology import DEAD_LETTERS, LANE_STREAM, UPDATES
from tests.servers import Stack, until, update

ITEMS = 100
PAGE = ROWS_MAX // ITEMS
"""Followers of one step of an update with so many items."""


async def follow(
    stack: Stack, actor: str, followers: Iterable[str], *, ended: bool = False
) -> None:
    """Have users follow an actor, or have followed them."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        await connection.execute(
            "insert into feed_follow (actor, follower, ended) "
            "select $1, name, case when $3 then now() end from unnest($2::text[]) as name",
            actor,
            list(followers),
            ended,
        )
    finally:
        await connection.close()


def a_pool(stack: Stack) -> Pool:
    """One connection to the primary."""
    return Pool(
        stack.database_url,
        dependency="primary",
        connections_max=1,
        timeout_seconds=5,
        application="tests",
    )


async def heads(stack: Stack, users: Sequence[str], feed: str = "home") -> dict[str, int]:
    """How many entries each user's channel got."""
    pool = a_pool(stack)
    try:
        found = (await read_heads(pool, [user_channel(user, feed) for user in users])).heads
        return {user: found[user_channel(user, feed)] for user in users}
    finally:
        await pool.close()


async def dead_letter(stack: Stack) -> Any:
    """The first dead letter, when it is there."""
    jetstream = (await stack.nats()).jetstream()

    async def there() -> bool:
        return (await jetstream.stream_info(DEAD_LETTERS)).state.messages > 0

    await until(there, seconds=20, what="a dead letter")
    return await jetstream.get_msg(DEAD_LETTERS, seq=1)


async def test_followers_get_it_and_strangers_do_not(stack: Stack) -> None:
    """Those who follow now get everything; those who left get removals only."""
    await follow(stack, "author", ["alice", "bob"])
    await follow(stack, "author", ["carol"], ended=True)
    await stack.start_gateway()
    await stack.start_pool()
    alice = stack.follow("alice")
    carol = stack.follow("carol")
    await stack.publish([update("carol", id="p1"), update("carol", id="p2")])
    await until(lambda: len(carol.ids("home")) == 2, what="carol has what she got as a follower")
    audience = {"followers": "author"}
    await stack.publish([update(id="p1", audience=audience), update(id="p3", audience=audience)])
    await stack.publish([update(id="p2", kind="content_removal", audience=audience)])
    await until(lambda: sorted(alice.ids("home")) == ["p1", "p3"], what="alice has both")
    await until(lambda: carol.ids("home") == ["p1"], what="carol sees the removal")
    await stack.settled()
    assert await heads(stack, ["dave"]) == {"dave": 0}


async def test_a_large_audience_goes_on_in_further_messages(stack: Stack) -> None:
    """Nobody is left out and nobody served twice; the pages meet without a gap."""
    # Ids that base64url needs its last characters for, and that sort by their bytes.
    users = [f"ü>{number:04d}?" for number in range(2 * PAGE + 1)]
    await follow(stack, "author", users)
    await stack.start_pool()
    items = [{"id": f"p{number}"} for number in range(ITEMS)]
    await stack.publish([update(audience={"followers": "author"}, content=items)])
    await stack.settled()
    assert set((await heads(stack, users)).values()) == {ITEMS}
    jetstream = (await stack.nats()).jetstream()
    assert (await jetstream.stream_info(UPDATES)).state.last_seq == 3
    last = await jetstream.get_msg(UPDATES, seq=3)
    first = await jetstream.get_msg(UPDATES, seq=1)
    assert last.data == first.data


async def test_one_update_id_for_two_feeds_is_two_audiences(stack: Stack) -> None:
    """Their pages end with the same followers, and each goes on for itself."""
    users = [f"user-{number:04d}" for number in range(PAGE + 50)]
    await follow(stack, "author", users)
    await stack.start_pool()
    items = [{"id": f"p{number}"} for number in range(ITEMS)]
    one = update(audience={"followers": "author"}, content=items)
    publisher = Publisher(await stack.nats())
    publisher.start()
    for feed in ("home", "news"):
        payload = json.dumps({**one, "feedType": feed}).encode()
        await publisher.publish("feed.updates.medium.tests", payload)
    await stack.settled()
    for feed in ("home", "news"):
        assert set((await heads(stack, users, feed)).values()) == {ITEMS}


async def test_called_once_all_pages_are_done(stack: Stack) -> None:
    """What a call publishes for itself is there before it leaves."""
    users = [f"user-{number:04d}" for number in range(3 * PAGE)]
    await follow(stack, "author", users)
    items = [{"id": f"p{number}"} for number in range(ITEMS)]
    await stack.publish([update(audience={"followers": "author"}, content=items)])
    for function in ("prioritize", "deliver"):
        worker = await stack.start_worker(function, "--once", wait=False)
        assert await worker.wait() == 0
    assert set((await heads(stack, users)).values()) == {ITEMS}


async def test_what_was_removed_before_a_follow_does_not_come_with_it(stack: Stack) -> None:
    """A removal overtook its content; whoever began to follow between them is shown nothing."""
    await follow(stack, "author", ["alice"])
    await stack.start_pool()
    audience = {"followers": "author"}
    content = update(id="p1", audience=audience)
    await stack.publish([update(id="p1", kind="content_removal", audience=audience)], "high")
    await stack.settled()
    await follow(stack, "author", ["bob"])
    accepted_at = time.time_ns() // 1000 - 10_000_000
    publisher = Publisher(await stack.nats())
    publisher.start()
    await publisher.publish(
        "feed.updates.low.tests",
        json.dumps(content).encode(),
        {"Livefeed-Accepted-At": str(accepted_at)},
    )
    await stack.publish([update(id="p2", audience=audience)])
    await stack.settled()
    assert await heads(stack, ["bob"]) == {"bob": 1}


async def test_a_follower_that_is_no_user_id_is_refused_where_it_is_written(stack: Stack) -> None:
    """An application's mistake is its own, and does not spoil an actor's audience."""
    for bad in ("x" * 129, "", "a\nb", "a\u0085b"):
        with pytest.raises(asyncpg.CheckViolationError):
            await follow(stack, "author", [bad])


async def test_a_page_that_is_full_and_last_ends_well(stack: Stack) -> None:
    """Nobody goes on for nobody."""
    users = [f"user-{number:04d}" for number in range(PAGE)]
    await follow(stack, "author", users)
    await stack.start_pool()
    items = [{"id": f"p{number}"} for number in range(ITEMS)]
    await stack.publish([update(audience={"followers": "author"}, content=items)])
    await stack.settled()
    assert set((await heads(stack, users)).values()) == {ITEMS}
    jetstream = (await stack.nats()).jetstream()
    assert (await jetstream.stream_info(UPDATES)).state.last_seq == 1


async def test_a_full_stream_does_not_stop_an_audience(stack: Stack) -> None:
    """No continuation can be published, so the same call does all pages."""
    users = [f"user-{number:05d}" for number in range(2 * PAGE + 7)]
    await follow(stack, "author", users)
    connection = await connect([stack.settings["nats_url"]], name="tests")
    publisher = Publisher(connection)
    publisher.start()
    pool = a_pool(stack)
    jetstream = connection.jetstream()
    asked: list[AudiencePage] = []

    async def resolver(page: AudiencePage) -> list[str]:
        asked.append(page)
        return [user for user in users if user > page.after][: page.limit]

    async def contexts(recipients: Sequence[object]) -> list[RecipientContext]:
        return [RecipientContext(online=True, on_screen=False, muted=False) for _ in recipients]

    function = Prioritize(
        publisher,
        contexts=ContextCache(contexts, clock=time.monotonic, jitter=lambda: 0.0),
        resolver=resolver,
        lane_of=lane_of,
        shortcut=Shortcut(Flush(Log(pool), connection), clock=time.monotonic, jitter=lambda: 0.0),
        windows=dict.fromkeys(LANES, 0.0),
    )
    items = [{"id": f"p{number}"} for number in range(ITEMS)]
    payload = json.dumps(update(audience={"followers": "author"}, content=items)).encode()
    try:
        config = (await jetstream.stream_info(UPDATES)).config
        await jetstream.update_stream(config, max_msgs=1)
        await jetstream.publish("feed.updates.high.tests", payload)
        reply = f"$JS.ACK.{UPDATES}.prioritize-high.1.1.1.{time.time_ns()}.0".encode()
        message = Message(b"feed.updates.high.tests", reply, b"", payload)
        await function.handle([function.read(message)])
        lanes = (await jetstream.stream_info(LANE_STREAM)).state.messages
    finally:
        await jetstream.update_stream(config, max_msgs=-1)
        await close(connection)
        await pool.close()
    assert [page.after for page in asked] == ["", users[PAGE - 1], users[2 * PAGE - 1]]
    assert lanes >= len(users) * ITEMS // 1000


async def test_a_muted_feed_is_kept_and_disturbs_nobody(stack: Stack) -> None:
    """Nothing is published for its devices, but a removal is; the log has all of it."""
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute("insert into feed_mute values ('alice', 'home')")
    await connection.close()
    await stack.start_pool()
    told: list[bytes] = []
    nats = await stack.nats()
    nats.subscribe_direct(
        subjects.live_user("alice"),
        lambda _subject, _reply, _headers, payload: told.append(payload),
    )
    await stack.publish([update(id="p1"), update(id="p2")], priority="high")
    await stack.settled()
    assert await heads(stack, ["alice"]) == {"alice": 2}
    assert told == []
    await stack.publish([update(id="p1", kind="content_removal")])
    await until(lambda: told, what="the removal is told")


async def test_own_code_names_followers_and_lanes(stack: Stack) -> None:
    """Functions that two settings name take the place of the table and of the follows."""
    stack.plug_in(
        """
        from livefeed.priority import Placement

        async def followers(page):
            return [name for name in ["alice", "bob"] if name > page.after][: page.limit]

        def lane(update, recipient):
            return Placement("medium" if update.source == "hurry" else "low")
        """,
        audience_resolver="followers",
        lane_function="lane",
    )
    await stack.start_worker("prioritize")
    audience = {"followers": "anybody"}
    await stack.publish(
        [
            update(id="p1", audience=audience, metadata={"source": "hurry"}),
            update(id="p2", audience=audience),
        ]
    )
    jetstream = (await stack.nats()).jetstream()

    async def lanes() -> set[str]:
        state = (await jetstream.stream_info(LANE_STREAM, "feed.lanes.>")).state
        return {name.split(".")[2] for name in state.subjects or {}}

    async def both() -> bool:
        return await lanes() == {"medium", "low"}

    await until(both, what="both lanes are used")


async def test_a_resolver_that_fails_stops_nobody_else(stack: Stack) -> None:
    """What it raises for one actor is in the dead letter; other updates go on."""
    stack.plug_in(
        """
        async def followers(page):
            if page.actor == "broken":
                raise KeyError("no such actor")
            return ["alice"][: page.limit] if not page.after else []
        """,
        audience_resolver="followers",
    )
    await stack.start_gateway()
    await stack.start_pool()
    alice = stack.follow("alice")
    await stack.publish(
        [update(id=f"p{number}", audience={"followers": "fine"}) for number in range(5)]
        + [update(id="bad", audience={"followers": "broken"})]
        + [update(id=f"q{number}") for number in range(5)]
    )
    letter = await dead_letter(stack)
    assert letter.subject == "feed.dlq.unsupported_audience"
    assert "no such actor" in letter.headers["Livefeed-Error"]
    await until(lambda: len(alice.ids("home")) == 10, what="the others are there")
    await stack.settled()


async def test_a_resolver_that_is_away_delays_only_what_asks_it(stack: Stack) -> None:
    """For one actor it does not answer: others and users go on, and when it answers it arrives."""
    stack.plug_in(
        """
        import os

        async def followers(page):
            if page.actor == "away" and not os.path.exists(os.environ["LIVEFEED_DATA"] + ".back"):
                raise ConnectionRefusedError("no graph")
            return ["alice"][: page.limit] if not page.after else []
        """,
        audience_resolver="followers",
    )
    await stack.start_gateway()
    await stack.start_pool()
    alice = stack.follow("alice")
    await stack.publish([update(id="late", audience={"followers": "away"})])
    await stack.publish([update(id="p1", audience={"followers": "fine"}), update(id="p2")])
    await until(lambda: sorted(alice.ids("home")) == ["p1", "p2"], what="the others are there")
    (stack.directory / "data.back").touch()
    await until(lambda: "late" in alice.ids("home"), seconds=20, what="it arrives")
    await stack.settled()


async def test_a_lane_function_that_fails_stops_nothing(stack: Stack) -> None:
    """The table decides where it raises or names no lane."""
    stack.plug_in(
        """
        from livefeed.priority import Placement

        def lane(update, recipient):
            return Placement({"a": "urgent"}[update.source])
        """,
        lane_function="lane",
    )
    await stack.start_gateway()
    await stack.start_pool()
    alice = stack.follow("alice")
    await stack.publish([update(id="p1"), update(id="p2", metadata={"source": "a"})], "high")
    await until(lambda: sorted(alice.ids("home")) == ["p1", "p2"], what="both arrive")
    await stack.settled()
    said = [line for _, log in stack.tails() for line in log.splitlines()]
    assert any("lane function failed" in line for line in said)


@pytest.mark.parametrize(
    ("setting", "path", "says"),
    [
        ("lane_function", "nowhere", "package.module:function"),
        ("lane_function", "no_such_module:lane", "cannot be imported"),
        ("audience_resolver", "livefeed.limits:MIB", "is no function"),
    ],
)
async def test_a_function_that_is_not_there_is_said_at_the_start(
    stack: Stack, setting: str, path: str, says: str
) -> None:
    """One line that names the setting, and no traceback."""
    stack.settings[setting] = path
    done = await stack.command("worker", "prioritize", "--once")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("livefeed:")]
    assert says in line
    assert f"LIVEFEED_{setting.upper()}" in line
    assert "Traceback" not in done.stderr


async def test_a_database_that_is_away_makes_recipients_unknown() -> None:
    """The published priority decides then; the database is asked again, but not each time."""
    now = 0.0
    asked: list[int] = []
    away = True

    async def read(recipients: Sequence[object]) -> list[RecipientContext]:
        asked.append(len(recipients))
        if away:
            raise_unavailable()
        return [RecipientContext(online=False, on_screen=False, muted=False)] * len(recipients)

    cache = ContextCache(read, clock=lambda: now, jitter=lambda: 0.0)
    for _ in range(10):
        assert await cache.of([("alice", "home")]) == {}
    assert len(asked) == 3
    away, now = False, 10.0
    known = await cache.of([("alice", "home"), ("bob", "home")])
    assert set(known) == {("alice", "home"), ("bob", "home")}
    before = len(asked)
    await asyncio.gather(*(cache.of([("alice", "home")]) for _ in range(5)))
    assert len(asked) == before
    now = 20.0
    await cache.of([("alice", "home")])
    now = 30.0
    await cache.of([("alice", "home")])
    assert len(asked) == before + 2


def raise_unavailable() -> None:
    """As the pool of a database that is away."""
    from livefeed.errors import Unavailable  # noqa: PLC0415 - only here

    raise Unavailable("primary", "it is away")
