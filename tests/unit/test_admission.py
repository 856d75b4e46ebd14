"""Who may come in: rates, caps, addresses."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livefeed.admission import (
    RETRY_AFTER_SECONDS,
    Counts,
    Session,
    TokenBucket,
    address_key,
    client_address,
    retry_after_seconds,
    surplus,
)
from livefeed.control import GatewayCount, Revoked, SessionsAnswer, decode, encode
from livefeed.errors import Misconfigured
from livefeed.limits import FLEET_CONNECTIONS_MAX
from livefeed.protocol import ERRORS
from livefeed.settings import load_settings

PROXIES = (ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"))


def test_a_bucket_lets_a_burst_and_then_a_rate_through() -> None:
    """40 at once, then 20 a second, and never more than 40 after a silence."""
    bucket = TokenBucket(20, 40, 0.0)
    assert [bucket.take(0.0) for _ in range(41)] == [True] * 40 + [False]
    assert [bucket.take(0.5) for _ in range(11)] == [True] * 10 + [False]
    assert sum(bucket.take(1e6) for _ in range(100)) == 40


def test_a_clock_that_goes_back_gives_nothing() -> None:
    """Neither a token nor a debt."""
    bucket = TokenBucket(1, 1, 100.0)
    assert bucket.take(100.0)
    assert not bucket.take(0.0)
    assert bucket.take(1.0)


@given(times=st.lists(st.floats(0, 100), max_size=200))
def test_a_bucket_never_lets_more_through_than_it_may(times: list[float]) -> None:
    """In any time from the start: the burst, and the rate times that time."""
    bucket, passed = TokenBucket(2, 5, 0.0), 0
    for now in sorted(times):
        passed += bucket.take(now)
        assert passed <= 5 + 2 * now + 1e-6


@given(steps=st.lists(st.tuples(st.floats(0, 50), st.floats(0, 3)), max_size=50))
def test_a_bucket_counts_what_each_costs(steps: list[tuple[float, float]]) -> None:
    """What passed is at most the burst and the rate times the time, whatever each cost."""
    bucket, now, passed = TokenBucket(10, 100, 0.0), 0.0, 0.0
    for cost, wait in steps:
        now += wait
        passed += cost if bucket.take(now, cost) else 0
        assert passed <= 100 + 10 * now + 1e-6


@given(names=st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=50))
def test_counts_remember_only_what_is_there(names: list[tuple[bool, str]]) -> None:
    """Like a bag; a name that nobody has takes no room."""
    counts, model = Counts(), dict.fromkeys("abc", 0)
    for comes, name in names:
        if comes:
            counts.add(name)
            model[name] += 1
        elif model[name]:
            counts.remove(name)
            model[name] -= 1
    assert {name: counts.of(name) for name in "abc"} == model
    assert len(counts) == sum(count > 0 for count in model.values())


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # Who is no proxy of ours writes what it likes.
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("192.0.2.1", ["10.0.0.5"], "192.0.2.1"),
        # What our proxy saw is what counts, not what its client claimed further left.
        ("10.0.0.5", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.5", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.5", ["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
        # Two proxies of ours, one behind the other.
        ("10.0.0.5", ["198.51.100.7, 10.1.1.1"], "198.51.100.7"),
        ("10.0.0.5", ["10.2.2.2, 10.1.1.1"], "10.2.2.2"),
        # Nothing, junk, ports, IPv6.
        ("10.0.0.5", [], "10.0.0.5"),
        ("10.0.0.5", ["198.51.100.7, unknown"], "10.0.0.5"),
        ("10.0.0.5", [""], "10.0.0.5"),
        ("10.0.0.5", ["198.51.100.7:4711"], "198.51.100.7"),
        ("::ffff:10.0.0.5", ["198.51.100.7"], "198.51.100.7"),
        ("2001:db8:1::5", ["[2001:db8:2::7]:4711"], "2001:db8:2::7"),
        ("", ["198.51.100.7"], ""),
    ],
)
def test_the_client_is_the_right_most_hop_that_is_not_ours(
    peer: str, forwarded: list[str], client: str
) -> None:
    """No client gets another's address by writing a header."""
    assert client_address(peer, forwarded, PROXIES) == client


def test_without_trusted_proxies_nothing_is_believed() -> None:
    """The header of the default configuration's peers is ignored."""
    assert client_address("10.0.0.5", ["198.51.100.7"], ()) == "10.0.0.5"


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("2001:db8:2::7", "2001:db8:2::/64"),
        ("2001:db8:2::8", "2001:db8:2::/64"),
        ("127.0.0.1", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("", None),
        ("unknown", None),
    ],
)
def test_under_which_name_an_address_is_counted(address: str, key: str | None) -> None:
    """A /64 of IPv6 is one; this computer itself is none."""
    assert address_key(address) == key


def test_the_oldest_sessions_are_too_many() -> None:
    """Wherever they are, and each counts once however often it was heard of."""
    sessions = [Session(float(at), name) for at, name in [(3, "c"), (1, "a"), (2, "b"), (2, "a2")]]
    assert surplus(sessions + sessions, 2) == [Session(1.0, "a"), Session(2.0, "a2")]
    assert surplus(sessions, 4) == []


@given(code=st.sampled_from(sorted(RETRY_AFTER_SECONDS)), chance=st.floats(0, 1))
def test_a_refused_client_waits_as_long_as_the_table_says(code: str, chance: float) -> None:
    """At least a second, and every code is explained."""
    least, most = RETRY_AFTER_SECONDS[code]
    assert 1 <= least <= retry_after_seconds(code, chance) <= most
    assert code in ERRORS


def test_networks_of_proxies_are_checked_at_the_start() -> None:
    """With the setting's name."""
    assert load_settings(trusted_proxies=["10.0.0.0/8"]).proxy_networks == (PROXIES[0],)
    with pytest.raises(Misconfigured, match="LIVEFEED_TRUSTED_PROXIES"):
        load_settings(trusted_proxies=["10.0.0.1/8"])


def test_what_a_gateway_says_of_itself_is_heard() -> None:
    """As it was said, up to the bound."""
    count = GatewayCount("a", FLEET_CONNECTIONS_MAX, draining=True)
    assert decode(encode(count), GatewayCount) == count


@pytest.mark.parametrize(
    "number", ["-1", "1.5", "NaN", "1e999", str(FLEET_CONNECTIONS_MAX + 1), "1" + 400 * "0"]
)
def test_a_number_that_cannot_be_is_not_heard(number: str) -> None:
    """JSON's numbers have any length, and what is calculated with them would raise."""
    assert decode(b'{"gateway": "a", "connections": %s}' % number.encode(), GatewayCount) is None


@pytest.mark.parametrize("time", ["NaN", "1e999", "1" + 400 * "0"])
def test_a_time_that_cannot_be_is_not_heard(time: str) -> None:
    """Of a session or a revocation."""
    assert decode(b'{"users": {"a": [[%s, "c"]]}}' % time.encode(), SessionsAnswer) is None
    assert decode(b'{"revocations": [["user", "a", %s, 5]]}' % time.encode(), Revoked) is None


def test_what_is_too_deep_is_not_heard() -> None:
    """Nested beyond what the stack takes."""
    assert decode(b'{"a":' * 100_000, GatewayCount) is None
