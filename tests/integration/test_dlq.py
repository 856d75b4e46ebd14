"""Every reason for the dead-letter queue, and the way back from there, on the real stack."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import asyncpg
import pytest
from msgspec import Raw

from livefeed import subjects
from livefeed.adapters.nats.dead_letters import DeadLetters
from livefeed.adapters.nats.publish import Publisher
from livefeed.dead_letter import replayed
from livefeed.errors import DeadLetterReason
from livefeed.identity import item_key, update_ref
from livefeed.limits import DELIVERIES_MAX, FUTURE_SECONDS_MAX, UPDATE_BYTES_MAX
from livefeed.messages import (
    LaneGroup,
    LaneMessage,
    LaneUpdate,
    PublicBody,
    encode_lane_message,
    public_body,
)
from livefeed.order import microseconds
from livefeed.partition import partition_of
from livefeed.topology import DEAD_LETTERS, UPDATES
from livefeed.update import CONTENT_FACET, kind_of, parse_update
from tests.servers import Follower, Stack, Update, until, update

SUBJECT = "feed.updates.high.tests"
LANE_SUBJECT = subjects.lanes("high", partition_of("user:alice"))
KEPT = "the item that stays"
REMOVED = "the item that is removed meanwhile"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def nothing(_stack: Stack) -> None:
    """Neither break nor mend the world."""


async def refuse_bodies(stack: Stack) -> None:
    """Have Postgres refuse these items for ever, as it would what nobody thought of."""
    await sql(stack, "alter table feed_body add constraint broken check (update_id !~ '^u') ")


async def take_bodies(stack: Stack) -> None:
    await sql(stack, "alter table feed_body drop constraint broken")


async def kill_workers(stack: Stack) -> None:
    """Hand the messages to workers that never come back, as often as it takes."""
    jetstream = (await stack.nats()).jetstream()
    pull = await jetstream.pull_subscribe_bind("prioritize-high", UPDATES)
    doomed = {}
    while len(doomed) < 2:
        for message in await pull.fetch(2, timeout=10):
            if message.metadata.num_delivered < DELIVERIES_MAX - 1:
                await message.nak()
            else:
                doomed[message.metadata.sequence.stream] = message
    for message in doomed.values():
        await message.nak()
    await pull.unsubscribe()


async def wait_for_the_clock(_stack: Stack) -> None:
    await asyncio.sleep(3)


@dataclass(frozen=True)
class Case:
    """How an update comes to be a dead letter, and what has to be done about it."""

    reason: DeadLetterReason
    spoil: Callable[[Update], bytes]
    """What is published instead of the update."""
    mended: Callable[[Update], bytes] | None = None
    """The bytes that are published instead of the letter's."""
    subject: str = SUBJECT
    break_world: Callable[[Stack], Awaitable[None]] = nothing
    mend_world: Callable[[Stack], Awaitable[None]] = nothing
    workers_late: bool = False
    """Whether workers come only when the world is broken."""
    stream: str = UPDATES


def plain(one: Update) -> bytes:
    return json.dumps(one).encode()


def cut(one: Update) -> bytes:
    return plain(one)[:-1]


def without_feed(one: Update) -> bytes:
    return json.dumps({name: value for name, value in one.items() if name != "feedType"}).encode()


def ahead(one: Update) -> bytes:
    """A little more ahead than is allowed: the clock mends it."""
    moment = datetime.now(UTC) + timedelta(seconds=FUTURE_SECONDS_MAX + 2)
    return plain(one | {"timestamp": moment.isoformat()})


def blown_up(one: Update) -> bytes:
    return plain(one) + b" " * UPDATE_BYTES_MAX


@pytest.fixture(autouse=True)
def nobody_is_known(stack: Stack) -> None:
    """No actor's followers can be said, so an update for them goes to the dead-letter queue."""
    stack.plug_in(
        """
        async def followers(page):
            raise LookupError(f"there is no {page.actor}")
        """,
        audience_resolver="followers",
    )


