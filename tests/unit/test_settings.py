"""The settings of the database: what is refused, and how it is said."""

from __future__ import annotations

import pytest

from livefeed.errors import Misconfigured
from livefeed.limits import REPLICAS_MAX
from livefeed.settings import load_settings

URL = "postgresql://livefeed:hush@db{}:5432/livefeed"


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
