"""Who a token's holder is, and what they may follow."""

from typing import Any

import pytest

from livefeed.access import principal_of
from livefeed.errors import AccessRefused


def claims(**changes: Any) -> dict[str, Any]:
    """Claims of a good token, with changes."""
    return {"sub": "alice", "exp": 2e9, **changes}


@pytest.mark.parametrize(
    ("feeds", "feed", "allowed"),
    [
        (["home"], "home", True),
        (["home"], "homes", False),
        (["news-*"], "news-sport", True),
        (["news-*"], "news", False),
        (["*"], "anything", True),
        ([], "home", False),
    ],
)
def test_the_claim_limits_the_feeds(feeds: list[str], feed: str, *, allowed: bool) -> None:
    """A feed is allowed by its name or by a prefix."""
    assert principal_of(claims(feeds=feeds), feeds_default=["*"]).may_follow(feed) is allowed


def test_a_token_without_the_claim_has_the_default() -> None:
    """The setting decides, not the absence."""
    principal = principal_of(claims(), feeds_default=["home"])
    assert principal.may_follow("home")
    assert not principal.may_follow("other")


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": None},
        {"sub": 7},
        {"sub": ""},
        {"sub": "a\n"},
        {"sub": "a" * 129},
        {"feeds": "home"},
        {"feeds": None},
        {"feeds": [7]},
        {"feeds": ["Home"]},
        {"feeds": ["a*b"]},
        {"feeds": ["home"] * 257},
        {"exp": None},
        {"exp": True},
        {"exp": "2000000000"},
        {"exp": 1e308},
        {"exp": float("nan")},
        {"exp": -1},
        {"iat": "1"},
        {"iat": True},
        {"iat": [1]},
        {"jti": 7},
        {"jti": "a" * 129},
        {"jti": "a\0"},
    ],
)
def test_claims_of_the_wrong_form_are_refused(changes: dict[str, Any]) -> None:
    """Nothing is guessed."""
    with pytest.raises(AccessRefused):
        principal_of(claims(**changes), feeds_default=["*"])


def test_a_principal_can_be_told_from_an_older_one() -> None:
    """The token's id and its time of issue are kept; a token without them has none."""
    principal = principal_of(claims(jti="t1", iat=1_900_000_000), feeds_default=["*"])
    assert (principal.token_id, principal.issued_at) == ("t1", 1.9e9)
    principal = principal_of(claims(), feeds_default=["*"])
    assert (principal.token_id, principal.issued_at) == ("", 0.0)


@pytest.mark.parametrize("user", ["*", ">", "a.*", "feed.>", "ä", "a b"])
def test_any_plain_text_is_a_user(user: str) -> None:
    """Wildcards are letters here; they never reach a subject raw."""
    assert principal_of(claims(sub=user), feeds_default=["*"]).user_id == user
