"""What is asked of the values of settings beyond what their fields say. Pure.

Each check raises ValueError with the names of the variables and without their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from livefeed.limits import CACHE_MEMORY_FRESH_SECONDS, CACHE_SHARED_FRESH_SECONDS


def check_key_source(location: str, *, has_public_key: bool) -> None:
    """Of where the public keys of tokens are."""
    if has_public_key:
        raise ValueError("set LIVEFEED_JWT_PUBLIC_KEY or LIVEFEED_JWKS_URL, not both")
    url = urlsplit(location)
    if url.scheme == "http" and url.hostname not in {"127.0.0.1", "::1", "localhost"}:
        # Whoever is on the way could put keys of their own there.
        raise ValueError("LIVEFEED_JWKS_URL must be https, or http on the loopback")
    if "://" in location and (url.scheme not in {"http", "https"} or not url.hostname):
        raise ValueError("LIVEFEED_JWKS_URL must be an https URL or the path of a file")


def check_database_urls(primary: str, replicas: Sequence[str]) -> None:
    """Of the servers of Postgres."""
    named = [("LIVEFEED_DATABASE_URL", primary)]
    named += [("each of LIVEFEED_REPLICA_URLS", url) for url in replicas]
    for name, url in named:
        if urlsplit(url).scheme not in {"postgresql", "postgres"}:
            raise ValueError(f"{name} must start with postgresql://")
    if len(set(replicas)) < len(replicas):
        raise ValueError("LIVEFEED_REPLICA_URLS names a replica twice")


def check_page_seconds(*, kept: float, fresh: float) -> None:
    """Of how long pages of feed sources are kept, and how long snapshots are fresh."""
    shared = CACHE_SHARED_FRESH_SECONDS / CACHE_MEMORY_FRESH_SECONDS * fresh
    if kept and (not shared or kept <= shared):
        raise ValueError(
            "LIVEFEED_FEED_SOURCE_PAGES_SECONDS must be 0, or more than five times "
            "LIVEFEED_SNAPSHOT_FRESH_SECONDS, which must not be 0"
        )
