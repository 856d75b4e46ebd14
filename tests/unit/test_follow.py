"""The lines of `livefeed follow import`."""

import pytest

from livefeed.errors import Refused
from livefeed.follow import Follow, parse_follow


@pytest.mark.parametrize(
    ("line", "follow"),
    [
        (b"author-7,alice", Follow("author-7", "alice")),
        (b'"a,b","say ""hi"""', Follow("a,b", 'say "hi"')),
        ("ä/home,日本".encode(), Follow("ä/home", "日本")),
        (b'{"actor": "author-7", "follower": "alice"}', Follow("author-7", "alice")),
        (b'{"follower":"a,b","actor":"\\u00e4"}', Follow("ä", "a,b")),
        (b"a," + b"x" * 128, Follow("a", "x" * 128)),
    ],
)
def test_lines(line: bytes, follow: Follow) -> None:
    """CSV with or without quotes, and JSON."""
    assert parse_follow(line) == follow


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"alice", "expected actor,follower"),
        (b"a,b,c", "expected actor,follower"),
        (b",alice", "actor must have 1 to 128 characters"),
        (b"author-7,", "follower must have"),
        (b"a," + b"x" * 129, "follower must have"),
        (b"a,b\x07", "follower must have"),
        (b"a,\xff", "UTF-8"),
        (b'"a,b', "not CSV"),
        (b'"a"b,c', "not CSV"),
        (b'{"actor": "a"}', "missing required field `follower`"),
        (b'{"actor": "a", "follower": "b", "since": 1}', "since"),
        (b'{"actor": "a", "follower": 7}', "Expected `str`"),
        (b'{"actor": "a", "follower": "\\u0000"}', "follower must have"),
        (b'{"actor": "a", "follower": "\xff"}', "UTF-8"),
        (b'{"actor"', "truncated"),
        (b"{" * 100_000, "invalid_follow"),
    ],
)
def test_refused_lines(line: bytes, said: str) -> None:
    """What is no follow is refused with what was expected."""
    with pytest.raises(Refused) as refused:
        parse_follow(line)
    assert refused.value.code == "invalid_follow"
    assert said in str(refused.value)
