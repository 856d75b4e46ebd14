"""Which tokens a revocation covers."""

import pytest

from livefeed.access import Principal, principal_of
from livefeed.errors import AccessRefused
from livefeed.revocation import Revocation, Revocations

NOW = 1_000.5


def principal(user: str = "alice", token_id: str = "t1", issued_at: float = 900.0) -> Principal:
    return Principal(user, ("*",), 2_000.0, token_id, issued_at)


@pytest.mark.parametrize(
    ("revocation", "holder", "covered"),
    [
        (Revocation("user", "alice", NOW, 2_000), principal(), True),
        (Revocation("user", "alice", NOW, 2_000), principal("bob"), False),
        (Revocation("user", "alice", NOW, 2_000), principal(issued_at=1_000), True),  # that second
        (Revocation("user", "alice", NOW, 2_000), principal(issued_at=1_001), False),
        (Revocation("user", "alice", NOW, 2_000), principal(issued_at=0), True),  # does not say
        (Revocation("user", "alice", NOW, NOW), principal(), False),  # over
        (Revocation("token", "t1", NOW, 2_000), principal(), True),
        (Revocation("token", "t1", NOW, 2_000), principal(issued_at=1_001), True),
        (Revocation("token", "t1", NOW, 2_000), principal(token_id="t2"), False),
        (Revocation("token", "t1", NOW, NOW), principal(), False),
        # The name of a user is none of a token.
        (Revocation("token", "alice", NOW, 2_000), principal(token_id=""), False),
        (Revocation("user", "t1", NOW, 2_000), principal(), False),
    ],
)
def test_what_is_covered(revocation: Revocation, holder: Principal, *, covered: bool) -> None:
    """By the token's id, or by the user and when the token was issued."""
    revocations = Revocations()
    assert revocations.learn([revocation])
    assert revocations.covers(holder, NOW) is covered


def test_news_is_what_says_more() -> None:
    """The same again, or an older one, is no news and changes nothing."""
    revocations = Revocations()
    newer = Revocation("user", "alice", NOW, 2_000)
    assert revocations.learn([newer])
    assert not revocations.learn([newer, newer._replace(revoked_at=NOW - 10)])
    assert revocations.covers(principal(issued_at=NOW - 5), NOW)
    assert revocations.learn([newer._replace(revoked_at=NOW + 10)])


def test_what_is_over_is_forgotten() -> None:
    """Nothing stays for ever."""
    revocations = Revocations()
    revocations.learn(Revocation("token", f"t{number}", 0, number) for number in range(100))
    revocations.forget(49)
    assert len(revocations) == 50


@pytest.mark.parametrize("wrong", [{"jti": 7}, {"jti": "a\n"}, {"iat": "1"}, {"iat": True}])
def test_claims_that_cannot_be_revoked_are_refused(wrong: dict[str, object]) -> None:
    """A token's id is an id, the time it was issued a number."""
    with pytest.raises(AccessRefused):
        principal_of({"sub": "alice", "exp": 2e9, **wrong}, feeds_default=["*"])


def test_claims_become_what_is_revoked_by() -> None:
    """`jti` and `iat`, or nothing."""
    found = principal_of({"sub": "a", "exp": 2e9, "jti": "t1", "iat": 5}, feeds_default=["*"])
    assert (found.token_id, found.issued_at) == ("t1", 5.0)
    found = principal_of({"sub": "a", "exp": 2e9}, feeds_default=["*"])
    assert (found.token_id, found.issued_at) == ("", 0.0)
