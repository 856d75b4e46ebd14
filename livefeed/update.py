"""The update: what a publisher says, checked once at the door.

Pure. `parse_update` turns bytes into a `FeedUpdate` or raises `UpdateRefused` with the reason under
which the bytes go to the dead-letter queue. The content stays the publisher's own bytes: it is
checked, never rewritten. `update_schema` is the JSON Schema of the same model.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from livefeed.errors import UpdateRefused
from livefeed.identity import FEED_PATTERN, UPDATE_ID_PATTERN, is_feed, is_id, is_update_id
from livefeed.limits import (
    AUDIENCE_USERS_MAX,
    FUTURE_SECONDS_MAX,
    ID_CHARACTERS_MAX,
    ITEM_BYTES_MAX,
    ITEM_DEPTH_MAX,
    UPDATE_BYTES_MAX,
    UPDATE_ITEMS_MAX,
)
from livefeed.order import VERSION_MAX, microseconds
from livefeed.subjects import Lane

UpdateType = Literal["new_content", "content_update", "content_removal", "engagement_update"]
KINDS: Final[tuple[UpdateType, ...]] = get_args(UpdateType)
"""The four kinds; a kind's place is its number in the log."""
NEW_CONTENT, CONTENT_UPDATE, CONTENT_REMOVAL, ENGAGEMENT_UPDATE = range(4)

CONTENT_FACET: Final = 0
ENGAGEMENT_FACET: Final = 1

Id = Annotated[str, Meta(min_length=1, max_length=ID_CHARACTERS_MAX)]
FeedName = Annotated[str, Meta(pattern=FEED_PATTERN)]

_item_schema = {
    "type": "object",
    "required": ["id"],
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": ID_CHARACTERS_MAX},
        "rank": {"type": ["number", "null"], "description": "place in the feed, highest first"},
    },
    "additionalProperties": True,
}
_content_schema = {
    "description": "one item or up to 100; always the full state of the facet, never a patch",
    "oneOf": [
        _item_schema,
        {"type": "array", "items": _item_schema, "minItems": 1, "maxItems": UPDATE_ITEMS_MAX},
    ],
}


class Audience(Struct, frozen=True, forbid_unknown_fields=True):
    """Who an update is for: exactly one of the three."""

    users: Annotated[list[Id], Meta(min_length=1, max_length=AUDIENCE_USERS_MAX)] | UnsetType = (
        UNSET
    )
    followers: Id | UnsetType = UNSET
    feed: bool | UnsetType = UNSET


class Metadata(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Where an update comes from; other fields are not passed on."""

    source: Annotated[str, Meta(max_length=256)] | None = None
    batch_id: Annotated[str, Meta(max_length=256)] | None = None
    experiment_id: Annotated[str, Meta(max_length=256)] | None = None


class FeedUpdate(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """One update from a publisher."""

    update_id: Annotated[str, Meta(pattern=UPDATE_ID_PATTERN)]
    feed_type: FeedName
    update_type: UpdateType
    content: Annotated[Raw, Meta(extra_json_schema=_content_schema)]
    timestamp: Annotated[datetime, Meta(tz=True)]
    user_id: Id | None = None
    audience: Audience | None = None
    priority: Lane | None = None
    version: Annotated[int, Meta(ge=0, le=VERSION_MAX)] | None = None
    metadata: Metadata | None = None


class Followers(NamedTuple):
    """An audience that is read page by page while the update is prioritized."""

    actor: str


class Item(Struct, frozen=True):
    """One item of an update: its id, its place if given, and its own bytes."""

    id: str
    rank: float | None
    body: bytes


_decoder = msgspec.json.Decoder(FeedUpdate)
_items_decoder = msgspec.json.Decoder(list[Raw])
_any_decoder = msgspec.json.Decoder()


def parse_update(payload: bytes, *, now_microseconds: int) -> tuple[FeedUpdate, list[Item]]:
    """Check an update and split its content into items.

    Args:
        payload: The message's bytes.
        now_microseconds: The clock, against which the timestamp is checked.

    Raises:
        UpdateRefused: With the reason and a sentence that names the field.
    """
    if len(payload) > UPDATE_BYTES_MAX:
        detail = f"the update has {len(payload)} bytes, at most {UPDATE_BYTES_MAX} are allowed"
        raise UpdateRefused("too_large", detail)
    try:
        update = _decoder.decode(payload)
        items = _items(bytes(update.content))
    except msgspec.ValidationError as error:
        raise UpdateRefused("invalid_update", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UpdateRefused("invalid_json", f"not JSON: {error}") from error
    except RecursionError as error:
        raise UpdateRefused("invalid_json", "nested too deeply") from error
    _check_names(update)
    _check_clock(update, now_microseconds)
    return update, items


def kind_of(update: FeedUpdate) -> int:
    """The number of the update's kind in the log."""
    return KINDS.index(update.update_type)


def facet_of(kind: int) -> int:
    """The facet that a kind speaks of."""
    return ENGAGEMENT_FACET if kind == ENGAGEMENT_UPDATE else CONTENT_FACET


def recipients(update: FeedUpdate) -> list[str] | Followers | None:
    """The users an update names, each once, or whose followers; None for everyone on the feed."""
    if update.user_id is not None:
        return [update.user_id]
    assert update.audience is not None  # checked by parse_update
    if update.audience.users is not UNSET:
        return list(dict.fromkeys(update.audience.users))
    if update.audience.followers is not UNSET:
        return Followers(update.audience.followers)
    return None


def update_schema() -> dict[str, Any]:
    """The JSON Schema of an update."""
    (reference,), components = msgspec.json.schema_components([FeedUpdate])
    schema = components.pop(str(reference["$ref"]).rpartition("/")[2])
    schema["oneOf"] = [_present("userId", not_in="audience"), _present("audience", not_in="userId")]
    audience = components["Audience"]
    audience["minProperties"] = audience["maxProperties"] = 1
    audience["properties"]["feed"] = {"const": True}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "livefeed update",
        **schema,
        "$defs": components,
    }