def for_nobody(one: Update) -> bytes:
    audience = {"audience": {"followers": "author-7"}}
    return plain({name: value for name, value in one.items() if name != "userId"} | audience)


def foreign(_one: Update) -> bytes:
    return b'{"groups":[]}'


def lane_message(one: Update) -> bytes:
    """What prioritize might make of it."""
    checked, (item,) = parse_update(plain(one), now_microseconds=time.time_ns() // 1000)
    published_at = microseconds(checked.timestamp)
    body = PublicBody(
        update_id=checked.update_id,
        update_type=checked.update_type,
        feed_type=checked.feed_type,
        content=Raw(item.body),
        timestamp=one["timestamp"],
        version=None,
        priority="high",
        metadata={},
    )
    lane_update = LaneUpdate(
        ref=update_ref(checked.update_id, item.id).hex(),
        explicit=0,
        version=published_at,
        item=item_key(item.id),
        facet=CONTENT_FACET,
        kind=kind_of(checked),
        rank=None,
        born=published_at,
        update_id=checked.update_id,
        published_at=published_at,
        accepted_at=published_at,
        trace=None,
        body=Raw(public_body(body)),
    )
    return encode_lane_message(LaneMessage([LaneGroup(["user:alice/home"], [lane_update])]))


CASES = [
    Case("invalid_json", cut, plain),
    Case("invalid_update", without_feed, plain),
    Case("timestamp_in_future", ahead, mend_world=wait_for_the_clock),
    Case("too_large", blown_up, plain),
    Case("unsupported_audience", for_nobody, plain),
    Case("invalid_lane_message", foreign, lane_message, subject=LANE_SUBJECT, stream="FEED_LANES"),
    Case(
        "not_persistable",
        plain,
        break_world=refuse_bodies,
        mend_world=take_bodies,
        stream="FEED_LANES",
    ),
    Case("too_many_deliveries", plain, break_world=kill_workers, workers_late=True),
]


def test_every_reason_has_a_case() -> None:
    """A reason that the code knows is a reason that is tested."""
    assert {case.reason for case in CASES} == set(get_args(DeadLetterReason))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.reason)
async def test_a_mended_letter_arrives_once_and_brings_nothing_back(
    stack: Stack, case: Case
) -> None:
    """Put aside with its origin and bytes; replayed it is shown once, and removed stays removed."""
    await stack.start_gateway()
    reader = stack.follow("alice")
    await reader.caught_up()
    updates = [update(id=KEPT), update(id=REMOVED)]
    if not case.workers_late:
        await stack.start_pool()
        await case.break_world(stack)
    spoilt, sequences = [], []
    for one in updates:
        payload = case.spoil(one)
        spoilt.append(payload)
        sequences.append(await publish(stack, case.subject, payload))
        if not case.workers_late:
            await listed(stack, len(sequences))  # each alone: a lane message has room for both
    if case.workers_late:
        await case.break_world(stack)
        await stack.start_pool()
    letters = await listed(stack, 2)
    for letter, payload, sequence in zip(letters, spoilt, sequences, strict=True):
        await check_letter(stack, case, letter, payload, sequence)

    await case.mend_world(stack)
    newer = (datetime.now(UTC) + timedelta(seconds=FUTURE_SECONDS_MAX - 1)).isoformat()
    await stack.publish([update(id=REMOVED, kind="content_removal", timestamp=newer)], "high")
    await until(lambda: shown(reader, REMOVED) == ["content_removal"], what="it is removed")

    for letter, one in zip(letters, updates, strict=True):
        done = await replay(stack, letter["sequence"], case.mended and case.mended(one))
        assert (done.returncode, done.stdout) == (0, "replayed 1, duplicate 0, failed 0\n")
    await until(lambda: reader.ids("home") == [KEPT], what="it arrived")
    await stack.settled()

    for letter, one in zip(letters, updates, strict=True):
        done = await replay(stack, letter["sequence"], case.mended and case.mended(one))
        assert done.returncode == 1
        assert "there is no such letter" in done.stderr
    await stack.publish([update(id="the last")], "high")
    await until(lambda: "the last" in reader.ids("home"), what="everything before it was handled")
    assert sorted(reader.ids("home")) == sorted([KEPT, "the last"])
    assert shown(reader, KEPT) == ["new_content"]
    assert shown(reader, REMOVED) == ["content_removal"]
    snapshot = await stack.snapshot("alice")
    assert {item.id for item in snapshot.items} == {KEPT, "the last"}


