"""The benchmark's judge of snapshots, and what it reads of an answer over HTTP."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from benchmarks.corpus import Corpus
from benchmarks.feed_answers import judge_answer
from benchmarks.http_client import AnswerBroken, AnswerParser
from benchmarks.readers import ReadResult, Sample, source_of
from benchmarks.reference import Channel, Findings, Reference, Row
from benchmarks.verify import FAULTS

CORPUS = Corpus(seed=3, users=2, items=6, audience=1, began_at=int(time.time()) - 7200)
COUNT = 60
USER = 0
NAME = f"user:{CORPUS.user(USER)}/home"
ANSWER = b"HTTP/1.1 200 OK\r\nCache-Status: livefeed; hit; ttl=-3\r\nContent-Length: 4\r\n\r\nbody"


def log() -> Channel:
    """The channel as it is after all updates, each entry at the seq of its order."""
    standings = Reference(CORPUS, range(COUNT)).standings(NAME)
    places = sorted(standings, key=lambda place: standings[place].update_id)
    rows = [Row(place, seq, standings[place]) for seq, place in enumerate(places, 1)]
    return Channel(NAME, len(rows), 0, rows)


def answer(channel: Channel, position: int | None = None) -> dict[str, Any]:
    """The snapshot of a channel that has only what this one has up to a position."""
    rows = {row.place: row for row in channel.rows if row.seq <= (position or channel.head)}
    items = []
    for (key, facet), row in rows.items():
        if facet or row.standing.kind == 2:
            continue
        said, other = public(row), rows.get((key, 1))
        items.append(
            {
                "channel": "me/home",
                "seq": max(row.seq, other.seq if other else 0),
                "rank": float(-row.seq),
                "updateId": row.standing.update_id,
                "content": said,
                "engagement": public(other) if other else None,
            }
        )
    items.sort(key=lambda item: (-item["rank"], item["content"]["id"]))
    cursor = f"e.0000000000000000:all/home=0,me/home={position or channel.head}"
    return {"feed": "home", "items": items, "cursor": cursor, "next": None}


def public(row: Row) -> dict[str, Any]:
    number = int(row.standing.update_id.rpartition("-")[2])
    content: dict[str, Any] = CORPUS.public(number, CORPUS.facts(number))["content"]
    return content


def faults(snapshot: dict[str, Any], channel: Channel) -> dict[str, int]:
    found = Findings()
    judge_answer(CORPUS, Sample(USER, json.dumps(snapshot).encode()), channel, found)
    return found.faults


def found(**counts: int) -> dict[str, int]:
    return dict.fromkeys(FAULTS, 0) | counts


def test_an_answer_that_is_the_log_has_no_faults() -> None:
    channel = log()
    assert len(answer(channel)["items"]) > 2
    assert faults(answer(channel), channel) == found()


def test_an_answer_of_an_earlier_moment_has_no_faults() -> None:
    channel = log()
    for position in range(1, channel.head):
        assert faults(answer(channel, position), channel) == found()


def test_a_missing_item_is_lost() -> None:
    channel, snapshot = log(), answer(log())
    snapshot["items"].pop()
    assert faults(snapshot, channel) == found(lost=1)


def test_an_item_that_came_twice_is_doubled() -> None:
    channel, snapshot = log(), answer(log())
    snapshot["items"].append(snapshot["items"][-1])
    assert faults(snapshot, channel) == found(doubled=1)


def test_items_out_of_order_are_inexact() -> None:
    channel, snapshot = log(), answer(log())
    snapshot["items"].reverse()
    assert faults(snapshot, channel) == found(inexact=1)


def test_an_item_above_the_cursor_is_inexact() -> None:
    channel, snapshot = log(), answer(log())
    highest = max(item["seq"] for item in snapshot["items"])
    snapshot["cursor"] = f"e.0000000000000000:all/home=0,me/home={highest - 1}"
    assert faults(snapshot, channel)["inexact"] == 1


def test_another_users_item_is_foreign() -> None:
    channel, snapshot = log(), answer(log())
    number = next(n for n in range(COUNT) if CORPUS.facts(n).first_user != USER)
    facts = CORPUS.facts(number)
    item = snapshot["items"][0]
    item |= {"updateId": facts.update_id, "content": CORPUS.public(number, facts)["content"]}
    assert faults(snapshot, channel)["foreign"] == 1


def test_a_removed_item_is_foreign() -> None:
    channel, snapshot = log(), answer(log())
    item = snapshot["items"][0]
    rows = [
        row._replace(standing=row.standing._replace(kind=2))
        if row.standing.update_id == item["updateId"]
        else row
        for row in channel.rows
    ]
    assert faults(snapshot, channel._replace(rows=rows))["foreign"] == 1


def test_an_older_update_than_the_logs_is_inexact() -> None:
    channel, snapshot = log(), answer(log())
    item = snapshot["items"][0]
    rows = [
        row._replace(standing=row.standing._replace(order=(2, 0, b"")))
        if row.standing.update_id == item["updateId"]
        else row
        for row in channel.rows
    ]
    assert faults(snapshot, channel._replace(rows=rows)) == found(inexact=1)


def test_a_missing_engagement_is_inexact() -> None:
    channel, snapshot = log(), answer(log())
    item = next(item for item in snapshot["items"] if item["engagement"])
    item["engagement"] = None
    assert faults(snapshot, channel) == found(inexact=1)


@pytest.mark.parametrize("size", [1, 7, len(ANSWER)])
def test_an_answer_is_read_in_pieces(size: int) -> None:
    parser = AnswerParser()
    pieces = [ANSWER[start : start + size] for start in range(0, len(ANSWER), size)]
    answers = [parser.feed(piece) for piece in pieces]
    assert answers[:-1] == [None] * (len(pieces) - 1)
    last = answers[-1]
    assert last is not None
    assert (last.status, last.body, last.size) == (200, b"body", len(ANSWER))
    assert last.cache_status == "livefeed; hit; ttl=-3"


def test_an_answer_without_a_length_is_refused() -> None:
    with pytest.raises(AnswerBroken):
        AnswerParser().feed(b"HTTP/1.1 200 OK\r\n\r\n")


@pytest.mark.parametrize(
    ("header", "source"),
    [
        ("", "unsaid"),
        ("cdn; hit", "unsaid"),
        ("livefeed; fwd=miss", "miss"),
        ("livefeed; hit", "hit"),
        ("livefeed; hit; ttl=-4; detail=memory", "memory"),
        ("livefeed; hit; detail=shared", "shared"),
    ],
)
def test_an_answer_says_where_it_came_from(header: str, source: str) -> None:
    assert source_of(header) == source


def test_the_results_of_processes_add_up() -> None:
    one, other = ReadResult(), ReadResult()
    one.known.answered, other.known.errors, other.unknown.answered = 3, 1, 2
    other.statuses[503], other.slowest = 1, 0.4
    one.merge(other)
    assert (one.answered, one.errors, one.slowest) == (5, 1, 0.4)
    assert one.known.share == 0.25
    assert one.statuses == {503: 1}
