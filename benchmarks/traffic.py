"""What is published: updates by number, each of which says whom it is for and when it was due.

Publisher and clients know it from the same few values, so that no list of it has to pass between
their processes.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from livefeed.subjects import Lane

TEXT: Final = "A sentence that stands for what a person would read, about as long as such are. " * 3
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Traffic:
    """Updates of distinct items; a hash chooses each one's user and priority, by its number."""

    seed: int
    users: int
    feed: str = "home"
    priorities: tuple[Lane, ...] = ("high",)
    """Each as often as it stands here."""
    topic: bool = False
    """Whether each update is for everyone on the feed, and not for some users."""
    audience: int = 1
    """How many users in a row an update is for, where it names them; divides `users`."""

    def name(self, user: int) -> str:
        """The id of a user; loads of different seeds on one stack have different users."""
        return f"user-{self.seed}-{user}"

    def user(self, number: int) -> int:
        """Whose an update is, or the first of those."""
        return self._dice(number) % self.groups * self.audience

    @property
    def groups(self) -> int:
        """How many different audiences there are."""
        return self.users // self.audience

    def owner(self, number: int) -> str:
        """Whom an update is for: see `owner_for`."""
        return self.owner_for(self.user(number))

    def owner_for(self, user: int) -> str:
        """Whom the updates that a user is sent are for: its first user's id; empty: everyone."""
        return "" if self.topic else self.name(user - user % self.audience)

    def priority(self, number: int) -> Lane:
        """What an update says of its priority."""
        return self.priorities[self._dice(number) // self.users % len(self.priorities)]

    def update_id(self, number: int) -> str:
        """The id of an update."""
        return f"bench-{self.seed}-{number}"

    def update(self, number: int, *, due: int, recorded: bool) -> bytes:
        """An update's JSON; `due` is its scheduled time in nanoseconds of the monotonic clock."""
        owner, priority = self.owner(number), self.priority(number)
        content: dict[str, Any] = {"id": f"item-{number}", "number": number, "user": owner}
        content |= {"due": due, "recorded": recorded, "text": TEXT}
        content["lane"] = priority
        return _encode(
            {
                "updateId": self.update_id(number),
                **self._audience(number),
                "feedType": self.feed,
                "updateType": "new_content",
                "content": content,
                "priority": priority,
                "timestamp": datetime.now(UTC).isoformat(),
            }
        )

    def _audience(self, number: int) -> dict[str, Any]:
        if self.topic:
            return {"audience": {"feed": True}}
        first = self.user(number)
        if self.audience == 1:
            return {"userId": self.name(first)}
        return {"audience": {"users": [*map(self.name, range(first, first + self.audience))]}}

    def _dice(self, number: int) -> int:
        digest = hashlib.blake2b(b"%d %d" % (self.seed, number), digest_size=8).digest()
        return int.from_bytes(digest, "big")


def clock() -> int:
    """Nanoseconds; the same in every process of this computer, and never set back."""
    return time.monotonic_ns()