async def check_letter(
    stack: Stack, case: Case, letter: dict[str, Any], payload: bytes, sequence: int
) -> None:
    """Reason, origin, sentence and bytes."""
    assert letter["reason"] == case.reason
    assert letter["error"]
    shown_whole = json.loads(
        (await stack.command("dlq", "show", str(letter["sequence"]), "--json")).stdout
    )
    headers = shown_whole["headers"]
    assert headers["livefeed-reason"] == case.reason
    assert letter["stream"] == headers["livefeed-stream"] == case.stream
    accepted_at = datetime.fromtimestamp(int(headers["livefeed-accepted-at"]) / 1e6, UTC)
    assert timedelta(0) <= datetime.now(UTC) - accepted_at < timedelta(minutes=1)
    if case.stream == UPDATES or case.subject == LANE_SUBJECT:
        assert (letter["subject"], letter["streamSequence"]) == (case.subject, sequence)
        found = await original_bytes(stack, letter["sequence"])
        assert (len(found), found == payload) == (len(payload), True)
    else:
        assert letter["subject"] == LANE_SUBJECT
    if case.stream == UPDATES:
        assert headers["traceparent"] == TRACE


async def test_a_replay_that_is_cut_off_before_the_letter_is_deleted(stack: Stack) -> None:
    """The next replay finds that it was published, publishes nothing, and deletes the letter."""
    letters, publisher, sequence = await one_letter(stack, b"{")
    letter = await letters.get(sequence)
    assert letter is not None
    mended = plain(update(id="p1"))
    again = replayed(letter, mended, now_microseconds=time.time_ns() // 1000)
    stored = await publisher.publish(*again)
    done = await replay(stack, sequence, mended)
    assert (done.returncode, done.stdout) == (0, "replayed 1, duplicate 1, failed 0\n")
    assert await letters.get(sequence) is None
    info = await (await stack.nats()).jetstream().stream_info(UPDATES)
    assert info.state.last_seq == stored.sequence


async def test_a_replay_keeps_when_it_was_accepted_and_its_trace(stack: Stack) -> None:
    """However often it comes back, the update is as old as it is."""
    letters, _, sequence = await one_letter(stack, b"{}", {"Livefeed-Accepted-At": "12345"})
    done = await replay(stack, sequence, for_nobody(update()))
    assert done.returncode == 0, done.stderr
    back = await until(lambda: letters.get(sequence + 1), what="it came back")
    assert back.headers["livefeed-accepted-at"] == "12345"
    assert back.headers["traceparent"] == TRACE
    assert back.reason == "unsupported_audience"


async def test_what_would_only_come_back_stays(stack: Stack) -> None:
    """A replay is checked as the server will check it, and says what to do."""
    letters, _, sequence = await one_letter(stack, b"{}")
    for done in (
        await replay(stack, sequence, b"["),
        await stack.command("dlq", "replay", str(sequence)),
        await stack.command("dlq", "replay", "--all", "--json"),
    ):
        assert done.returncode == 1
        assert f"letter {sequence}: invalid_" in done.stderr
    assert json.loads(done.stdout) == {"replayed": 0, "duplicate": 0, "failed": 1}
    assert "dlq show SEQ --payload > FILE" in done.stderr
    assert await letters.get(sequence) is not None


async def test_a_subject_that_cannot_be_written_again(stack: Stack) -> None:
    """NATS takes any bytes in a subject; the command says what to do with such a letter."""
    payload = plain(update(id="p1"))
    strange = [b"feed.updates.high.\xff\xfe", b"feed.updates.high.\xc2\xa0x", b"feed.updates.low.*"]
    letters, _, sequence = await one_letter(stack, b"{")
    nats = await stack.nats()
    for subject in strange:
        nats._write(b"PUB %b 2\r\n{}\r\n" % subject)  # our own client would not send such ones
    await until(lambda: letters.get(sequence + len(strange)), what="they were put aside")
    for number in range(1, len(strange) + 1):
        done = await replay(stack, sequence + number, payload)
        assert done.returncode == 1
        assert "strange_subject" in done.stderr
        assert f"`livefeed dlq show {sequence + number} --payload`" in done.stderr


async def test_a_letter_of_somebody_else(stack: Stack) -> None:
    """Whatever lies on feed.dlq.> is listed and shown; only where it was is nobody's guess."""
    jetstream = (await stack.nats()).jetstream()
    payload = bytes(range(256))
    await jetstream.publish("feed.dlq.foreign", payload, headers={"Livefeed-Sequence": "x"})
    forged = {"Livefeed-Subject": "feed.users.x", "Livefeed-Error": "\x1b[31m"}
    await jetstream.publish("feed.dlq.foreign", payload, headers=forged)
    for sequence in (1, 2):
        assert await original_bytes(stack, sequence) == payload
        done = await stack.command("dlq", "replay", str(sequence))
        assert done.returncode == 1
    listed = await stack.command("dlq", "list")
    assert (listed.returncode, "\x1b" in listed.stdout) == (0, False)
    assert "2 dead letters: foreign 2" in listed.stderr
    shown_two = await stack.command("dlq", "show", "2")
    assert (shown_two.returncode, "\x1b" in shown_two.stdout) == (0, False)


async def test_list_chooses_and_counts(stack: Stack) -> None:
    """By reason, by time, the newest; and the counts alone."""
    publisher = await publisher_of(stack)
    for number in range(1200):
        reason: DeadLetterReason = "invalid_json" if number % 3 else "too_large"
        await publisher.publish(subjects.dead_letters(reason), b'{"updateId":"u%d"}' % number)
    moment = datetime.now(UTC).isoformat()
    await publisher.publish(subjects.dead_letters("invalid_json"), b"")

    async def sequences(*options: str) -> list[int]:
        done = await stack.command("dlq", "list", "--json", *options)
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["sequence"] for line in done.stdout.splitlines()]

    assert await sequences() == list(range(1, 1202))
    large = list(range(1, 1201, 3))
    assert await sequences("--reason", "too_large") == large
    assert await sequences("--reason", "too_large", "--limit", "3") == large[-3:]
    assert await sequences("--limit", "2") == [1200, 1201]
    assert await sequences("--since", moment) == [1201]
    assert await sequences("--since", "1h", "--limit", "700") == list(range(502, 1202))
    counts = json.loads((await stack.command("dlq", "list", "--count", "--json")).stdout)
    assert counts == {"invalid_json": 801, "too_large": 400}
    done = await stack.command("dlq", "list", "--count", "--since", moment)
    assert done.stdout == "1 dead letter: invalid_json 1\n"
    done = await stack.command("dlq", "list", "--since", "yesterday")
    assert done.returncode == 2
    done = await stack.command("dlq", "list", "--limit", "1")
    assert "1201" in done.stdout.split()


