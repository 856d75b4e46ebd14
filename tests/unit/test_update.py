"""What is an update and what is not: one table, judged by the parser and by the JSON Schema."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livefeed.errors import UpdateRefused
from livefeed.identity import is_id
from livefeed.limits import ITEM_BYTES_MAX, UPDATE_BYTES_MAX
from livefeed.update import Followers, parse_update, recipients, update_schema

NOW_MICROSECONDS = 1_795_420_800_000_000
"""2026-11-23T08:00:00Z."""
VALID: dict[str, Any] = {
    "updateId": "u1",
    "userId": "alice",
    "feedType": "home",
    "updateType": "new_content",
    "content": {"id": "p1"},
    "timestamp": "2026-11-23T08:00:00Z",
}
LEFT_OUT = object()
SCHEMA = jsonschema.Draft202012Validator(update_schema())


class Bad(NamedTuple):
    """An update that is refused."""

    fields: dict[str, Any]
    reason: str
    words: str
    """Of the sentence that the publisher gets."""
    schema_agrees: bool = True
    """False where a JSON Schema cannot say it, see `test_the_schema_agrees`."""


def with_fields(fields: dict[str, Any]) -> dict[str, Any]:
    every = VALID | fields
    return {name: value for name, value in every.items() if value is not LEFT_OUT}


def refusal(payload: bytes) -> UpdateRefused:
    with pytest.raises(UpdateRefused) as refused:
        parse_update(payload, now_microseconds=NOW_MICROSECONDS)
    return refused.value


def for_all(audience: Any) -> dict[str, Any]:
    return {"userId": LEFT_OUT, "audience": audience}


# What wildcards, separators, escapes and look-alikes are made of; they are ids all the same.
HARMLESS_IDS = [
    *(" ", "*", ">", "a.*", "a.>", ".", "..", ".a", "a.", "$SYS", "$JS.API.STREAM.DELETE.X"),
    *("_INBOX.x", "$KV.x", "\u00a0", "\u2028", "\u200f", "é", "e\u0301", "😀", "a" * 64, "a" * 65),
    *("a" * 128, "😀" * 128, "%2e", "a/b", "a\\b", "../", "~YQ", "Alice", "alice", "me/home", '"'),
    "'; drop table feed_entry; --",
]
CONTROL_IDS = ["\t", "\r", "\n", "a\r\nPUB x 1", "\0", "a\0", "\x7f", "\x1b[2J", "\u0085"]
LONG_IDS = ["a" * 129, "a" * 255, "a" * 256, "é" * 129, "a" * 4_096, "a" * 5_000]
FEEDS = ["a", "0", "home", "a-b_c", "a" * 64, "0-"]
NO_FEEDS = [
    *("", " ", "Home", "a.b", "a*", "*", ">", "-a", "_a", "ä", "a b", "a/b", "a" * 65, "$SYS"),
    "a\r\nPUB",
]
UPDATE_IDS = ["!", "~", "*", ">", "a.b", "$SYS", "%2e", "~" * 128, '"\\', "01JABC"]
NO_UPDATE_IDS = ["", " ", "a b", "\t", "a\r\nNats-Msg-Id: x", "\0", "\x7f", "é", "😀", "a" * 129]

CONTENTS_NO_OBJECT: list[Any] = [None, 1, "p", [1], [[]]]
CONTENTS_NO_ID: list[Any] = [{}, {"id": 1}, [{}]]

GOOD: list[dict[str, Any]] = [
    {},
    *({"userId": one} for one in HARMLESS_IDS),
    *({"content": {"id": one}} for one in HARMLESS_IDS),
    *(for_all({"users": [one]}) for one in HARMLESS_IDS),
    *({"feedType": one} for one in FEEDS),
    *({"updateId": one} for one in UPDATE_IDS),
    for_all({"users": ["a", "b", "a"]}),
    for_all({"users": [str(number) for number in range(10_000)]}),
    for_all({"followers": "author-7"}),
    for_all({"feed": True}),
    {"audience": None, "priority": None, "version": None, "metadata": None},
    *({"priority": one} for one in ("high", "medium", "low")),
    *({"updateType": one} for one in ("content_update", "content_removal", "engagement_update")),
    *({"version": one} for one in (0, 1, 2**53 - 1)),
    {"metadata": {"source": "posts", "batchId": "b", "experimentId": None, "other": [1]}},
    {"content": [{"id": str(number)} for number in range(100)]},
    {"content": {"id": "p", "rank": 1.5}},
    {"content": {"id": "p", "rank": -(10**300)}},
    {"content": {"id": "p", "text": "\0 \u2028", "deep": [[{}]], "__proto__": {}}},
    *(
        {"timestamp": one}
        for one in (
            "2026-11-23T08:04:59Z",
            "2026-11-23T10:00:00.123456789+02:00",
            "0001-01-01T00:00:00Z",
            "0001-01-01T00:00:00+14:00",
        )
    ),
]

ONE_OF_THREE = "audience must be one of"
EXACTLY_ONE = "exactly one of userId and audience"
BAD: list[Bad] = [
    *(Bad({name: LEFT_OUT}, "invalid_update", f"`{name}`") for name in VALID if name != "userId"),
    Bad({"userId": LEFT_OUT}, "invalid_update", EXACTLY_ONE),
    Bad({"audience": {"feed": True}}, "invalid_update", EXACTLY_ONE),
    Bad({"userId": None, "audience": None}, "invalid_update", EXACTLY_ONE),
    Bad({"extra": 1}, "invalid_update", "unknown field `extra`"),
    Bad({"userId": 1}, "invalid_update", "$.userId"),
    Bad({"userId": ""}, "invalid_update", "$.userId"),
    *(Bad({"userId": one}, "invalid_update", "control characters", False) for one in CONTROL_IDS),
    *(Bad({"userId": one}, "invalid_update", "length <= 128") for one in LONG_IDS),
    *(
        Bad(for_all({"users": ["a", one]}), "invalid_update", "control", False)
        for one in CONTROL_IDS
    ),
    *(Bad(for_all({"followers": one}), "invalid_update", "control", False) for one in CONTROL_IDS),
    *(Bad({"content": {"id": one}}, "invalid_update", "content.id", False) for one in CONTROL_IDS),
    *(Bad({"content": {"id": one}}, "invalid_update", "content.id") for one in (*LONG_IDS, "")),
    *(Bad({"feedType": one}, "invalid_update", "$.feedType") for one in NO_FEEDS),
    Bad({"feedType": "home\n"}, "invalid_update", "feedType", False),
    *(Bad({"updateId": one}, "invalid_update", "$.updateId") for one in NO_UPDATE_IDS),
    Bad({"updateId": "u1\n"}, "invalid_update", "updateId", False),
    Bad(for_all({}), "invalid_update", ONE_OF_THREE),
    Bad(for_all({"feed": False}), "invalid_update", ONE_OF_THREE),
    Bad(for_all({"feed": True, "users": ["a"]}), "invalid_update", ONE_OF_THREE),
    Bad(for_all({"users": []}), "invalid_update", "$.audience.users"),
    Bad(for_all({"users": None}), "invalid_update", "$.audience.users"),
    Bad(for_all({"users": ["a"] * 10_001}), "invalid_update", "length <= 10000"),
    Bad(for_all({"everyone": True}), "invalid_update", "unknown field `everyone`"),
    Bad(for_all(["a"]), "invalid_update", "$.audience"),
    Bad({"priority": "urgent"}, "invalid_update", "$.priority"),
    Bad({"updateType": "patch"}, "invalid_update", "$.updateType"),
    *(Bad({"version": one}, "invalid_update", "$.version") for one in (-1, 2**53, 1.5, "1", True)),
    Bad({"version": 2**63}, "invalid_update", "$.version"),
    Bad({"version": 1.0}, "invalid_update", "$.version", False),
    Bad({"timestamp": 1}, "invalid_update", "$.timestamp"),
    Bad({"timestamp": "yesterday"}, "invalid_update", "RFC3339", False),
    Bad({"timestamp": "2026-11-23"}, "invalid_update", "RFC3339", False),
    Bad({"timestamp": "2026-11-23T08:00:00"}, "invalid_update", "timezone", False),
    Bad({"timestamp": "2026-11-23T08:05:01Z"}, "timestamp_in_future", "301 s ahead", False),
    Bad({"timestamp": "9999-12-31T23:59:59-12:00"}, "timestamp_in_future", "300 s", False),
    Bad({"metadata": {"source": 1}}, "invalid_update", "$.metadata.source"),
    Bad({"metadata": {"source": "x" * 257}}, "invalid_update", "$.metadata.source"),
    *(Bad({"content": one}, "invalid_update", "not an object") for one in CONTENTS_NO_OBJECT),
    *(Bad({"content": one}, "invalid_update", "content.id") for one in CONTENTS_NO_ID),
    Bad({"content": []}, "invalid_update", "content has 0 items"),
    Bad({"content": [{"id": str(n)} for n in range(101)]}, "invalid_update", "101 items"),
    Bad({"content": [{"id": "p"}, {"id": "p"}]}, "invalid_update", "one id twice", False),
    *(Bad({"content": {"id": "p", "rank": one}}, "invalid_update", "rank") for one in ("1", True)),
    Bad({"content": {"id": "p", "rank": 10**301}}, "invalid_update", "", False),
    Bad({"content": {"id": "p", "x": "x" * ITEM_BYTES_MAX}}, "too_large", "an item has", False),
    Bad({"content": {"id": "p", "x": "\ud800"}}, "invalid_json", "not JSON", False),
]


@pytest.mark.parametrize("fields", GOOD)
def test_good_updates_are_accepted(fields: dict[str, Any]) -> None:
    """Its ids come out as they went in."""
    sent = with_fields(fields)
    update, items = parse_update(json.dumps(sent).encode(), now_microseconds=NOW_MICROSECONDS)
    assert update.update_id == sent["updateId"]
    contents = sent["content"] if isinstance(sent["content"], list) else [sent["content"]]
    assert [item.id for item in items] == [content["id"] for content in contents]
    assert [json.loads(item.body) for item in items] == contents


@pytest.mark.parametrize("bad", BAD)
def test_bad_updates_are_refused_with_their_reason(bad: Bad) -> None:
    """The reason is where it is filed, the sentence names what is wrong."""
    refused = refusal(json.dumps(with_fields(bad.fields)).encode())
    assert refused.reason == bad.reason
    assert bad.words in refused.detail


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "invalid_json"),
        (b" ", "invalid_json"),
        (b"{", "invalid_json"),
        (b"\xef\xbb\xbf{}", "invalid_json"),
        (b"\xff\xfe{\0}\0", "invalid_json"),
        (b"{}{}", "invalid_update"),
        (b"null", "invalid_update"),
        (b"[]", "invalid_update"),
        (b'"update"', "invalid_update"),
        (b"1", "invalid_update"),
        (b"[" * 100_000, "invalid_update"),
        (b"x" * (UPDATE_BYTES_MAX + 1), "too_large"),
    ],
)
def test_payloads_that_are_no_update(payload: bytes, reason: str) -> None:
    """Bytes that are no JSON, or another JSON value."""
    assert refusal(payload).reason == reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"id":"p","x":NaN}', "invalid_json"),
        (b'{"id":"p","x":"\xff"}', "invalid_json"),
        (b'{"id":"p","x":"\\ud800"}', "invalid_json"),
        (b'{"id":"p","x":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "invalid_json"),
        (b'{"id":"p","x":1e400}', "invalid_update"),
        (b'{"id":"p","x":' + b"9" * 5_000 + b"}", "invalid_update"),
    ],
)
def test_contents_that_no_client_could_read(content: bytes, reason: str) -> None:
    """The content is passed on as it is, so it is read once to the end before."""
    payload = json.dumps(with_fields({"content": "here"})).encode()
    assert refusal(payload.replace(b'"here"', content)).reason == reason


@pytest.mark.parametrize("index", range(len(GOOD)))
def test_the_schema_takes_what_is_accepted(index: int) -> None:
    """A publisher who checks with the schema is not told that a good update is bad."""
    SCHEMA.validate(with_fields(GOOD[index]))


@pytest.mark.parametrize("bad", BAD)
def test_the_schema_agrees(bad: Bad) -> None:
    """It refuses what is refused, but for what a JSON Schema cannot say, or not portably.

    These are: control characters and a line feed after `$` (dialects of patterns differ), ids that
    are in one content twice, bytes, times (`format` is only a note), 1.0 (an integer to it), and
    text that is not Unicode.
    """
    assert SCHEMA.is_valid(with_fields(bad.fields)) != bad.schema_agrees


def test_recipients_are_named_once() -> None:
    """In the order of the audience; a topic has none, and followers are read later."""

    def of(fields: dict[str, Any]) -> list[str] | Followers | None:
        payload = json.dumps(with_fields(fields)).encode()
        return recipients(parse_update(payload, now_microseconds=NOW_MICROSECONDS)[0])

    assert of({}) == ["alice"]
    assert of(for_all({"users": ["b", "a", "b"]})) == ["b", "a"]
    assert of(for_all({"feed": True})) is None
    assert of(for_all({"followers": "author-7"})) == Followers("author-7")


# Fuzz: whatever comes, it is an update or it is refused.

Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
Fields = st.sampled_from([*VALID, "audience", "priority", "version", "metadata", "other"])
Audiences = st.fixed_dictionaries({}, optional={"users": Json, "followers": Json, "feed": Json})
Contents = st.fixed_dictionaries(
    {"id": st.text(max_size=140) | Json}, optional={"rank": Json, "x": Json}
)


def judge(payload: bytes) -> None:
    try:
        update, items = parse_update(payload, now_microseconds=NOW_MICROSECONDS)
        named = recipients(update)
    except UpdateRefused:
        return
    names = [named.actor] if isinstance(named, Followers) else named or []
    assert all(map(is_id, names))
    assert items
    assert all(is_id(item.id) and json.loads(item.body)["id"] == item.id for item in items)


@given(payload=st.binary(max_size=200))
def test_random_bytes_only_refuse(payload: bytes) -> None:
    """Nothing but UpdateRefused comes out."""
    judge(payload)


@given(
    changed=st.dictionaries(Fields, Json | Audiences | Contents | st.lists(Contents), max_size=3)
)
def test_random_fields_only_refuse(changed: dict[str, Any]) -> None:
    """A valid update with other values in some fields."""
    judge(json.dumps(VALID | changed).encode())


@given(data=st.data())
def test_damaged_updates_only_refuse(data: st.DataObject) -> None:
    """A valid update of which some bytes are others, missing or doubled."""
    whole = VALID | {"metadata": {"source": "é"}, "version": 1, "priority": "low"}
    payload = bytearray(json.dumps(whole, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(payload)))
        end = data.draw(st.integers(start, min(len(payload), start + 6)))
        payload[start:end] = data.draw(
            st.binary(max_size=4) | st.just(bytes(payload[start:end]) * 2)
        )
    judge(bytes(payload))
