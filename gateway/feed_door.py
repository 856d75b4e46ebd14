"""The door of snapshots: the bytes of a feed from the nearest place that has them, over HTTP.

What a client may rely on, and what is kept where, is docs/caching.md.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from gateway.door import feed_of
from gateway.log_reader import LogReader
from livefeed.adapters.cache.flight import Found
from livefeed.adapters.cache.levels import Levels
from livefeed.adapters.patience import patient_timeout
from livefeed.errors import Unavailable
from livefeed.limits import SNAPSHOT_AGE_SECONDS_MIN, SNAPSHOT_SECONDS_MAX

if TYPE_CHECKING:
    from gateway.app import Gateway

TAG_BYTES: Final = 12
"""Of the hash that stands before the body, in a cache and in an ETag."""
COMPRESSION: Final = 5
"""Of gzip; more costs time and saves little."""


class Query(Protocol):
    """Which page of a feed is asked for."""

    def key(self) -> str:
        """Equal for all who ask for the same."""
        ...


AnyQuery = TypeVar("AnyQuery", bound=Query)
Wanted = TypeVar("Wanted")


class Pages(Protocol[AnyQuery]):
    """Where pages come from: the log, or a feed source."""

    def parse(self, parameters: Mapping[str, str]) -> AnyQuery:
        """Read the parameters of a URL; raises Refused."""
        ...

    async def read(self, user_id: str, feed: str, query: AnyQuery) -> bytes:
        """The answer's JSON; raises Unavailable."""
        ...


class Snapshots:
    """A user's pages of feeds, each made once for all who ask while it is fresh.

    Args:
        levels: Where they are kept.
        reader: Knows the log's epoch, which is a part of each key.
        pages: Makes them.
        kept: Whether what is fresh is sent again; else each is made anew, while that goes.
    """

    def __init__(self, levels: Levels, reader: LogReader, pages: Pages[Any], *, kept: bool) -> None:
        self.levels: Final = levels
        self._reader: Final = reader
        self._pages: Final = pages
        self._kept: Final = kept

    async def get(
        self,
        user_id: str,
        feed: str,
        parameters: Mapping[str, str],
        age_max: float | None,
        *,
        ends_at: float,
    ) -> Found:
        """A page, as `pack` makes it.

        Args:
            user_id: Whose view of the feed.
            feed: The feed.
            parameters: Of the URL.
            age_max: How many seconds old the client wants it at the most.
            ends_at: When it is to be there, by the loop's clock.

        Raises:
            Refused: For the parameters.
            Unavailable: It cannot be had in time, and nobody has an old one.
            Overloaded: Too many are made already.
        """
        query = self._pages.parse(parameters)
        epoch = self._reader.epoch
        if epoch is None:  # Only the first requests of a gateway have to wait for it.
            epoch = await in_time(self._reader.known_epoch(), ends_at)

        async def load() -> bytes:
            return pack(await self._pages.read(user_id, feed, query))

        key = "\n".join((epoch, user_id, feed, query.key()))
        if age_max is not None:
            age_max = max(age_max, SNAPSHOT_AGE_SECONDS_MIN)
        return await self.levels.get(
            key,
            load,
            deadline_seconds=max(0.0, ends_at - asyncio.get_running_loop().time()),
            age_max=age_max if self._kept else 0.0,
        )


def pack(body: bytes) -> bytes:
    """A body as it is kept: its tag, and the body compressed."""
    tag = hashlib.blake2b(body, digest_size=TAG_BYTES).digest()
    # Without the time of day, so that the same body is the same bytes.
    return tag + gzip.compress(body, COMPRESSION, mtime=0)


async def in_time(wanted: Awaitable[Wanted], ends_at: float) -> Wanted:
    """What is waited for no longer than until a time of the loop's clock; raises Unavailable."""
    try:
        async with patient_timeout(ends_at - asyncio.get_running_loop().time()):
            return await wanted
    except TimeoutError as error:
        raise Unavailable("gateway", "what a page needs took too long") from error


async def feed_page(gateway: Gateway, request: Request, send: Send) -> None:
    """Answer `GET /v1/feeds/{feed}`, within one deadline for all that it takes."""
    ends_at = asyncio.get_running_loop().time() + SNAPSHOT_SECONDS_MAX
    user_id, feed = await in_time(_who_and_what(gateway, request), ends_at)
    age_max = _age_max(request.headers.get("cache-control", ""))
    found = await gateway.snapshots.get(
        user_id, feed, request.query_params, age_max, ends_at=ends_at
    )
    await _response(request, found)(request.scope, request.receive, send)


async def _who_and_what(gateway: Gateway, request: Request) -> tuple[str, str]:
    """The user and the feed; where the keys of tokens and the authorizer are servers, both may
    hang."""
    principal = await gateway.authenticator.principal(request)
    return principal.user_id, await feed_of(gateway, request, principal)


def _response(request: Request, found: Found) -> Response:
    tag = f'W/"{found.value[:TAG_BYTES].hex()}"'
    headers = {
        "ETag": tag,
        # A client may keep it, and asks each time whether it is the same still.
        "Cache-Control": "private, no-cache",
        "Vary": "Accept-Encoding, Authorization",
        "Age": str(int(found.age_seconds)),
        "Cache-Status": _cache_status(found),
    }
    known = {one.strip() for one in request.headers.get("if-none-match", "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=304, headers=headers)
    compressed = found.value[TAG_BYTES:]
    if _takes_gzip(request.headers.get("accept-encoding", "")):
        headers["Content-Encoding"] = "gzip"
        return Response(compressed, headers=headers, media_type="application/json")
    return Response(gzip.decompress(compressed), headers=headers, media_type="application/json")


def _age_max(control: str) -> float | None:
    """What a client asks for in `Cache-Control`; None when it does not say."""
    for one in control.lower().split(","):
        name, _, seconds = one.strip().partition("=")
        if name == "no-cache":
            return 0.0
        if name == "max-age" and seconds.isascii() and seconds.isdigit():
            return float(seconds[:9])
    return None


def _cache_status(found: Found) -> str:
    """As RFC 9211 has it; a negative `ttl` is how long ago it was fresh."""
    if found.level == "loaded":
        return "livefeed; fwd=miss"
    stale = f"; ttl=-{max(1, int(found.age_seconds))}" if found.stale else ""
    return f"livefeed; hit; detail={found.level}{stale}"


def _takes_gzip(accepted: str) -> bool:
    for one in accepted.lower().split(","):
        name, _, parameters = one.strip().partition(";")
        if name.strip() in {"gzip", "*"}:
            return parameters.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
