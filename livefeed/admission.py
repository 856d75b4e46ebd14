"""Who may come in: rates, caps, and whose address a request has.

Pure: the clock is an argument. The gateway asks before it accepts a connection, and for each frame.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

RETRY_AFTER_SECONDS: Final[Mapping[str, tuple[int, int]]] = {
    "draining": (1, 2),
    "busy": (1, 5),
    "full": (5, 20),
    "too_many_connections": (5, 20),
    "unavailable": (1, 3),
}
"""By error code: the least and the most that a refused client is told to wait."""


def retry_after_seconds(code: str, chance: float) -> int:
    """How long a refused client is to wait: spread, so that those refused together come apart.

    Args:
        code: Of `RETRY_AFTER_SECONDS`.
        chance: 0..1, random.
    """
    least, most = RETRY_AFTER_SECONDS[code]
    return min(most, least + int(chance * (most - least + 1)))


class TokenBucket:
    """Lets through so much a second, and at once as much as was not used before.

    Args:
        rate: How much a second.
        burst: How much at once, after a silence.
        now: Seconds of any one clock.
    """

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def take(self, now: float, cost: float = 1) -> bool:
        """Whether one more may pass now, or what costs as much as several."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._left < cost:
            return False
        self._left -= cost
        return True


class Counts:
    """How many there are of each name; what nobody has is not remembered."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def of(self, name: str) -> int:
        """How many there are of a name."""
        return self._counts.get(name, 0)

    def add(self, name: str) -> None:
        """One more."""
        self._counts[name] = self._counts.get(name, 0) + 1

    def remove(self, name: str) -> None:
        """One less."""
        if self._counts[name] > 1:
            self._counts[name] -= 1
        else:
            del self._counts[name]


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Whose connection it is: the right-most address that no trusted proxy has.

    What stands further left was written by whoever that is, who may have made it up.

    Args:
        peer: The address at the other end of the socket.
        forwarded: The request's `X-Forwarded-For` headers.
        trusted: The networks of our own proxies.
    """
    hops = [hop for header in forwarded for hop in header.split(",")] if trusted else []
    client = peer
    while hops and (address := _address(client)) and any(address in one for one in trusted):
        hop = _bare(hops.pop())
        if _address(hop) is None:
            break  # What a proxy of ours did not write as an address counts as the proxy's.
        client = hop
    return client


def address_key(address: str) -> str | None:
    """Under which name an address is counted; None for one that is not.

    A household or a host has a whole /64 of IPv6. What comes over this computer's own loopback is
    not counted: it is a proxy that was not configured, and would be refused for all its clients.
    """
    parsed = _address(address)
    if parsed is None or parsed.is_loopback:
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return str(parsed)


class Session(NamedTuple):
    """One connection of a user, on whichever gateway."""

    opened_at: float
    """Seconds since 1970, by its gateway's clock."""
    connection: str
    """Its id, which decides between those of the same moment."""


def surplus(sessions: Iterable[Session], most: int) -> list[Session]:
    """The oldest sessions of a user that are too many, oldest first."""
    ordered = sorted(set(sessions))
    return ordered[: max(0, len(ordered) - most)]


def _bare(hop: str) -> str:
    """An address without its port: `192.0.2.1:80`, `[2001:db8::1]:80`."""
    hop = hop.strip()
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A socket that listens for both families shows IPv4 peers like this.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