async def test_drop_deletes_what_was_named(stack: Stack) -> None:
    """By sequence, by reason, by age, and only with consent."""
    publisher = await publisher_of(stack)
    for reason in ("invalid_json", "too_large", "invalid_json", "too_large") * 2:
        await publisher.publish(subjects.dead_letters(reason), b"x")  # type: ignore[arg-type]
    moment = datetime.now(UTC).isoformat()
    await publisher.publish(subjects.dead_letters("invalid_json"), b"x")

    async def dropped(*options: str) -> tuple[int, str]:
        done = await stack.command("dlq", "drop", *options)
        return done.returncode, done.stdout or done.stderr

    assert "say --yes" in (await dropped("1"))[1]
    assert await dropped("1", "--yes") == (0, "dropped 1\n")
    assert await dropped("1", "2", "--yes") == (1, "dropped 1\n")
    assert await dropped("--older-than", "1h", "--yes") == (0, "dropped 0\n")
    assert await dropped("--reason", "too_large", "--yes") == (0, "dropped 3\n")
    assert await dropped("--older-than", moment, "--yes") == (0, "dropped 3\n")
    assert await dropped("--yes") == (2, (await dropped("--yes"))[1])
    assert [letter["sequence"] for letter in await listed(stack, 1)] == [9]


