"""The names of the wire: every NATS subject is built and parsed here, nowhere else.

Pure.
"""

from __future__ import annotations

import re
from typing import Final, Literal, get_args

from livefeed.errors import DeadLetterReason
from livefeed.identity import token

Lane = Literal["high", "medium", "low"]
LANES: Final[tuple[Lane, ...]] = get_args(Lane)
URGENT: Final[tuple[Lane, ...]] = ("high",)
BULK: Final[tuple[Lane, ...]] = ("medium", "low")
PLACES: Final = (URGENT, BULK)
"""Lanes that share a place in a worker, and in a pool processes: what a flush of medium or low does
to a process's loop, to its memory and to its CPU is none of high's business."""

UPDATES_PREFIX: Final = "feed.updates."
LANES_PREFIX: Final = "feed.lanes."
DEAD_LETTERS_PREFIX: Final = "feed.dlq."
USERS_PREFIX: Final = "feed.users."
TOPICS_PREFIX: Final = "feed.topics."

UPDATES_ALL: Final = "feed.updates.>"
DEAD_LETTERS_ALL: Final = "feed.dlq.>"

CONTROL_WAKE: Final = "feed.control.wake"
"""A hint that updates may be waiting; the pool looks at once."""
CONTROL_GATEWAYS: Final = "feed.control.gateways"
"""Where gateways say each second how many connections they have."""
CONTROL_SESSIONS: Final = "feed.control.sessions"
"""Where a gateway asks the others for the connections of users, and says which are too many."""
CONTROL_REVOCATIONS: Final = "feed.control.revocations"
"""Where a revocation is announced after it was stored."""
CONTROL_LOAD: Final = "feed.control.load"
"""Where each gateway says its load level."""
CONTROL_WORKERS_ALL: Final = "feed.control.workers.*"

_literal = re.compile(r"[^\s.*>\x00-\x20\x7f\ufffd]+")


def is_literal(subject: str) -> bool:
    """Whether one can publish on a subject that was read: NATS keeps subjects of any bytes."""
    return all(map(_literal.fullmatch, subject.split(".")))


def updates(priority: Lane, source: str) -> str:
    """Where a publisher puts an update; `source` is one token such as `posts`."""
    return f"{UPDATES_PREFIX}{priority}.{source}"


def updates_filters(priority: Lane) -> list[str]:
    """What a priority's consumer reads; a subject without a priority is read as medium."""
    if priority == "medium":
        return [f"{UPDATES_PREFIX}medium.>", f"{UPDATES_PREFIX}*"]
    return [f"{UPDATES_PREFIX}{priority}.>"]


def priority_of(subject: str) -> Lane:
    """The priority that an update's subject states; medium where it states none."""
    word = subject.removeprefix(UPDATES_PREFIX).partition(".")
    for lane in LANES:
        if word[0] == lane and word[1]:
            return lane
    return "medium"


def lanes(lane: Lane, partition: int) -> str:
    """Where a lane message of one partition goes."""
    return f"{LANES_PREFIX}{lane}.{partition}"


def lanes_filter(lane: Lane) -> str:
    """Every partition of one lane."""
    return f"{LANES_PREFIX}{lane}.*"


def dead_letters(reason: DeadLetterReason) -> str:
    """Where a message goes that can never be handled."""
    return f"{DEAD_LETTERS_PREFIX}{reason}"


def live_user(user_id: str) -> str:
    """The live batches of one user (core NATS)."""
    return USERS_PREFIX + token(user_id)


def live_topic(feed: str) -> str:
    """The live batches of everyone on a feed (core NATS)."""
    return TOPICS_PREFIX + feed


def control_workers(function: str) -> str:
    """Where the workers of a function announce themselves."""
    return f"feed.control.workers.{function}"


def control_sessions(gateway: str) -> str:
    """Where the answers to a gateway's questions about sessions come."""
    return f"{CONTROL_SESSIONS}.{gateway}"


def answers_sessions(reply: bytes) -> bool:
    """Whether a reply subject is one of `control_sessions`.

    NATS ends the connection of who publishes to no subject at all, and whoever asks may not have
    a gateway publish wherever it likes.
    """
    head, _, gateway = reply.decode(errors="replace").rpartition(".")
    return head == CONTROL_SESSIONS and _literal.fullmatch(gateway) is not None
