"""The pages of a snapshot: which ones are needed, and the state that they add up to.

The pages of one snapshot may be of different moments, in any order. An entry that has not changed
since the earliest of them stands in exactly one of them; everything else is above the smallest
position that they name, and comes when that is followed. Engagement is the exception: it is shown
beside its content, and moves with it from page to page without a change of its own. Where the pages
are not of one state it is therefore read once more by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from livefeed_client.state import Cursor, FeedState

Page = Mapping[str, Any]
GetPage = Callable[[Mapping[str, str]], Awaitable[Page]]
"""Asks for one page with these parameters."""


async def read_snapshot_pages(get: GetPage) -> list[Page]:
    """All the pages that are needed to know a feed."""
    pages = await _read(get, {})
    if any(_place(page) != _place(pages[0]) for page in pages):
        pages += await _read(get, {"types": "engagement_update"})
    return pages


def of_one_epoch(pages: Sequence[Page]) -> bool:
    """Whether pages fit together; if not, the snapshot has to begin again."""
    return len({Cursor.parse(page["cursor"]).epoch for page in pages}) == 1


def state_of(pages: Sequence[Page]) -> FeedState:
    """The state from which a client continues without missing anything."""
    cursors = [Cursor.parse(page["cursor"]) for page in pages]
    positions: dict[str, int] = {}
    floors: dict[str, int] = {}
    for page, cursor in zip(pages, cursors, strict=True):
        for name, floor in page["floor"].items():
            floors[name] = max(floor, floors.get(name, 0))
        for name, position in cursor.positions.items():
            # What changed after the earliest page was not looked for in the pages before it.
            positions[name] = min(position, positions.get(name, position))
    state = FeedState(Cursor(cursors[0].epoch))
    updates = [update for page in pages for item in page["items"] for update in _updates(item)]
    frame = {"type": "feed_updates", "updates": updates, "cursor": positions, "floor": floors}
    state.apply(frame)
    return state


async def _read(get: GetPage, parameters: Mapping[str, str]) -> list[Page]:
    pages = [await get(parameters)]
    # Each page shows something, and ends further on than the one before it.
    while pages[-1]["next"] is not None:
        pages.append(await get({**parameters, "after": pages[-1]["next"]}))
    return pages


def _place(page: Page) -> tuple[object, object]:
    return page["cursor"], page["floor"]


def _updates(item: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """An item as the updates of its facets."""
    if item["content"] is not None:
        yield {**item, "updateType": "content_update"}
    if item["engagement"] is not None:
        yield {
            **item,
            "updateType": "engagement_update",
            "seq": item["engagementSeq"],
            "content": item["engagement"],
        }
