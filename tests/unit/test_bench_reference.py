"""The benchmark's model of the log: whatever differs from it fails a run."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable

import msgspec
import pytest

from benchmarks.corpus import Corpus
from benchmarks.reference import (
    EXAMPLES_MAX,
    Channel,
    Findings,
    Order,
    Place,
    Reference,
    Row,
    Standing,
    birth_of,
)
from benchmarks.report import Report
from benchmarks.verify import FAULTS, decode_frame
from benchmarks.view import View
from functions.reading import read_update
from livefeed.channel import user_channel
from livefeed.entry import Entry, EntryKey, coalesce
from livefeed.messages import LaneUpdate
from livefeed.update import parse_update

NOW = 1_800_000_000
UPDATES = 400
NARROW = Corpus(seed=1, users=5, items=4, audience=1, began_at=NOW)
WIDE = Corpus(seed=2, users=7, items=3, audience=3, began_at=NOW)
ME = "me/home"


def published(corpus: Corpus, numbers: range) -> list[tuple[list[str], LaneUpdate]]:
    """What the servers make of the published bytes."""
    readings = []
    for number in numbers:
        subject, payload, _ = corpus.message(number)
        update, items = parse_update(payload, now_microseconds=(NOW + 60) * 1_000_000)
        reading = read_update(update, items, subject=subject, accepted_at=1, traceparent=None)
        assert isinstance(reading.audience, list)
        channels = [user_channel(user, reading.facts.feed) for user in reading.audience]
        readings.append((channels, reading.updates[0]))
    return readings


def log_of(corpus: Corpus) -> list[Channel]:
    """The log as the code that merges two entries at a time has it."""
    given: list[tuple[EntryKey, Entry]] = []
    names: dict[bytes, str] = {}
    for channels, update in published(corpus, range(UPDATES)):
        entry = update.entry()
        names[entry.order.ref] = update.update_id
        given += [(EntryKey(name, update.item, update.facet), entry) for name in channels]
    rows: dict[str, list[Row]] = defaultdict(list)
    for key, entry in coalesce(given).items():
        birth = birth_of(entry.born)
        order = tuple(entry.order)
        standing = Standing(order, entry.kind, entry.rank, birth, names[entry.order.ref])
        mine = rows[key.channel]
        mine.append(Row((key.item, key.facet), len(mine) + 1, standing))
    return [Channel(name, len(mine), 0, mine) for name, mine in rows.items()]


def findings(log: list[Channel], corpus: Corpus = NARROW) -> Findings:
    reference = Reference(corpus, range(UPDATES))
    for channel in log:
        reference.compare(channel)
    return reference.finish()


def found(**counts: int) -> dict[str, int]:
    return dict.fromkeys(FAULTS, 0) | counts


@pytest.mark.parametrize("corpus", [NARROW, WIDE])
def test_the_servers_own_log_has_no_faults(corpus: Corpus) -> None:
    """Two ways to the same log: all updates of a place at once, and two entries at a time."""
    log = log_of(corpus)
    found_ = findings(log, corpus)
    assert found_.faults == found(), found_.examples
    assert found_.entries == sum(len(channel.rows) for channel in log)


def test_a_corpus_contradicts_itself() -> None:
    """Without conflicts of every sort a run would show nothing about them."""
    all_ = [NARROW.facts(number) for number in range(UPDATES)]
    places = defaultdict(list)
    for facts in all_:
        places[facts.first_user, facts.item].append(facts)
    assert {facts.kind for facts in all_} == {
        *("new_content", "content_update", "content_removal", "engagement_update")
    }
    assert {facts.priority for facts in all_} == {"high", "medium", "low"}
    assert {facts.version is None for facts in all_} == {True, False}
    assert {facts.rank is None for facts in all_} == {True, False}
    seconds = [[facts.second for facts in mine] for mine in places.values()]
    assert any(mine != sorted(mine) for mine in seconds), "none comes late"
    assert any(len(set(mine)) < len(mine) for mine in seconds), "no two of the same time"


def replaced(log: list[Channel], **fields: object) -> None:
    """Change what stands in the last channel's first place."""
    row = log[-1].rows[0]
    standing = row.standing._replace(**fields)
    log[-1] = log[-1]._replace(rows=[row._replace(standing=standing), *log[-1].rows[1:]])


