"""Subjects, channels and tokens: no id can ever reach somebody else's name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livefeed import channel, subjects
from livefeed.identity import is_feed, is_id, is_update_id, token

Ids = st.text(min_size=1, max_size=128).filter(is_id)
TOKEN_CHARACTERS = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~")


def matches(pattern: str, subject: str) -> bool:
    """Whether a NATS subject matches a subscription."""
    wanted, given_tokens = pattern.split("."), subject.split(".")
    for number, word in enumerate(wanted):
        if word == ">":
            return len(given_tokens) > number
        if number >= len(given_tokens) or word not in {"*", given_tokens[number]}:
            return False
    return len(wanted) == len(given_tokens)


@given(one=Ids, other=Ids)
def test_a_users_subject_never_matches_anothers(one: str, other: str) -> None:
    """Subscribing for one user gives the messages of that user alone."""
    assert matches(subjects.live_user(one), subjects.live_user(other)) == (one == other)


@given(identifier=Ids)
def test_a_token_is_one_plain_word(identifier: str) -> None:
    """Whatever is in an id, its token is short and has harmless characters only."""
    assert set(token(identifier)) <= TOKEN_CHARACTERS
    assert len(token(identifier)) <= 128


@pytest.mark.parametrize(
    "identifier", ["*", ">", "a.*", "a.b", "a b", "$SYS", "ä", "a" * 128, "~x"]
)
def test_dangerous_ids_become_harmless_tokens(identifier: str) -> None:
    """Wildcards, dots and blanks of an id are not in its token."""
    assert not set(token(identifier)) & set("*>. $")


@pytest.mark.parametrize("identifier", ["", "a" * 129, "a\n", "\0", "a\x7f", "\u0085", "\ud800"])
def test_these_are_no_ids(identifier: str) -> None:
    """Empty, too long, or with control characters."""
    assert not is_id(identifier)


@pytest.mark.parametrize("name", ["", "Home", "-a", "a.b", "a*", "a\n", "a" * 65, "ä", "a b"])
def test_these_are_no_feeds(name: str) -> None:
    """A feed's name is lower case letters, digits, dash and underscore."""
    assert not is_feed(name)


@pytest.mark.parametrize("text", ["", "a b", "a\n", "a" * 129, "ä", "\x7f"])
def test_these_are_no_update_ids(text: str) -> None:
    """An update id becomes a NATS header: printable ASCII without blanks."""
    assert not is_update_id(text)


@pytest.mark.parametrize(
    ("subject", "priority"),
    [
        ("feed.updates.high.posts", "high"),
        ("feed.updates.low.a.b", "low"),
        ("feed.updates.medium.x", "medium"),
        ("feed.updates.posts", "medium"),
        ("feed.updates.high", "medium"),
    ],
)
def test_the_priority_of_a_subject(subject: str, priority: str) -> None:
    """A subject without a priority is read as medium; `high` alone is a source of that name."""
    assert subjects.priority_of(subject) == priority
    assert any(matches(pattern, subject) for pattern in subjects.updates_filters(priority))  # type: ignore[arg-type]


def test_each_subject_has_one_reader() -> None:
    """No update is read by two priorities' consumers."""
    for subject in ("feed.updates.high.a", "feed.updates.low.a.b", "feed.updates.x"):
        readers = [
            lane
            for lane in subjects.LANES
            for pattern in subjects.updates_filters(lane)
            if matches(pattern, subject)
        ]
        assert readers == [subjects.priority_of(subject)]


@given(user=Ids, feed=st.sampled_from(["home", "a-b", "x_1"]))
def test_a_channel_is_read_back(user: str, feed: str) -> None:
    """Owner, feed and the client's name come back from a channel, whatever is in the user's id."""
    name = channel.user_channel(user, feed)
    assert channel.owner_of(name) == f"user:{user}"
    assert channel.feed_of(name) == feed
    assert channel.client_name(name) == f"me/{feed}"
    assert channel.from_client_name(f"me/{feed}", user) == name
    topic = channel.topic_channel(feed)
    assert channel.from_client_name(channel.client_name(topic), user) == topic
    assert channel.owner_of(topic) == topic


@pytest.mark.parametrize("name", ["user:bob/home", "me/", "me", "you/home", "me/a/b", "all/*", ""])
def test_a_client_cannot_name_what_is_not_its_own(name: str) -> None:
    """Only `me/<feed>` and `all/<feed>` mean anything."""
    assert channel.from_client_name(name, "alice") is None


@given(gateway=st.from_regex(r"[0-9a-f]{12}", fullmatch=True))
def test_a_gateways_own_subject_is_answered(gateway: str) -> None:
    """What a question names as its reply subject is what the others take."""
    assert subjects.answers_sessions(subjects.control_sessions(gateway).encode())


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"feed.control.sessions",
        b"feed.control.sessions.",
        b"feed.control.sessions.*",
        b"feed.control.sessions.>",
        b"feed.control.sessions.a.b",
        b"feed.control.sessions.a b",
        b"feed.control.sessions.\xff",
        b"feed.control.revocations",
        b"feed.users.a",
    ],
)
def test_nothing_else_is_answered(reply: bytes) -> None:
    """A question without a reply subject, or with another one, has a gateway publish nothing."""
    assert not subjects.answers_sessions(reply)
