"""The keys of a JWKS: which are used, when they are read again, and what happens without them."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from livefeed.adapters import key_server
from livefeed.adapters.key_server import key_reader
from livefeed.adapters.key_set import KeySet
from livefeed.adapters.tokens import TokenVerifier, keys_of
from livefeed.errors import AccessRefused, Misconfigured, Unavailable
from livefeed.limits import KEYS_BYTES_MAX, KEYS_PAUSE_SECONDS, KEYS_SECONDS_MAX
from livefeed.settings import load_settings
from tests.key_server import KeyServer, ed25519_key, jwk, jwks, rsa_key, signed
from tests.servers import Stack, until

OLD, NEW, STRANGER = rsa_key("old"), rsa_key("new"), rsa_key("stranger")


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    """A server that has the old key."""
    async with KeyServer(jwks(jwk(OLD, "old"))).serving() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
async def keys(server: KeyServer, clock: Clock) -> KeySet:
    """Keys that were read once."""
    keys = KeySet(key_reader(server.url, "RS256"), clock=clock)
    await keys.refresh()
    return keys


async def test_a_rotated_key_is_found_and_made_up_ones_cost_nothing(
    server: KeyServer, clock: Clock, keys: KeySet
) -> None:
    """The first unknown `kid` has the keys read; the thousand after it do not, for a while."""
    server.body = jwks(jwk(OLD, "old"), jwk(NEW, "new"))
    both = await asyncio.gather(*(keys.key("new") for _ in range(20)))
    assert server.requests == 2, "all who wait share one read"
    assert len(set(map(id, both))) == 1
    for number in range(1000):
        with pytest.raises(AccessRefused):
            await keys.key(f"made-up-{number}")
    assert server.requests == 2
    clock.now += KEYS_PAUSE_SECONDS
    server.body = jwks(jwk(NEW, "new"))
    with pytest.raises(AccessRefused):
        await keys.key("made-up")
    assert server.requests == 3
    with pytest.raises(AccessRefused):
        await keys.key("old")


async def test_keys_are_kept_while_their_server_is_away(
    server: KeyServer, clock: Clock, keys: KeySet
) -> None:
    """For a day; what is not known then is not refused for ever but unavailable."""
    server.status = "503 Service Unavailable"
    await keys.refresh()
    clock.now += KEYS_SECONDS_MAX - 1
    assert await keys.key("old")
    with pytest.raises(Unavailable):
        await keys.key("new")
    clock.now += 1
    with pytest.raises(Unavailable):
        await keys.key("old")
    server.status = "200 OK"
    clock.now += KEYS_PAUSE_SECONDS
    assert await keys.key("old"), "it is back, and nobody had to ask for it"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ({"status": "404 Not Found"}, "answered 404"),
        ({"status": "302 Found", "headers": "Location: /other\r\n"}, "answered 302"),
        ({"body": b"<html>"}, "no JWKS"),
        ({"body": b"[" * 100_000}, "no JWKS"),
        ({"body": b'{"keys": {"a": 1}}'}, "no public key"),
        ({"body": jwks()}, "no public key"),
        ({"body": b" " * (KEYS_BYTES_MAX + 1)}, "larger than"),
        ({"delay": 5.0}, "took longer"),
    ],
)
async def test_an_answer_that_is_none_changes_nothing(
    server: KeyServer,
    keys: KeySet,
    answer: dict[str, Any],
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The keys stay, and why is said."""
    if "delay" in answer:
        monkeypatch.setattr(key_server, "KEYS_FETCH_SECONDS_MAX", 0.3)
    for name, value in answer.items():
        setattr(server, name, value)
    await keys.refresh()
    assert keys.fault is not None
    assert fault in keys.fault
    assert await keys.key("old")


async def test_keys_may_be_in_a_file(tmp_path: Path) -> None:
    """As a sidecar writes them; one that is missing is a server that is away."""
    path = tmp_path / "keys.json"
    keys = KeySet(key_reader(str(path), "EdDSA"), clock=time.monotonic)
    await keys.refresh()
    assert "keys.json" in str(keys.fault)
    key = ed25519_key("one")
    path.write_bytes(jwks(jwk(key, "one")))
    settings = load_settings(jwt_algorithm="EdDSA", jwks_url=str(path))
    verifier = TokenVerifier(settings, keys)
    # The only key is for tokens without a `kid`, too.
    for token in (signed(key, "one"), signed(key)):
        assert (await verifier.verify(token))["sub"] == "alice"


@pytest.mark.parametrize(
    "changes",
    [
        {"alg": "RS512"},
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"d": "AQAB"},
        {"kid": 7},
        {"n": None},
        {"n": "!"},
        {"kty": "oct", "k": "c2VjcmV0" * 10},
        {"kty": "EC", "crv": "P-256"},
    ],
)
def test_keys_that_are_for_something_else_are_passed_over(changes: dict[str, Any]) -> None:
    """A key is for the configured algorithm or for nothing: no key is guessed to be another's."""
    document = jwks(jwk(OLD, "old", **changes), jwk(NEW, "new"))
    assert set(keys_of(document, "RS256")) == {"new"}


def test_short_and_foreign_keys_are_passed_over() -> None:
    """1,024 bits are too few, and an Ed25519 key is none of RSA's."""
    document = jwks(jwk(rsa_key("short", 1024), "short"), jwk(ed25519_key("one"), "one"))
    with pytest.raises(ValueError, match="no public key for RS256"):
        keys_of(document, "RS256")
    assert set(keys_of(document, "EdDSA")) == {"one"}


async def test_the_gateway_follows_a_rotation(stack: Stack, server: KeyServer) -> None:
    """Whoever signs with the new key comes in at once, whoever signs with none of ours never."""
    stack.settings |= {"jwt_algorithm": "RS256", "jwks_url": server.url}
    server.status = "503 Service Unavailable"
    gateway = await stack.start_gateway(wait=False)
    async with httpx.AsyncClient() as client:

        async def status(token: str) -> int:
            headers = {"Authorization": f"Bearer {token}"}
            url = f"{gateway.url}/v1/feeds/home"
            return (await client.get(url, headers=headers)).status_code

        await until(lambda: "are kept" in gateway.output(), seconds=20, what="the keys were missed")
        assert (await client.get(f"{gateway.ops_url}/readyz")).status_code == 503
        server.status = "200 OK"
        assert await status(signed(OLD, "old")) == 200, "the first that needs a key has it read"
        await gateway.ready()
        assert await status(signed(STRANGER, "old")) == 401
        server.status = "503 Service Unavailable"
        assert await status(signed(OLD, "old")) == 200
        assert "Traceback" not in gateway.output()


@pytest.mark.parametrize(
    "settings",
    [
        {"jwks_url": "https://keys.example/", "jwt_algorithm": "HS256"},
        {"jwks_url": "http://keys.example/", "jwt_algorithm": "RS256"},
        {"jwks_url": "http://127.0.0.1.example/", "jwt_algorithm": "RS256"},
        {"jwks_url": "file:///keys.json", "jwt_algorithm": "RS256"},
        {"jwks_url": "https://", "jwt_algorithm": "RS256"},
        {"jwks_url": "keys.json", "jwt_public_key": "key.pem", "jwt_algorithm": "RS256"},
    ],
)
def test_where_keys_may_not_come_from(settings: dict[str, Any]) -> None:
    """Neither from a place that others can write to, nor from two."""
    with pytest.raises(Misconfigured):
        load_settings(**settings)