def lose_an_entry(log: list[Channel]) -> None:
    log[-1] = log[-1]._replace(rows=log[-1].rows[1:])


def lose_a_channel(log: list[Channel]) -> None:
    log.pop()


def double_a_seq(log: list[Channel]) -> None:
    rows = log[-1].rows
    log[-1] = log[-1]._replace(rows=[rows[0]._replace(seq=rows[1].seq), *rows[1:]])


def add_what_nobody_published(log: list[Channel]) -> None:
    row = log[-1].rows[0]._replace(place=(7, 0), seq=len(log[-1].rows) + 1)
    log[-1] = log[-1]._replace(rows=[*log[-1].rows, row], head=row.seq)


def add_another_users_channel(log: list[Channel]) -> None:
    row = log[-1].rows[0]._replace(seq=1)
    log.append(Channel(user_channel(NARROW.user(99), "home"), 1, 0, [row]))


def have_an_older_update(log: list[Channel]) -> None:
    replaced(log, order=(0, 0, b"\0" * 16))


def have_another_kind(log: list[Channel]) -> None:
    replaced(log, kind=9)


def forget_a_rank(log: list[Channel]) -> None:
    replaced(log, rank=-1.0)


def forget_a_birth(log: list[Channel]) -> None:
    replaced(log, birth=birth_of(1))


def lose_a_body(log: list[Channel]) -> None:
    replaced(log, update_id="")


def forget_the_head(log: list[Channel]) -> None:
    log[-1] = log[-1]._replace(head=log[-1].head - 1)


def raise_a_floor(log: list[Channel]) -> None:
    log[-1] = log[-1]._replace(floor=1)


@pytest.mark.parametrize(
    ("injure", "wanted"),
    [
        (lose_an_entry, {"lost": 1}),
        (lose_a_channel, {"lost": len(log_of(NARROW)[-1].rows)}),
        (double_a_seq, {"doubled": 1}),
        (add_what_nobody_published, {"foreign": 1}),
        (add_another_users_channel, {"foreign": 1}),
        (have_an_older_update, {"inexact": 1}),
        (have_another_kind, {"inexact": 1}),
        (forget_a_rank, {"inexact": 1}),
        (forget_a_birth, {"inexact": 1}),
        (lose_a_body, {"inexact": 1}),
        (forget_the_head, {"inexact": 1}),
        (raise_a_floor, {"inexact": 1}),
    ],
)
def test_a_broken_log_is_counted_and_fails_the_run(
    injure: Callable[[list[Channel]], None], wanted: dict[str, int]
) -> None:
    log = log_of(NARROW)
    injure(log)
    found_ = findings(log)
    assert found_.faults == found(**wanted)
    assert found_.examples
    assert not Report("any", faults=found_.faults).ok


def test_the_log_of_another_load_is_passed_over() -> None:
    other = Channel(user_channel("user-1-1", "home"), 1, 0, [log_of(NARROW)[0].rows[0]])
    assert findings([*log_of(NARROW), other]).faults == found()


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({}, {}),
        ({"updateType": "none"}, {"inexact": 1}),
        ({"timestamp": "1970-01-01T00:00:00Z"}, {"inexact": 1}),
        ({"content": {"id": "item-1", "number": 0, "text": "other"}}, {"inexact": 1}),
    ],
)
def test_a_stored_body_is_what_was_published(
    change: dict[str, object], faults: dict[str, int]
) -> None:
    _, update = published(NARROW, range(1))[0]
    body = msgspec.json.encode(msgspec.json.decode(bytes(update.body)) | change)
    reference = Reference(NARROW, range(1))
    reference.compare_body(bytes.fromhex(update.ref), update.update_id, body)
    assert reference.findings.faults == found(**faults)


def test_a_body_under_another_ref_is_inexact() -> None:
    _, update = published(NARROW, range(1))[0]
    reference = Reference(NARROW, range(1))
    reference.compare_body(b"\0" * 16, update.update_id, bytes(update.body))
    assert reference.findings.faults == found(inexact=1)


