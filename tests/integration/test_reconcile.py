"""A log that lost entries, as a restore would, is found out and gets back exactly those."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from livefeed.adapters.nats.stored import read_stream
from livefeed.identity import item_key
from livefeed.topology import DEAD_LETTERS, LANE_STREAM, UPDATES
from tests.servers import Stack, Update, until, update


class Reconciled:
    """What the command said."""

    def __init__(self, code: int, output: str) -> None:
        *missing, figures = map(json.loads, output.splitlines())
        self.code = code
        self.missing: list[dict[str, Any]] = missing
        self.places = {(one["channel"], one["contentId"], one["facet"]) for one in missing}
        self.counts = {state: number for state, number in figures["counts"].items() if number}
        self.updates: int = figures["updates"]
        self.republished: int = figures["republished"]


async def reconcile(stack: Stack, *options: str, since: str = "1h") -> Reconciled:
    done = await stack.command("reconcile", "--since", since, "--json", *options)
    assert done.stderr == ""
    return Reconciled(done.returncode, done.stdout)


async def work(stack: Stack) -> None:
    """Start workers without a pool: its `retain` would take handled messages from the streams."""
    for function in ("prioritize", "deliver"):
        await stack.start_worker(function)


@pytest.fixture
async def database_of_stack(stack: Stack) -> Any:
    connection = await asyncpg.connect(stack.database_url)
    yield connection
    await connection.close()


async def test_exactly_what_is_gone_is_found_and_comes_back(
    stack: Stack, database_of_stack: asyncpg.Connection
) -> None:
    """Found by channel, item and facet; published again it is in the log, and all is well."""
    await work(stack)
    updates = [update(id=f"p{number}") for number in range(600)]
    updates += [
        update(audience={"users": ["bob", "carol"]}, content=[{"id": "a"}, {"id": "b"}]),
        update(audience={"feed": True}, feed="news", id="t"),
        update(kind="engagement_update", content={"id": "p1", "likes": 3}),
        update(id="p2", kind="content_removal"),
    ]
    await stack.publish(updates)
    await stack.settled()
    whole = await reconcile(stack)
    # The removal is newer than the content of its item: both are settled by one entry.
    assert (whole.code, whole.counts, whole.updates) == (0, {"persisted": 607}, 604)
    before = await everything(database_of_stack)

    lost = {
        ("user:alice/home", "p1", "content"),
        ("user:alice/home", "p1", "engagement"),
        ("user:alice/home", "p2", "content"),
        ("user:alice/home", "p599", "content"),
        ("user:carol/home", "b", "content"),
        ("topic:news", "t", "content"),
    }
    await database_of_stack.execute(
        "delete from feed_entry entry using feed_channel channel, unnest($1::text[], $2::bigint[])"
        " as lost (name, item) where channel.id = channel_id and channel.name = lost.name"
        " and entry.item = lost.item",
        [channel for channel, _, _ in lost],
        [item_key(content_id) for _, content_id, _ in lost],
    )
    await database_of_stack.execute(
        "delete from feed_body where ref not in (select ref from feed_entry)"
    )
    found = await reconcile(stack)
    assert (found.code, found.places) == (1, lost)
    assert found.counts == {"persisted": 600, "missing": 7}  # both updates of p2
    assert (await reconcile(stack)).places == lost  # looking changed nothing

    again = await reconcile(stack, "--republish")
    assert (again.code, again.places, again.republished) == (1, lost, 7)
    await stack.settled()
    clean = await reconcile(stack)
    assert (clean.code, clean.missing, clean.updates) == (0, [], 611)
    assert clean.counts == {"persisted": 607 + 10}  # the one for two users has four places
    assert await everything(database_of_stack) == before


async def test_what_is_published_again_is_as_old_as_it_is(
    stack: Stack, database_of_stack: asyncpg.Connection
) -> None:
    """With its first time, its trace, and an id that neither the update nor an earlier run used."""
    await work(stack)
    jetstream = (await stack.nats()).jetstream()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    one = update(id="p1")
    headers = {"Nats-Msg-Id": one["updateId"], "traceparent": trace}
    await jetstream.publish("feed.updates.high.tests", json.dumps(one).encode(), headers=headers)
    await stack.settled()
    for number in (2, 3):
        await database_of_stack.execute("delete from feed_entry")
        found = await reconcile(stack, "--republish")
        assert found.republished == number - 1
        await stack.settled()
    first = await jetstream.get_msg(UPDATES, seq=1)
    ids = set()
    for sequence in (2, 3, 4):
        message = await jetstream.get_msg(UPDATES, seq=sequence)
        assert (message.subject, message.data) == (first.subject, first.data)
        assert message.headers is not None
        ids.add(message.headers["Nats-Msg-Id"])
        assert message.headers["traceparent"] == trace
        assert int(message.headers["Livefeed-Accepted-At"]) == int(await stored_at(stack, 1))
    assert len(ids) == 3


async def test_a_floor_is_told_from_a_loss(
    stack: Stack, database_of_stack: asyncpg.Connection
) -> None:
    """What fell after it was accepted is settled; what was accepted after that is not."""
    await work(stack)
    users = ["fallen", "standing", "later", "unknown"]
    await stack.publish([update(user, id="p1") for user in users])
    await stack.settled()

    async def trim(user: str, forgotten: str, *, delete: bool = True) -> None:
        name = f"user:{user}/home"
        await database_of_stack.execute(
            f"update feed_channel set floor = seq, forgotten_at = {forgotten} where name = $1", name
        )
        if delete:
            await database_of_stack.execute(
                "delete from feed_entry where channel_id ="
                " (select id from feed_channel where name = $1)",
                name,
            )

    await trim("fallen", "now()")
    await trim("standing", "now()", delete=False)
    await trim("unknown", "null")
    await trim("later", "now() - interval '1 hour'")
    found = await reconcile(stack)
    assert found.counts == {"below_floor": 3, "missing": 1}
    assert found.places == {("user:later/home", "p1", "content")}


async def test_dead_letters_are_told_from_a_loss(
    stack: Stack, database_of_stack: asyncpg.Connection
) -> None:
    """Those of both streams; and what was refused is missing nowhere when its letter is gone."""
    await database_of_stack.execute(
        "alter table feed_body add constraint broken check (body::text !~ '626164')"  # "bad"
    )
    await work(stack)
    jetstream = (await stack.nats()).jetstream()
    await jetstream.publish("feed.updates.high.tests", b"{")
    await stack.publish([update(id="good"), update("bob", id="p1")], "high")
    await stack.settled()
    await stack.publish([update(id="bad")], "high")
    await letters(stack, 2)
    await stack.settled()
    assert (await reconcile(stack)).counts == {"dead_letter": 2, "persisted": 2}
    (number,) = [one["sequence"] for one in await listed(stack) if one["reason"] == "invalid_json"]
    assert (await stack.command("dlq", "drop", str(number), "--yes")).returncode == 0
    found = await reconcile(stack)
    assert (found.code, found.counts) == (0, {"refused": 1, "dead_letter": 1, "persisted": 2})


async def test_what_is_on_its_way_is_not_missing(stack: Stack) -> None:
    """In either stream; and one partition that stands still hides no loss in another."""
    await stack.publish([update(id="p1"), update("bob", id="p1"), update(id="p2", feed="news")])
    jetstream = (await stack.nats()).jetstream()
    await jetstream.publish("feed.updates.high.tests", b"{")
    assert (await reconcile(stack, "--wait", "0")).counts == {"pending": 4}
    worker = await stack.start_worker("prioritize", "--once")
    assert await worker.wait() == 0
    assert (await jetstream.stream_info(LANE_STREAM)).state.messages > 0
    found = await reconcile(stack, "--wait", "0.5")
    assert (found.code, found.counts) == (0, {"pending": 3, "dead_letter": 1})
    # As if another had been handled, and lost: its lane message is gone without a trace.
    await jetstream.purge_stream(LANE_STREAM, subject=await lane_subject_of(stack, "user:bob"))
    found = await reconcile(stack, "--wait", "0")
    assert found.counts == {"pending": 2, "dead_letter": 1, "missing": 1}
    assert found.places == {("user:bob/home", "p1", "content")}
    worker = await stack.start_worker("deliver", "--once")
    assert await worker.wait() == 0
    found = await reconcile(stack)
    assert found.counts == {"persisted": 2, "dead_letter": 1, "missing": 1}


async def test_followers_are_those_of_then_and_now(
    stack: Stack, database_of_stack: asyncpg.Connection
) -> None:
    """Not those who followed later, nor those who follow no more."""
    await database_of_stack.executemany(
        "insert into feed_follow (actor, follower, since, ended) values ('author', $1, now(), $2)",
        [("ann", None), ("ben", None)],
    )
    await database_of_stack.execute(
        "insert into feed_follow (actor, follower, ended) values ('author', 'cleo', now())"
    )
    await work(stack)
    await stack.publish([update(audience={"followers": "author"}, id="p1")])
    await stack.settled()
    await database_of_stack.execute(
        "insert into feed_follow (actor, follower) values ('author', 'dora')"
    )
    await database_of_stack.execute("delete from feed_entry")
    for one in await listed(stack):
        await stack.command("dlq", "drop", str(one["sequence"]), "--yes")
    found = await reconcile(stack)
    assert found.places == {(f"user:{user}/home", "p1", "content") for user in ("ann", "ben")}


async def test_since_and_wrong_calls(stack: Stack) -> None:
    """Only what is asked about is looked at; no time is no guess."""
    assert (await reconcile(stack)).updates == 0
    await work(stack)
    await stack.publish([update(id="p1")])
    await stack.settled()
    assert (await reconcile(stack, since="2020-01-01T00:00:00Z")).updates == 1
    assert (await reconcile(stack, since="0s")).updates == 0
    assert (await stack.command("reconcile")).returncode == 2
    for wrong in ("yesterday", "2026-01-01T00:00:00"):
        done = await stack.command("reconcile", "--since", wrong)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    done = await stack.command("reconcile", "--since", "1h")
    assert done.stdout.startswith("updates 1: persisted 1, ")


async def everything(connection: asyncpg.Connection) -> set[tuple[Any, ...]]:
    """The log but for its seqs."""
    rows = await connection.fetch(
        "select name, item, facet, explicit, version, ref, kind, rank, born, update_id, body"
        " from feed_entry join feed_channel on feed_channel.id = channel_id"
        " join feed_body using (ref)"
    )
    return {tuple(row) for row in rows}


async def letters(stack: Stack, count: int) -> None:
    jetstream = (await stack.nats()).jetstream()

    async def enough() -> bool:
        return (await jetstream.stream_info(DEAD_LETTERS)).state.messages >= count

    await until(enough, seconds=20, what=f"{count} dead letters")


async def listed(stack: Stack) -> list[Update]:
    done = await stack.command("dlq", "list", "--json")
    return [json.loads(line) for line in done.stdout.splitlines()]


async def lane_subject_of(stack: Stack, owner: str) -> str:
    """The subject of the lane message for somebody."""
    jetstream = (await stack.nats()).jetstream()
    info = await jetstream.stream_info(LANE_STREAM)
    for sequence in range(info.state.first_seq, info.state.last_seq + 1):
        message = await jetstream.get_msg(LANE_STREAM, seq=sequence)
        if owner.encode() in (message.data or b""):
            return str(message.subject)
    raise AssertionError(f"there is no lane message for {owner}")


async def stored_at(stack: Stack, sequence: int) -> int:
    """When a message of FEED_UPDATES was stored, in microseconds."""
    pages = read_stream(await stack.nats(), UPDATES, first=sequence, last=sequence)
    (page,) = [page async for page in pages]
    return page[0].stored_at
