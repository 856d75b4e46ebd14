"""What a cache keeps of a value, and whether it is still to be served: fresh, stale or gone.

Pure: the clock and chance are arguments. An entry says when its value was made and how long that
took, so that whoever finds it decides by itself when to make it again.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Final, Literal, NamedTuple

from livefeed.limits import (
    CACHE_CLOCK_SECONDS_MAX,
    CACHE_FRESH_SECONDS_MAX,
    CACHE_LIFETIME_SPREAD_SHARE,
    CACHE_MEMORY_FRESH_SECONDS,
    CACHE_SHARED_FRESH_SECONDS,
    CACHE_STALE_SECONDS,
)

Verdict = Literal["fresh", "refresh_early", "stale", "gone"]
"""What to do with an entry: serve it; serve it, and make it again meanwhile; the same, because it
is past its time; nothing."""

EARLY_BETA: Final = 1.0
"""Above 1 entries are made again earlier, below 1 later."""
MICROSECONDS: Final = 1_000_000
SHARED_FACTOR: Final = CACHE_SHARED_FRESH_SECONDS / CACHE_MEMORY_FRESH_SECONDS
"""How much longer an entry is fresh in the shared cache than in a gateway's memory."""
SHARED_LIFE_SECONDS_MAX: Final = math.ceil(
    (CACHE_FRESH_SECONDS_MAX * SHARED_FACTOR + CACHE_STALE_SECONDS)
    * (1.0 + CACHE_LIFETIME_SPREAD_SHARE)
)
"""Nothing is of use in the shared cache for longer, however the settings are."""

HELD_SECONDS_LEAST: Final = 1.0
"""For less than this of a longer life nothing is put where it is already."""

_HEAD: Final = struct.Struct(">IQII")
"""A check, when it was made, how long that took, how old it was when it was put here."""
_BODY: Final = struct.Struct(">QIIQ")
"""The same without the check, and how long the value is."""
_MARK: Final = zlib.crc32(b"livefeed cache entry 1")
"""Where the check begins: another format has another."""
_FOUR_BYTES_MAX: Final = 2**32 - 1
_MILLISECONDS: Final = 1_000


class Entry(NamedTuple):
    """A value with its history."""

    value: bytes
    made_at: int
    """Microseconds since 1970."""
    load_seconds: float
    """How long it took to make."""
    held_seconds: float = 0.0
    """The age at which its lifetime here begins: more than 0 when it came from a farther one."""


class Lifetime(NamedTuple):
    """How long an entry is fresh, and how long it may be served after that."""

    fresh_seconds: float
    stale_seconds: float


def encode(entry: Entry) -> bytes:
    """The bytes that a cache keeps."""
    load = min(round(entry.load_seconds * MICROSECONDS), _FOUR_BYTES_MAX)
    held = min(round(entry.held_seconds * _MILLISECONDS), _FOUR_BYTES_MAX)
    check = _check(entry.made_at, load, held, len(entry.value))
    return _HEAD.pack(check, entry.made_at, load, held) + entry.value


def decode(stored: object) -> Entry | None:
    """The entry; None for anything that is not all of one, whoever put it there."""
    if not isinstance(stored, bytes) or len(stored) < _HEAD.size:
        return None
    check, made_at, load, held = _HEAD.unpack_from(stored)
    if check != _check(made_at, load, held, len(stored) - _HEAD.size):
        return None
    value = stored[_HEAD.size :]
    return Entry(value, made_at, load / MICROSECONDS, held / _MILLISECONDS)


def age_seconds(entry: Entry, now: float) -> float:
    """How old it is, at least 0; `now` is seconds since 1970."""
    return max(0.0, now - entry.made_at / MICROSECONDS)


def is_young(entry: Entry, made_at: int, now: float) -> bool:
    """Whether it was made at a time or later, as far as the clock that says so can be believed.

    Args:
        entry: What was found.
        made_at: Microseconds since 1970; -1 where nobody minds.
        now: Seconds since 1970.
    """
    return made_at < 0 or (made_at <= entry.made_at and not _is_ahead(entry, now))


def brought_near(
    entry: Entry, found: Verdict, *, there: Lifetime, here: Lifetime, now: float
) -> Entry:
    """The same for a nearer cache. Fresh where it was found, it is fresh there from now on; stale,
    it is as stale there: by its lifetime in the nearer one alone it might be gone already.

    Args:
        entry: As it was found.
        found: The verdict there.
        there: How long it lives where it was found.
        here: How long it lives in the nearer one.
        now: Seconds since 1970.
    """
    held = age_seconds(entry, now)
    if found == "stale":
        held = max(0.0, entry.held_seconds + there.fresh_seconds - here.fresh_seconds)
    return entry._replace(held_seconds=held)


def lives_as_long(has: Entry | None, entry: Entry) -> bool:
    """Whether a cache has an entry already that lives there as long as this one would."""
    if has is None or has.made_at != entry.made_at:
        return False
    return has.held_seconds > entry.held_seconds - HELD_SECONDS_LEAST


def verdict(
    entry: Entry,
    lifetime: Lifetime,
    *,
    now: float,
    chance: float,
    beta: float = EARLY_BETA,
) -> Verdict:
    """What to do with an entry now.

    The longer it takes to make and the nearer its end is, the likelier it is made again before:
    many who ask for it do so at different times, and the first of them spares the others the wait
    (XFetch: Vattani, Chierichetti, Lowenstein, 2015).

    Args:
        entry: What was found.
        lifetime: How long it lives, as `spread` has it.
        now: Seconds since 1970.
        chance: Above 0 and at most 1, another one for each question.
        beta: How early.
    """
    if _is_ahead(entry, now):
        return "stale"  # Believed, it would be fresh for as long as a clock is wrong.
    age = now - entry.made_at / MICROSECONDS
    left = entry.held_seconds + lifetime.fresh_seconds - age
    if left <= -lifetime.stale_seconds:
        return "gone"
    if left <= 0:
        return "stale"
    early = -entry.load_seconds * beta * math.log(min(max(chance, 1e-9), 1.0))
    return "refresh_early" if early >= left else "fresh"


def spread(lifetime: Lifetime, key: str) -> Lifetime:
    """A key's own lifetime, longer or shorter by up to a tenth, the same in every process."""
    place = zlib.crc32(key.encode()) / _FOUR_BYTES_MAX  # 0..1
    factor = 1.0 + CACHE_LIFETIME_SPREAD_SHARE * (2.0 * place - 1.0)
    return Lifetime(lifetime.fresh_seconds * factor, lifetime.stale_seconds * factor)


def _is_ahead(entry: Entry, now: float) -> bool:
    return entry.made_at / MICROSECONDS - now > CACHE_CLOCK_SECONDS_MAX


def _check(made_at: int, load: int, held: int, length: int) -> int:
    return zlib.crc32(_BODY.pack(made_at, load, held, length), _MARK)