def _present(name: str, *, not_in: str) -> dict[str, Any]:
    absent = {"properties": {not_in: {"type": "null"}}}
    return {
        "required": [name],
        "properties": {name: {"not": {"type": "null"}}},
        "allOf": [absent],
    }


def _items(content: bytes) -> list[Item]:
    parts = _items_decoder.decode(content) if content.startswith(b"[") else [Raw(content)]
    if not 1 <= len(parts) <= UPDATE_ITEMS_MAX:
        raise _invalid(f"content has {len(parts)} items, 1 to {UPDATE_ITEMS_MAX} are allowed")
    items = [_item(bytes(part)) for part in parts]
    if len({item.id for item in items}) < len(items):
        raise _invalid("content names one id twice")
    return items


def _item(body: bytes) -> Item:
    if len(body) > ITEM_BYTES_MAX:
        detail = f"an item has {len(body)} bytes, at most {ITEM_BYTES_MAX} are allowed"
        raise UpdateRefused("too_large", detail)
    # A Raw is only skimmed: decoding it finds bad UTF-8 and numbers that no client could read.
    fields = _any_decoder.decode(body)
    if not isinstance(fields, dict):
        raise _invalid("an item of content is not an object")
    if body.count(b"[") + body.count(b"{") > ITEM_DEPTH_MAX and _depth(fields) > ITEM_DEPTH_MAX:
        # Each reader on the way has a limit of its own; nothing may pass one and fail the next.
        raise _invalid(f"an item is nested more than {ITEM_DEPTH_MAX} deep")
    identifier, rank = fields.get("id"), fields.get("rank")
    if not isinstance(identifier, str) or not is_id(identifier):
        raise _invalid(
            f"content.id must be a string of 1 to {ID_CHARACTERS_MAX} characters, none of control"
        )
    if rank is None:
        return Item(identifier, None, body)
    if isinstance(rank, bool) or not isinstance(rank, (int, float)) or abs(rank) > 1e300:
        raise _invalid("content.rank must be a number")
    return Item(identifier, float(rank), body)


def _depth(value: Any) -> int:
    """How deeply a value is nested; without recursion, which has a limit itself."""
    depth, level = 0, [value]
    while below := [one for one in level if isinstance(one, (dict, list))]:
        depth += 1
        level = [
            child for one in below for child in (one.values() if isinstance(one, dict) else one)
        ]
    return depth


def _check_names(update: FeedUpdate) -> None:
    # The patterns of the model let one line feed at the end pass; these do not.
    if not is_update_id(update.update_id):
        raise _invalid("updateId must be 1 to 128 printable ASCII characters without blanks")
    if not is_feed(update.feed_type):
        raise _invalid(f"feedType must match {FEED_PATTERN}")
    if (update.user_id is None) == (update.audience is None):
        raise _invalid("exactly one of userId and audience must be given")
    audience = update.audience
    users = [update.user_id] if update.user_id is not None else []
    if audience is not None:
        given = [audience.users, audience.followers, audience.feed]
        if sum(field is not UNSET for field in given) != 1 or audience.feed is False:
            raise _invalid(
                'audience must be one of {"users": […]}, {"followers": id}, {"feed": true}'
            )
        users = audience.users if audience.users is not UNSET else []
        users = [*users, audience.followers] if audience.followers is not UNSET else users
    if not all(is_id(user) for user in users):
        raise _invalid("a user id has control characters")


def _check_clock(update: FeedUpdate, now_microseconds: int) -> None:
    ahead = microseconds(update.timestamp) - now_microseconds
    if ahead > FUTURE_SECONDS_MAX * 1_000_000:
        seconds = math.ceil(ahead / 1e6)
        detail = f"timestamp is {seconds} s ahead, at most {FUTURE_SECONDS_MAX} s are allowed"
        raise UpdateRefused("timestamp_in_future", detail)


def _invalid(detail: str) -> UpdateRefused:
    return UpdateRefused("invalid_update", detail)