async def test_replay_of_all_takes_a_reason_and_nothing_that_comes_back(stack: Stack) -> None:
    """A thousand letters in one call; those that are refused again are new letters, tried once."""
    publisher = await publisher_of(stack)
    for number in range(1000):
        origin = {"Livefeed-Subject": SUBJECT, "Livefeed-Sequence": str(number)}
        payload = for_nobody(update(id=f"p{number}"))
        await publisher.publish(subjects.dead_letters("unsupported_audience"), payload, origin)
    await publisher.publish(subjects.dead_letters("invalid_json"), b"{")
    await stack.start_pool()
    done = await stack.command("dlq", "replay", "--reason", "unsupported_audience", "--dry-run")
    assert done.stdout == "would replay 1000, failed 0\n"
    done = await stack.command("dlq", "replay", "--reason", "unsupported_audience")
    assert (done.returncode, done.stdout) == (0, "replayed 1000, duplicate 0, failed 0\n")
    await stack.settled()
    assert len(await listed(stack, 1001)) == 1001
    done = await stack.command("dlq", "replay", "--all", "--reason", "too_large")
    assert done.returncode == 2


# What the tests above share.


async def sql(stack: Stack, statement: str) -> None:
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute(statement)
    await connection.close()


async def publisher_of(stack: Stack) -> Publisher:
    publisher = Publisher(await stack.nats())
    publisher.start()
    return publisher


async def publish(
    stack: Stack, subject: str, payload: bytes, headers: dict[str, str] | None = None
) -> int:
    jetstream = (await stack.nats()).jetstream()
    traced = {"traceparent": TRACE, **(headers or {})}
    return (await jetstream.publish(subject, payload, headers=traced)).seq


async def one_letter(
    stack: Stack, payload: bytes, headers: dict[str, str] | None = None
) -> tuple[DeadLetters, Publisher, int]:
    """The queue with one letter, put aside by a worker that stays."""
    await stack.start_worker("prioritize")
    await publish(stack, SUBJECT, payload, headers)
    (letter,) = await listed(stack, 1)
    letters = DeadLetters(await stack.nats())
    return letters, await publisher_of(stack), letter["sequence"]


async def listed(stack: Stack, count: int) -> list[dict[str, Any]]:
    """The letters as the command lists them, when there are so many."""
    jetstream = (await stack.nats()).jetstream()

    async def enough() -> bool:
        return (await jetstream.stream_info(DEAD_LETTERS)).state.messages >= count

    await until(enough, seconds=30, what=f"{count} dead letters")
    done = await stack.command("dlq", "list", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def replay(
    stack: Stack, sequence: int, mended: bytes | None
) -> subprocess.CompletedProcess[str]:
    if mended is None:
        return await stack.command("dlq", "replay", str(sequence))
    path = stack.directory / "mended"
    path.write_bytes(mended)
    return await stack.command("dlq", "replay", str(sequence), "--payload", str(path))


async def original_bytes(stack: Stack, sequence: int) -> bytes:
    """What `--payload` writes, which need not be text."""
    argv = [sys.executable, "-m", "livefeed.cli", "dlq", "show", str(sequence), "--payload"]
    done = await asyncio.to_thread(
        subprocess.run, argv, capture_output=True, check=True, env=stack.environment(), timeout=60
    )
    return done.stdout


def shown(reader: Follower, item: str) -> list[str]:
    """The kinds of every update of an item that came in a frame."""
    return [
        one["updateType"]
        for frame in reader.frames_of("feed_updates")
        for one in frame["updates"]
        if one["content"]["id"] == item
    ]
