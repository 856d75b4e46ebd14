"""Ids, tokens and hashes: how names of users and items become subjects and keys.

Pure. An id never reaches a subject raw: `*`, `>` and `.` would widen or split it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata

from livefeed.limits import ID_CHARACTERS_MAX

FEED_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
UPDATE_ID_PATTERN = r"^[!-~]{1,128}$"

_feed = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_update_id = re.compile(r"[!-~]{1,128}")

TOKEN_PLAIN_BYTES_MAX = 96
"""Ids up to this many bytes are encoded reversibly, longer ones are hashed."""


def is_feed(name: str) -> bool:
    """Whether `name` is a feed's name."""
    return _feed.fullmatch(name) is not None


def is_update_id(text: str) -> bool:
    """Whether `text` is an update id: 1..128 printable ASCII characters without blanks."""
    return _update_id.fullmatch(text) is not None


def is_id(text: str) -> bool:
    """Whether `text` is a user or content id: 1..128 characters, no control characters."""
    if not 1 <= len(text) <= ID_CHARACTERS_MAX:
        return False
    # ASCII without control characters is the common case and needs no look at each character.
    if text.isascii():
        return text.isprintable()
    return not any(unicodedata.category(character) in {"Cc", "Cs"} for character in text)


def token(identifier: str) -> str:
    """One subject token for an id: base64url of it, or `~` and a hash of it when it is long."""
    raw = identifier.encode()
    if len(raw) <= TOKEN_PLAIN_BYTES_MAX:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    digest = hashlib.blake2b(raw, digest_size=20).digest()
    return "~" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def item_key(content_id: str) -> int:
    """The signed 64-bit hash under which an item stands in a channel."""
    digest = hashlib.blake2b(content_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def bytes_digest(*parts: bytes) -> str:
    """A short name for some bytes: equal for equal ones, in hex."""
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest()


def update_ref(update_id: str, content_id: str) -> bytes:
    """The 16-byte identity of one update of one item: hash of (updateId, content id)."""
    # An update id has no control characters, so the NUL separates without doubt.
    return hashlib.blake2b(f"{update_id}\0{content_id}".encode(), digest_size=16).digest()
