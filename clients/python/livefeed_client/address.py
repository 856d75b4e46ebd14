"""The addresses of a livefeed server, made of the one URL that a caller gives."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import SplitResult, urlencode, urlsplit

WEBSOCKET_PATH: Final = "/v1/ws"


def websocket_url(url: str, feeds: Sequence[str]) -> str:
    """The address of the WebSocket for a server's URL, following these feeds at once."""
    parts = _split(url, {"http": "ws", "https": "wss"})
    query = urlencode({"feeds": ",".join(feeds)}, safe=",") if feeds else ""
    return parts._replace(path=parts.path + WEBSOCKET_PATH, query=query).geturl()


def http_url(url: str) -> str:
    """The address of the HTTP interface for a server's URL."""
    return _split(url, {"ws": "http", "wss": "https"}).geturl()


def is_local(url: str) -> bool:
    """Whether a URL names this computer's loopback."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(url: str, schemes: Mapping[str, str]) -> SplitResult:
    parts = urlsplit(url)
    scheme = schemes.get(parts.scheme, parts.scheme)
    if scheme not in {"ws", "wss", "http", "https"} or not parts.hostname:
        raise ValueError(f"expected an http or ws URL of a livefeed server, not {url!r}")
    path = parts.path.removesuffix("/").removesuffix(WEBSOCKET_PATH)
    return SplitResult(scheme, parts.netloc, path, "", "")
