"""What a dead letter says, what it becomes when it is replayed, and moments as people say them."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from livefeed.dead_letter import DeadLetter, read_letter, replayed, update_id_of
from livefeed.errors import Refused, UpdateRefused
from livefeed.identity import bytes_digest
from livefeed.moment import moment_text, parse_moment
from livefeed.subjects import is_literal

NOW = 2_000_000_000_000_000
UPDATE = {
    "updateId": "u1",
    "userId": "alice",
    "feedType": "home",
    "updateType": "new_content",
    "content": {"id": "p1"},
    "timestamp": "2026-11-25T08:00:00Z",
}
BYTES = json.dumps(UPDATE).encode()
ORIGIN = {
    "livefeed-subject": "feed.updates.high.posts",
    "livefeed-stream": "FEED_UPDATES",
    "livefeed-sequence": "12",
    "livefeed-error": "a sentence",
}


def letter(payload: bytes = BYTES, **more: str) -> DeadLetter:
    found: Mapping[str, str] = ORIGIN | {name.replace("_", "-"): v for name, v in more.items()}
    return read_letter(7, "feed.dlq.invalid_json", NOW - 10, found, payload)


def test_a_letter_is_read() -> None:
    """Reason, sentence, origin and the update's id."""
    one = letter()
    assert (one.reason, one.error, one.subject) == (
        "invalid_json",
        "a sentence",
        "feed.updates.high.posts",
    )
    assert (one.stream, one.original_sequence, one.update_id) == ("FEED_UPDATES", 12, "u1")
    foreign = read_letter(7, "feed.dlq.x", 0, {"livefeed-sequence": "²"}, b"")
    assert (foreign.subject, foreign.original_sequence, foreign.update_id) == (None, None, None)


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b'{"updateId":5}', b'{"updateId":"\\n"}', b"\xff", b"[" * 100_000]
)
def test_an_id_that_cannot_be_read(payload: bytes) -> None:
    """Bytes that may be anything have no id, and break nothing."""
    assert update_id_of(payload) is None


def test_a_replay_has_its_own_id_and_its_first_time() -> None:
    """The letter's sequence is in the id; time, trace and place among followers stay."""
    assert replayed(letter(), None, now_microseconds=NOW) == (
        "feed.updates.high.posts",
        BYTES,
        {"Nats-Msg-Id": "dlq:7", "Livefeed-Accepted-At": str(NOW - 10)},
    )
    more = {"livefeed_accepted_at": "5", "traceparent": "t", "livefeed_after": "Ym9i"}
    mended = BYTES.replace(b"p1", b"p2")
    _, payload, headers = replayed(letter(b"{", **more), mended, now_microseconds=NOW)
    assert payload == mended
    assert headers == {
        "Nats-Msg-Id": f"dlq:7:{bytes_digest(mended)}",
        "Livefeed-Accepted-At": "5",
        "traceparent": "t",
        "Livefeed-After": "Ym9i",
    }


def test_what_would_come_back_is_refused() -> None:
    """With the reason under which it would, for updates and for lane messages."""
    with pytest.raises(UpdateRefused, match="invalid_json"):
        replayed(letter(), b"{", now_microseconds=NOW)
    with pytest.raises(UpdateRefused, match="timestamp_in_future"):
        replayed(letter(), None, now_microseconds=0)
    lane = letter(livefeed_subject="feed.lanes.high.3")
    with pytest.raises(UpdateRefused, match="invalid_lane_message"):
        replayed(lane, None, now_microseconds=NOW)


@pytest.mark.parametrize(
    "subject",
    [
        "feed.updates.high.\ufffd",
        "feed.updates.a b",
        "feed.updates.*",
        "feed.users.x",
        "feed.dlq.x",
    ],
)
def test_a_strange_subject_is_refused(subject: str) -> None:
    """Neither guessed nor let out of the two streams; the sentence says what to do."""
    with pytest.raises(Refused, match="dlq show 7 --payload"):
        replayed(letter(livefeed_subject=subject), None, now_microseconds=NOW)


@pytest.mark.parametrize(
    ("subject", "literal"),
    [("a", True), ("a.b.ü", True), ("", False), ("a..b", False), (".a", False), ("a.", False)]
    + [(f"a.{bad}", False) for bad in ("*", ">", "b\n", "\u00a0", "\ufffd", "\x7f", "\t")],
)
def test_literal_subjects(subject: str, *, literal: bool) -> None:
    """Only what can be written into a command for the server, and means one subject there."""
    assert is_literal(subject) == literal


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("90s", 90), ("30m", 1_800), ("2h", 7_200), ("7d", 604_800)],
)
def test_durations(text: str, seconds: int) -> None:
    """A duration is before now."""
    assert parse_moment(text, now_microseconds=NOW) == NOW - seconds * 1_000_000


def test_times() -> None:
    """A time has a zone, and comes back as it was written."""
    text = "2026-11-25T08:00:00.123456Z"
    assert moment_text(parse_moment(text, now_microseconds=NOW)) == text
    assert parse_moment("1970-01-01T01:00:00+01:00", now_microseconds=NOW) == 0


@pytest.mark.parametrize(
    "text", ["", "2", "h", "-2h", "2 h", "2w", "2026-11-25", "soon", "9999999999d"]
)
def test_no_moment(text: str) -> None:
    """Anything else is refused, and the sentence says what is expected."""
    with pytest.raises(Refused, match=r"expected|zone"):
        parse_moment(text, now_microseconds=NOW)
