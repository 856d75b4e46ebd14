"""A feed as a reader sees it, and which part of it one page shows.

Pure. Where an item stands among the pages is decided by columns of its content's entry alone: the
body is not needed to find a page, and an entry that does not change stands in the same place at
every moment. Decision 0024 says what follows from that.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import msgspec
from msgspec import Raw, Struct

from livefeed.channel import client_name
from livefeed.errors import AfterRefused, Refused
from livefeed.filters import parse_types
from livefeed.update import CONTENT_REMOVAL, KINDS

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 200
PARAMETERS: Final = ("limit", "after", "types")
NO_CONTENT: Final = -math.inf
"""The rank of an engagement without content: no content can have it, and nothing is below it."""

_packed: Final = struct.Struct(">dqB")


class PageKey(NamedTuple):
    """Where an item stands among the pages: rank descending, then the rest ascending."""

    rank: float
    item: int
    """The 64-bit hash of its id: an id stands in the body only."""
    channel: int
    """0 for the entries for everyone, 1 for the user's own."""

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(_packed.pack(*self)).rstrip(b"=").decode()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `str(key)`; raises Refused."""
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            rank, item, channel = _packed.unpack(raw)
        except (ValueError, struct.error) as error:
            raise AfterRefused from error
        # Zero has two signs, which a database takes for equal.
        key = cls(rank + 0.0, item, channel)
        spellings = {str(key), str(key._replace(rank=rank))}
        if math.isnan(rank) or rank == math.inf or channel > 1 or text not in spellings:
            raise AfterRefused
        return key


@dataclass(frozen=True, slots=True)
class PageQuery:
    """Which part of a feed is asked for; equal for all who ask for the same."""

    limit: int = LIMIT_DEFAULT
    after: PageKey | None = None
    """The place of the last item of the page before."""
    kinds: tuple[int, ...] = (0, 1, 3)
    """The kinds of updates that are shown, ascending; a removal never is."""

    def key(self) -> str:
        """A short name for it."""
        kinds = "".join(map(str, self.kinds))
        return f"{self.limit}.{kinds}.{self.after or ''}"


class StoredItem(NamedTuple):
    """An item as the log has it: two facets, at least one of them is there."""

    channel: str
    """Its name in the log."""
    key: PageKey
    seq: int | None
    body: bytes | None
    engagement_seq: int | None
    engagement: bytes | None


class FeedItem(Struct, frozen=True, rename="camel"):
    """One item, as an answer over HTTP shows it; what is of its content is null without one."""

    channel: str
    seq: int | None
    rank: float | None
    update_id: str | None
    timestamp: str | None
    version: int | None
    content: Raw | None
    engagement_seq: int | None
    engagement: Raw | None

    def order(self) -> tuple[float, str, str]:
        """Sorts items into feed order: rank descending, then id; those without content last."""
        shown = self.content if self.content is not None else self.engagement
        assert shown is not None  # an item has a facet
        rank = NO_CONTENT if self.rank is None else self.rank
        return (-rank, _identified.decode(shown).id, self.channel)


class _Identified(Struct):
    id: str


class _Body(Struct, rename="camel"):
    """What is shown of a stored update, beside its content as it is."""

    update_id: str
    timestamp: str
    content: Raw
    version: int | None = None


_identified: Final = msgspec.json.Decoder(_Identified)
_bodies: Final = msgspec.json.Decoder(_Body)


def parse_query(parameters: Mapping[str, str]) -> PageQuery:
    """Read `limit`, `after` and `types`; raises Refused."""
    check_names(parameters)
    after = parameters.get("after")
    types = parse_types(parameters.get("types"))
    shown = (kind for kind, name in enumerate(KINDS) if name in types)
    return PageQuery(
        parse_limit(parameters.get("limit", str(LIMIT_DEFAULT))),
        None if after is None else PageKey.parse(after),
        tuple(kind for kind in shown if kind != CONTENT_REMOVAL),
    )


def check_names(parameters: Mapping[str, str]) -> None:
    """Raise Refused for a parameter that there is not: each would be another page in a cache."""
    if set(parameters) - set(PARAMETERS):
        raise Refused("parameter_invalid", f"the parameters are {', '.join(PARAMETERS)}")


def parse_limit(text: str) -> int:
    """Read `limit`; raises Refused."""
    # Three digits are enough, and int() is slow for very many.
    digits = text.isascii() and text.isdigit() and len(text) <= 3
    if not digits or not 1 <= int(text) <= LIMIT_MAX:
        raise Refused("parameter_invalid", f"limit is a number from 1 to {LIMIT_MAX}")
    return int(text)


def public_item(stored: StoredItem) -> FeedItem:
    """What an answer shows of an item; the publisher's objects stay the bytes that they are."""
    update = None if stored.body is None else _bodies.decode(stored.body)
    engagement = None if stored.engagement is None else _bodies.decode(stored.engagement).content
    return FeedItem(
        channel=client_name(stored.channel),
        seq=stored.seq,
        rank=None if update is None else stored.key.rank,
        update_id=None if update is None else update.update_id,
        timestamp=None if update is None else update.timestamp,
        version=None if update is None else update.version,
        content=None if update is None else update.content,
        engagement_seq=stored.engagement_seq,
        engagement=engagement,
    )
