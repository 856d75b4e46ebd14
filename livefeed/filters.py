"""Filters: which types of updates a connection is sent.

Pure. A filter hides updates and nothing else: positions, floors and resets are those of the whole
channel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Raw, Struct

from livefeed.errors import Refused
from livefeed.update import KINDS, UpdateType

Types = frozenset[UpdateType]

ALL_TYPES: Final[Types] = frozenset(KINDS)
"""No filter."""
_CONTENT: Final[Types] = frozenset(("new_content", "content_update"))


class _Typed(Struct, frozen=True, rename="camel"):
    update_type: UpdateType


_decoder = msgspec.json.Decoder(_Typed)


def parse_types(text: str | None) -> Types:
    """Read the parameter `types`; without one everything is sent.

    Raises:
        Refused: With what it may be.
    """
    if text is None:
        return ALL_TYPES
    names = text.split(",") if len(text) <= 128 else []
    types = frozenset(kind for kind in KINDS if kind in names)
    if not types or not types.issuperset(names):
        raise Refused("parameter_invalid", f"types is one or more of {', '.join(KINDS)}")
    # Whoever is shown content has to be told when it is gone.
    return types | {"content_removal"} if types & _CONTENT else types


def of_types(updates: Iterable[Raw], types: Types) -> list[bytes]:
    """The updates of a live batch that pass a filter, ready for a frame."""
    if types == ALL_TYPES:
        return [bytes(update) for update in updates]
    return [bytes(update) for update in updates if _decoder.decode(update).update_type in types]