# What one client holds.

USER = 0
MINE = [n for n in range(UPDATES) if NARROW.facts(n).first_user == USER]
CHANNEL = user_channel(NARROW.user(USER), "home")


def wanted() -> dict[Place, Order]:
    standings = Reference(NARROW, range(UPDATES)).standings(CHANNEL)
    return {place: standing.order for place, standing in standings.items()}


def newest() -> list[int]:
    """The numbers of the user's updates that stand at the end, in order."""
    refs = {order[2] for order in wanted().values()}
    readings = zip(MINE, (published(NARROW, range(n, n + 1))[0] for n in MINE), strict=True)
    return [number for number, (_, update) in readings if bytes.fromhex(update.ref) in refs]


def frame(numbers: list[int], *, first_seq: int, cursor: int, channel: str = ME) -> bytes:
    updates = [
        {"channel": channel, "seq": seq, "content": {"number": number}}
        for seq, number in enumerate(numbers, first_seq)
    ]
    return json.dumps({"type": "feed_updates", "updates": updates, "cursor": {ME: cursor}}).encode()


def view_of(*frames: bytes) -> View:
    view = View(NARROW, USER)
    for one in frames:
        view.take(decode_frame(one))
    return view


def test_a_client_that_saw_the_newest_of_each_place_has_no_faults() -> None:
    numbers = newest()
    view = view_of(frame(numbers, first_seq=1, cursor=len(numbers)))
    assert view.judge(wanted(), head=len(numbers)) == found()
    assert view.updates == len(numbers)


def test_what_a_client_lacks_has_twice_or_should_not_have_is_counted() -> None:
    numbers, head = newest(), len(newest())
    whole = frame(numbers, first_seq=1, cursor=head)
    less = frame(numbers[1:], first_seq=2, cursor=head)
    assert view_of(less).judge(wanted(), head=head) == found(lost=1)
    again = frame(numbers[:1], first_seq=1, cursor=head)
    assert view_of(whole, again).judge(wanted(), head=head) == found(doubled=1)
    others = [n for n in range(UPDATES) if n not in MINE][:1]
    foreign = frame(others, first_seq=head + 1, cursor=head)
    assert view_of(whole, foreign).judge(wanted(), head=head) == found(foreign=1)
    elsewhere = frame(numbers[:1], first_seq=head + 1, cursor=head, channel="all/home")
    assert view_of(whole, elsewhere).judge(wanted(), head=head) == found(foreign=1)


def test_a_client_that_saw_an_older_update_later_or_is_behind_is_inexact() -> None:
    numbers, head = newest(), len(newest())
    whole = frame(numbers, first_seq=1, cursor=head)
    older = [n for n in MINE if n not in numbers][:1]
    late = frame(older, first_seq=head + 1, cursor=head + 1)
    assert view_of(whole, late).judge(wanted(), head=head + 1) == found(inexact=1)
    assert view_of(whole).judge(wanted(), head=head + 1) == found(inexact=1)
    place = NARROW.facts(older[0])
    mended = [n for n in numbers if NARROW.facts(n).item == place.item]
    back = frame(mended, first_seq=head + 2, cursor=head + 1 + len(mended))
    view = view_of(whole, late, back)
    assert view.judge(wanted(), head=view.position) == found(inexact=1), "it was seen meanwhile"


def test_an_update_that_moved_because_its_birth_became_known_is_not_twice_there() -> None:
    numbers, head = newest(), len(newest())
    whole = frame(numbers, first_seq=1, cursor=head)
    moved = frame(numbers[:1], first_seq=head + 1, cursor=head + 1)
    assert view_of(whole, moved).judge(wanted(), head=head + 1) == found()


def test_many_faults_of_one_kind_hide_no_other() -> None:
    """The first few of each are kept."""
    found_ = Findings()
    for number in range(2 * EXAMPLES_MAX):
        found_.add("inexact", f"row {number}")
    found_.add("lost", "a row")
    assert found_.examples == [*(f"inexact: row {n}" for n in range(EXAMPLES_MAX)), "lost: a row"]
