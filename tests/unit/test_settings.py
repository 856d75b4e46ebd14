"""The settings of servers: what is refused, and how it is said."""

from __future__ import annotations

import pytest

from livefeed.cli.config import SECRETS, URLS, _shown
from livefeed.errors import Misconfigured
from livefeed.limits import REPLICAS_MAX
from livefeed.settings import Settings, load_settings

URL = "postgresql://livefeed:hush@db{}:5432/livefeed"


def test_a_seed_is_never_shown() -> None:
    """The NKEY of a process is as secret as a password; its inbox prefix is a part of subjects."""
    settings = load_settings(nats_nkey_seed="SUHUSH", nats_inbox_prefix="_INBOX_gateway")
    assert "HUSH" not in repr(settings)
    assert "HUSH" not in repr(settings.nats_access)
    assert settings.nats_access.inbox_prefix == "_INBOX_gateway"
    for prefix in ("", "a.b", "a*", ">", "a b"):
        with pytest.raises(Misconfigured, match="LIVEFEED_NATS_INBOX_PREFIX"):
            load_settings(nats_inbox_prefix=prefix)


def test_what_is_hidden_in_settings_is_hidden_by_config() -> None:
    """`livefeed config` shows no secret: neither whole, nor inside a URL."""
    hidden = {name for name, field in Settings.model_fields.items() if field.repr is False}
    assert hidden <= SECRETS | URLS
    assert "HUSH" not in str(_shown("nats_nkey_seed", "SUHUSH"))


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("nats_url", "nats://a:HUSH@h1,tls://b:HUSH@h2:1", "nats://a:***@h1,tls://b:***@h2:1"),
        ("nats_url", "nats://HUSH@h1, h2:4222", "nats://***@h1,h2:4222"),
        ("nats_url", "nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("database_url", "postgresql://u@h/d?a=1&password=HUSH", "postgresql://u@h/d?a=1&password=***"),
        ("database_url", "postgresql://u:HUSH@h1,h2:1/d", "postgresql://u:***@h1,h2:1/d"),
        ("database_url", "postgresql://h/d?sslpassword=HUSH&b=2", "postgresql://h/d?sslpassword=***&b=2"),
        ("redis_url", "redis://:HUSH@h:1/0", "redis://:***@h:1/0"),
    ],
)  # fmt: skip
def test_urls_are_shown_without_passwords(name: str, value: str, shown: str) -> None:
    """Of each server, and also where the password is a parameter or a token."""
    assert _shown(name, value) == shown


def test_replicas_come_as_a_json_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them by default; up to the most."""
    assert load_settings().replica_urls == []
    urls = [URL.format(number) for number in range(REPLICAS_MAX)]
    monkeypatch.setenv("LIVEFEED_REPLICA_URLS", "[" + ",".join(f'"{url}"' for url in urls) + "]")
    assert load_settings().replica_urls == urls


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            {"replica_urls": [URL.format(number) for number in range(REPLICAS_MAX + 1)]},
            "LIVEFEED_REPLICA_URLS: List should have at most 5 items",
        ),
        ({"replica_urls": ["http://u:hush@db"]}, "LIVEFEED_REPLICA_URLS must start with postgres"),
        ({"replica_urls": [URL.format(1)] * 2}, "LIVEFEED_REPLICA_URLS names a replica twice"),
        ({"database_url": "db1"}, "LIVEFEED_DATABASE_URL must start with postgresql://"),
        (
            {"database_wait_seconds": 3, "database_timeout_seconds": 3},
            "LIVEFEED_DATABASE_WAIT_SECONDS must be less than LIVEFEED_DATABASE_TIMEOUT_SECONDS",
        ),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, object], reason: str) -> None:
    """By the name of the setting, without its value."""
    with pytest.raises(Misconfigured) as refused:
        load_settings(**given)
    assert reason in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache",
        "redis://cache:6379/0",
        "redis://:hush@cache:6379/15",
        "redis://livefeed:hu%2Fs%23h@[::1]:6379",
        "rediss://livefeed:hush@cache/1?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=no",
        "unix:///run/redis/redis.sock",
        "unix://livefeed:hush@/run/redis/redis.sock?db=3",
    ],
)
def test_a_redis_has_a_url(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """None by default; nobody is shown a password."""
    assert load_settings().redis_url is None
    monkeypatch.setenv("LIVEFEED_REDIS_URL", url)
    settings = load_settings()
    assert settings.redis_url == url
    assert "redis_url" not in repr(settings)
    shown = _shown("redis_url", url)
    assert "hu" not in shown
    assert ("***" in shown) == ("hu" in url)
    assert shown.rpartition("@")[2] == url.rpartition("@")[2]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://:hush@cache", "must start with redis://, rediss:// (TLS) or unix://"),
        ("cache:6379", "must start with redis://"),
        ("", "must start with redis://"),
        ("redis://", "has no host"),
        ("redis://:hush@/0", "has no host"),
        ("redis://:hush/hush@cache", "has no host"),
        (
            "redis://u:hush/hush@cache",
            "has no host and port that can be read (in a password, write",
        ),
        ("redis://u:1/hush@cache", "must end with the number of a database"),
        ("redis://:hu#hush@cache", "has no host"),
        ("redis://cache#hush", "has a # in it"),
        ("redis://cache:port", "has no host and port"),
        ("redis://cache:99999", "has no host and port"),
        ("redis://[hush", "has no host and port"),
        ("redis://cache/hush", "must end with the number of a database"),
        ("redis://cache/-1", "must end with the number of a database"),
        ("redis://cache/0/1", "must end with the number of a database"),
        ("unix:///run/redis.sock?db=hush", "must end with the number of a database"),
        ("redis://hush@cache", "has a user without a password"),
        ("redis://cache?password=hush", "may have no other parameters than db"),
        ("redis://cache?socket_timeout=600", "may have no other parameters than db"),
        ("redis://cache?ssl_ca_certs=/hush", "may have no other parameters than db"),
        ("rediss://cache?max_connections=600", "ssl_ca_certs, ssl_cert_reqs, ssl_certfile"),
        ("unix://run/redis/redis.sock", "such as unix:///run/redis/redis.sock"),
        ("unix://", "such as unix:///run/redis/redis.sock"),
    ],
)
def test_a_url_that_is_no_redis_is_refused(url: str, reason: str) -> None:
    """By the name of the setting, with what is wrong and none of the URL's text."""
    with pytest.raises(Misconfigured) as refused:
        load_settings(redis_url=url)
    told = str(refused.value)
    assert told.startswith("LIVEFEED_REDIS_URL ")
    assert reason in told
    assert "hush" not in told
    chain = refused.value.__cause__
    assert "hush" not in str(chain)


def test_every_server_of_the_settings_is_shown_without_its_password() -> None:
    """By `livefeed config`; a new URL has to be known there."""
    public = {"nats_monitor_url", "jwks_url"}
    names = {name for name in Settings.model_fields if name.endswith(("_url", "_urls"))}
    assert names == URLS | public
