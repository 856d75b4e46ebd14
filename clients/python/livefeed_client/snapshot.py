"""One read of a feed over HTTP, all pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from livefeed_client.address import http_url, is_local
from livefeed_client.connection import Token, resolve_token
from livefeed_client.state import Cursor, Item

PAGES_MAX: Final = 1_000
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
    """A feed's items in feed order, and the cursor to continue from without missing anything."""

    items: list[Item]
    cursor: Cursor
    unread: int = 0
    """Items whose content is newer than what any device has shown."""


async def fetch_snapshot(
    url: str, *, token: Token, feed: str, limit: int = 200, timeout_seconds: float = 30.0
) -> Snapshot:
    """Read a feed.

    Args:
        url: The server's, as for `LiveFeed`.
        token: The user's token, or a function that gives it.
        feed: The feed's name.
        limit: Items a page; the server may give fewer.
        timeout_seconds: For each page.

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
        for _ in range(ATTEMPTS):
            pages = await _read_pages(client, feed, limit)
            # Pages of two epochs do not fit together.
            if len({Cursor.parse(page["cursor"]).epoch for page in pages}) == 1:
                return _merge(pages)
    raise SnapshotRefused(503, "unavailable", "the log changed while it was read", retryable=True)


async def _read_pages(client: httpx.AsyncClient, feed: str, limit: int) -> list[dict[str, Any]]:
    pages: list[dict[str, Any]] = []
    parameters: dict[str, str | int] = {"limit": limit}
    while len(pages) < PAGES_MAX:
        answer = await client.get(f"/v1/feeds/{feed}", params=parameters)
        if answer.status_code != httpx.codes.OK:
            raise _refusal(answer)
        pages.append(answer.json())
        if pages[-1]["next"] is None:
            break
        parameters["after"] = pages[-1]["next"]
    return pages


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


def _merge(pages: list[dict[str, Any]]) -> Snapshot:
    """One snapshot of pages that may have been read while the feed changed.

    The first page's cursor holds for all of them: whatever changed since is sent again after it.
    """
    newest: dict[tuple[str, str], Item] = {}
    floors: dict[str, int] = {}
    for page in pages:
        for name, floor in page["floor"].items():
            floors[name] = max(floor, floors.get(name, 0))
        for item in map(_item, page["items"]):
            held = newest.get((item.channel, item.id))
            if held is None or held.seq < item.seq:
                newest[item.channel, item.id] = item
    shown = [item for item in newest.values() if item.seq > floors.get(item.channel, 0)]
    return Snapshot(
        sorted(shown, key=lambda item: item.place),
        Cursor.parse(pages[0]["cursor"]),
        pages[0].get("unread", 0),
    )


def _item(fields: Mapping[str, Any]) -> Item:
    return Item(
        channel=fields["channel"],
        id=fields["content"]["id"],
        rank=fields["rank"],
        seq=fields["seq"],
        content=fields["content"],
        engagement=fields["engagement"],
        update_id=fields["updateId"],
        timestamp=fields["timestamp"],
        version=fields["version"],
    )
