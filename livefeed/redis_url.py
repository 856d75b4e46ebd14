"""The URL of a Redis: what it may say.

Errors have nothing of its text in them, for a password may be anywhere in a URL that is wrong.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlsplit

SCHEMES: Final = ("redis", "rediss", "unix")
DATABASE_PARAMETER: Final = "db"
TLS_PARAMETERS: Final = frozenset(
    {"ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"}
)
ESCAPES: Final = "in a password, write / as %2F, ? as %3F, # as %23 and % as %25"


def check_redis_url(url: str) -> None:
    """Check that a URL names a server, a database, and nothing that would change our bounds.

    Raises:
        ValueError: Saying what is wrong.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        # Their text has the URL's in it.
        raise ValueError(f"has no host and port that can be read ({ESCAPES})") from None
    if parts.scheme not in SCHEMES:
        raise ValueError("must start with redis://, rediss:// (TLS) or unix://")
    if parts.scheme == "unix" and (host or not parts.path.strip("/")):
        raise ValueError("must name a socket's whole path, such as unix:///run/redis/redis.sock")
    if parts.scheme != "unix" and not host:
        raise ValueError(f"has no host ({ESCAPES})")
    if parts.fragment:
        raise ValueError(f"has a # in it ({ESCAPES})")
    if parts.username and not parts.password:
        raise ValueError("has a user without a password; a password alone is redis://:PASSWORD@…")
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = {DATABASE_PARAMETER} | (TLS_PARAMETERS if parts.scheme == "rediss" else set())
    if not parameters.keys() <= known:
        raise ValueError(f"may have no other parameters than {', '.join(sorted(known))}")
    path = parts.path.strip("/") if parts.scheme != "unix" else ""
    if not all(_is_number(database) for database in (path, parameters.get("db", "")) if database):
        raise ValueError(f"must end with the number of a database, or with none ({ESCAPES})")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
