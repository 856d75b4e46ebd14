"""One read of a feed over HTTP, all pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from livefeed_client.address import http_url, is_local
from livefeed_client.connection import Token, resolve_token
from livefeed_client.pages import Page, of_one_epoch, read_snapshot_pages, state_of
from livefeed_client.state import Cursor, FeedState, Item

ATTEMPTS: Final = 3


class SnapshotRefused(Exception):
    """The server answered with an error: its HTTP status, and the error's code and message."""

    def __init__(self, status: int, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A feed's items in feed order, and the cursor to continue from without missing anything.

    To continue, give `state` to `LiveFeed`: it also holds engagement without content so far.
    """

    items: list[Item]
    cursor: Cursor
    state: FeedState
    unread: int = 0
    """Items whose content is newer than what any device has shown."""


async def fetch_snapshot(
    url: str,
    *,
    token: Token,
    feed: str,
    limit: int = 200,
    timeout_seconds: float = 30.0,
    age_seconds_max: int | None = None,
) -> Snapshot:
    """Read a feed.

    Args:
        url: The server's, as for `LiveFeed`.
        token: The user's token, or a function that gives it.
        feed: The feed's name.
        limit: Items a page; the server may give fewer.
        timeout_seconds: For each page.
        age_seconds_max: How old a page may be, at least 1. Without it whatever the server keeps
            will do: what is newer comes to whoever continues from it.

    Raises:
        SnapshotRefused: When the server answers with an error.
        httpx.HTTPError: When it cannot be reached.
    """
    headers = {"Authorization": f"Bearer {await resolve_token(token)}"}
    # No proxy can reach this computer's own loopback.
    async with httpx.AsyncClient(
        base_url=http_url(url),
        headers=headers,
        timeout=timeout_seconds,
        trust_env=not is_local(url),
    ) as client:

        async def get(parameters: Mapping[str, str]) -> Page:
            return await _page(client, feed, {"limit": str(limit), **parameters})

        if age_seconds_max is not None:
            client.headers["Cache-Control"] = f"max-age={age_seconds_max}"
        for _ in range(ATTEMPTS):
            pages = await read_snapshot_pages(get)
            if of_one_epoch(pages):
                state = state_of(pages)
                return Snapshot(state.items(feed), state.cursor, state, pages[0]["unread"])
            # Some of them were kept from before.
            client.headers["Cache-Control"] = "no-cache"
    raise SnapshotRefused(503, "unavailable", "the log changed while it was read", retryable=True)


async def _page(client: httpx.AsyncClient, feed: str, parameters: Mapping[str, str]) -> Page:
    answer = await client.get(f"/v1/feeds/{feed}", params=dict(parameters))
    if answer.status_code != httpx.codes.OK:
        raise _refusal(answer)
    page: Page = answer.json()
    return page


def _refusal(answer: httpx.Response) -> SnapshotRefused:
    try:
        error = answer.json()["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        # A proxy in between answers in its own words.
        retryable = answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
        return SnapshotRefused(
            answer.status_code, "unknown", answer.text[:200], retryable=retryable
        )
    return SnapshotRefused(
        answer.status_code, code, message, retryable=bool(error.get("retryable"))
    )
