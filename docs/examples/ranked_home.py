"""A feed source: ranks `home` by what a user likes and whom the user follows.

LIVEFEED_FEED_SOURCE=ranked_home:ranked_home, with this folder on PYTHONPATH. It reads three tables
of the application at the same time, each in a session of its own, on a read replica.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import text

from livefeed.errors import AfterRefused
from livefeed.feed_source import SourcePage, SourceRequest

PROFILE = text("select topics from app_profile where user_id = :user")
FOLLOWED = text("select author from app_follow where follower = :user")
POSTS = text(
    "select id, author, topic, title, extract(epoch from created_at) as created "
    "from app_post order by created_at desc limit 500"
)


async def ranked_home(request: SourceRequest) -> SourcePage:
    """The newest posts; those of followed authors and liked topics count as if they were newer."""
    first = place(request.after)
    profile, followed, posts = await asyncio.gather(
        rows(request, PROFILE), rows(request, FOLLOWED), rows(request, POSTS)
    )
    topics = set(profile[0].topics) if profile else set()
    authors = {row.author for row in followed}

    def score(post: Any) -> float:
        liked = 6 * 3_600 * (post.topic in topics)
        near = 24 * 3_600 * (post.author in authors)
        return float(post.created) + liked + near

    ranked = sorted(posts, key=lambda post: (-score(post), post.id))
    page = ranked[first : first + request.limit]
    more = first + len(page) < len(ranked)
    return SourcePage(
        [{"id": post.id, "title": post.title, "author": post.author} for post in page],
        next=str(first + len(page)) if more else None,
    )


def place(after: str | None) -> int:
    """Where a page begins; a client may send anything."""
    if after is None:
        return 0
    if not (after.isascii() and after.isdigit() and len(after) <= 3):
        raise AfterRefused
    return int(after)


async def rows(request: SourceRequest, statement: Any) -> list[Any]:
    """The rows of one statement, in a session of its own."""
    async with request.sessions() as session:
        return list((await session.execute(statement, {"user": request.user_id})).all())
