"""Dead letters: what they say of the message they were, and how it is published again.

Pure. A letter's own stream sequence names it; the bytes are those of the original.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from livefeed import headers, subjects
from livefeed.errors import Refused
from livefeed.identity import bytes_digest, is_update_id
from livefeed.messages import decode_lane_message
from livefeed.update import parse_update

Outbound = tuple[str, bytes, Mapping[str, str]]
"""`(subject, payload, headers)`."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message of the dead-letter queue; None where its headers do not say."""

    sequence: int
    stored_at: int
    """When it was put aside, microseconds since 1970."""
    reason: str
    error: str | None
    subject: str | None
    """Where the original was published."""
    stream: str | None
    original_sequence: int | None
    headers: Mapping[str, str]
    """By lower-case name."""
    payload: bytes

    @property
    def update_id(self) -> str | None:
        """The update's id, if it can be read."""
        return update_id_of(self.payload)


class _Named(msgspec.Struct, rename="camel"):
    update_id: str


_named = msgspec.json.Decoder(_Named)


def read_letter(
    sequence: int, subject: str, stored_at: int, found: Mapping[str, str], payload: bytes
) -> DeadLetter:
    """What a message of the dead-letter queue says; `found` has its headers by lower-case name."""
    number = found.get(headers.SEQUENCE.lower(), "")
    return DeadLetter(
        sequence=sequence,
        stored_at=stored_at,
        reason=subject.removeprefix(subjects.DEAD_LETTERS_PREFIX),
        error=found.get(headers.ERROR.lower()),
        subject=found.get(headers.SUBJECT.lower()),
        stream=found.get(headers.STREAM.lower()),
        original_sequence=int(number) if re.fullmatch("[0-9]{1,19}", number) else None,
        headers=found,
        payload=payload,
    )


def update_id_of(payload: bytes) -> str | None:
    """The `updateId` of bytes that may be anything."""
    try:
        named = _named.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return named.update_id if is_update_id(named.update_id) else None


def replayed(letter: DeadLetter, mended: bytes | None, *, now_microseconds: int) -> Outbound:
    """The message that a letter becomes when it is replayed.

    Its id is of this letter: replayed twice within the stream's window, it is stored once. When it
    comes back, it comes as another letter.

    Args:
        letter: The dead letter.
        mended: What to publish instead of the original bytes.
        now_microseconds: The clock, as the server will compare it with the update's.

    Raises:
        Refused: When nobody can publish it where it was, or it would only come back.
    """
    subject, payload = letter.subject, letter.payload if mended is None else mended
    if subject is None:
        raise Refused("no_origin", "it has no header that says where it was published")
    is_update = subject.startswith(subjects.UPDATES_PREFIX)
    if not subjects.is_literal(subject) or not (
        is_update or subject.startswith(subjects.LANES_PREFIX)
    ):
        raise Refused("strange_subject", _strange(letter))
    if is_update:
        parse_update(payload, now_microseconds=now_microseconds)
    else:
        decode_lane_message(payload)
    told = headers.kept(letter.headers.get, stored_at=letter.stored_at)
    message_id = f"dlq:{letter.sequence}"
    if mended is not None:
        # Mended another way it is another message.
        message_id += f":{bytes_digest(mended)}"
    return subject, payload, {headers.MESSAGE_ID: message_id, **told}


def _strange(letter: DeadLetter) -> str:
    mend = f"`livefeed dlq show {letter.sequence} --payload` has its bytes, for `livefeed publish`"
    return f"nothing can be published on its subject {letter.subject!r} again; {mend}"
