"""Who follows whom: one line of what `livefeed follow import` reads.

Pure. A line is JSON, `{"actor": …, "follower": …}`, or CSV, `actor,follower`.
"""

from __future__ import annotations

import csv
from typing import NamedTuple

import msgspec

from livefeed.errors import Refused
from livefeed.identity import is_id
from livefeed.limits import ID_CHARACTERS_MAX

ID_RULE = f"1 to {ID_CHARACTERS_MAX} characters, none of control"


class Follow(NamedTuple):
    """That a user follows an actor."""

    actor: str
    follower: str
    """A user id."""


class _Object(msgspec.Struct, forbid_unknown_fields=True):
    actor: str
    follower: str


_decode = msgspec.json.Decoder(_Object).decode


def parse_follow(line: bytes) -> Follow:
    """Read one line.

    Raises:
        Refused: `invalid_follow`, for a line of another form, or ids that are none.
    """
    try:
        follow = _from_json(line) if line.startswith(b"{") else _from_csv(line.decode())
    except msgspec.DecodeError as error:
        raise _refused(str(error)) from error
    except csv.Error as error:
        raise _refused(f"it is not CSV: {error}") from error
    except UnicodeDecodeError as error:
        raise _refused("it is not UTF-8 text") from error
    for field, value in zip(Follow._fields, follow, strict=True):
        if not is_id(value):
            raise _refused(f"{field} must have {ID_RULE}")
    return follow


def _from_json(line: bytes) -> Follow:
    found = _decode(line)
    return Follow(found.actor, found.follower)


def _from_csv(line: str) -> Follow:
    fields = next(csv.reader([line], strict=True)) if '"' in line else line.split(",")
    if len(fields) != len(Follow._fields):
        form = "expected actor,follower or a JSON object"
        raise _refused(f'{form}; an id with a comma stands in "quotes"')
    return Follow(*fields)


def _refused(detail: str) -> Refused:
    return Refused("invalid_follow", detail)
