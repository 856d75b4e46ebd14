"""Many updates by number, few enough items that they contradict each other: what a log is for.

Whoever knows a corpus knows all of its updates, so publisher and verifier pass no list of them.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from livefeed import subjects
from livefeed.subjects import LANES, Lane
from livefeed.update import UpdateType

PAST_SECONDS: Final = 2 * 3600
"""How long ago a corpus should begin: none of its updates may be ahead of the clock."""
KINDS_OF_TWENTY: Final[tuple[UpdateType, ...]] = (
    *("new_content",) * 8,
    *("content_update",) * 5,
    *("content_removal",) * 2,
    *("engagement_update",) * 5,
)
"""The kinds, as often as they are among twenty updates."""
LATE_OF: Final = 5
"""One update of so many says an older time than its neighbours."""
LATE_UPDATES_MAX: Final = 50_000
"""As old as an update that was published so many earlier."""
VERSIONED_OF: Final = 5
"""One update of so many has a version."""
VERSIONS: Final = 10
RANKED_OF: Final = 10
"""One update of so many has a rank."""
UPDATES_A_SECOND: Final = 1_000
"""Updates that say the same time, as a clock that is no finer would have it."""
TEXT: Final = "A sentence that stands for what a person would read, about as long as such are."
_encode = msgspec.json.Encoder().encode


class Facts(NamedTuple):
    """What one update says."""

    update_id: str
    priority: Lane
    kind: UpdateType
    item: str
    first_user: int
    """The audience is this user and those that follow, as many as the corpus says."""
    version: int | None
    second: int
    """The timestamp, in whole seconds since 1970."""
    rank: float | None


@dataclass(frozen=True, slots=True)
class Corpus:
    """Updates number 0, 1, 2 …, each for `audience` users in a row."""

    seed: int
    users: int
    items: int
    audience: int
    began_at: int
    """What update 0 says of its time, in seconds since 1970; must be long ago."""
    name: str = "backlog"
    feed: str = "home"
    only: Lane | None = None
    """Of this priority alone, and then nothing but new content."""

    def facts(self, number: int) -> Facts:
        """What an update says; a hash of its number decides."""
        digest = hashlib.blake2b(b"%d %d" % (self.seed, number), digest_size=16).digest()
        dice = int.from_bytes(digest, "big")
        dice, user = divmod(dice, self.users)
        dice, item = divmod(dice, self.items)
        dice, kind = divmod(dice, len(KINDS_OF_TWENTY))
        dice, lane = divmod(dice, len(LANES))
        dice, late = divmod(dice, LATE_OF)
        dice, late_by = divmod(dice, LATE_UPDATES_MAX)
        dice, versioned = divmod(dice, VERSIONED_OF)
        dice, version = divmod(dice, VERSIONS)
        dice, rank = divmod(dice, RANKED_OF * RANKED_OF)
        said = number - (late_by if late == 0 else 0)
        return Facts(
            update_id=f"{self.name}-{self.seed}-{number}",
            priority=self.only or LANES[lane],
            kind="new_content" if self.only else KINDS_OF_TWENTY[kind],
            item=f"item-{item}",
            first_user=user,
            version=version if versioned == 0 else None,
            second=self.began_at + said // UPDATES_A_SECOND,
            rank=float(rank) if rank < RANKED_OF else None,
        )

    def user(self, number: int) -> str:
        """The id of a user."""
        return f"{self.name}-{self.seed}-{number}"

    def users_of(self, facts: Facts) -> list[int]:
        """The numbers of the users that an update is for."""
        return [(facts.first_user + place) % self.users for place in range(self.audience)]

    def public(self, number: int, facts: Facts) -> dict[str, Any]:
        """An update's JSON without its audience: what its users are shown."""
        content: dict[str, Any] = {"id": facts.item, "number": number, "text": TEXT}
        if facts.rank is not None:
            content["rank"] = facts.rank
        moment = _1970 + timedelta(seconds=facts.second)
        return {
            "updateId": facts.update_id,
            "feedType": self.feed,
            "updateType": facts.kind,
            "content": content,
            "priority": facts.priority,
            "timestamp": moment.isoformat().replace("+00:00", "Z"),
            "version": facts.version,
        }

    def message(self, number: int) -> tuple[str, bytes, str]:
        """An update as it is published: subject, payload and update id."""
        facts = self.facts(number)
        users = [self.user(user) for user in self.users_of(facts)]
        who = {"userId": users[0]} if len(users) == 1 else {"audience": {"users": users}}
        update = self.public(number, facts) | who
        return subjects.updates(facts.priority, "bench"), _encode(update), facts.update_id


def recent_past() -> int:
    """When a corpus that is published now may begin."""
    return int(time.time()) - PAST_SECONDS


_1970: Final = datetime(1970, 1, 1, tzinfo=UTC)
