"""Who may say and hear what in NATS, as data: one user of the server for each role.

Pure. The configuration of a server is rendered from this table (`infra/terraform`), and a test has
a real server hold each role to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from livefeed import subjects
from livefeed.topology import DEAD_LETTERS, LANE_STREAM, UPDATES

CACHE_BUCKET: Final = "feed_cache"
"""The key-value bucket that gateways share pages in."""
CACHE_STREAM: Final = f"KV_{CACHE_BUCKET}"
CACHE_SUBJECTS: Final = f"$KV.{CACHE_BUCKET}.>"

WORKING_STREAMS: Final = (UPDATES, LANE_STREAM)
"""Those that workers read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What one kind of process needs, and nothing else; everything that is not named is denied."""

    name: str
    purpose: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]

    @property
    def inbox_prefix(self) -> str:
        """Where its answers come: with an inbox that all share, each would read the others'."""
        return f"_INBOX_{self.name}"

    @property
    def heard(self) -> tuple[str, ...]:
        """All it may subscribe to, its inbox too."""
        return (f"{self.inbox_prefix}.>", *self.subscribe)


def _api(names: tuple[str, ...], streams: tuple[str, ...], tail: str = "") -> tuple[str, ...]:
    return tuple(f"$JS.API.{name}.{stream}{tail}" for stream in streams for name in names)


def _acks(streams: tuple[str, ...]) -> tuple[str, ...]:
    """Both forms of an ack's subject: servers with a domain put it and the account before."""
    return tuple(f"$JS.ACK.{before}{stream}.>" for stream in streams for before in ("", "*.*."))


def roles() -> tuple[Role, ...]:
    """Every role, the least powerful first."""
    return (_publisher(), _observer(), _gateway(), _worker(), _admin())


def _publisher() -> Role:
    return Role(
        name="publisher",
        purpose="puts updates into the stream",
        publish=(
            subjects.UPDATES_ALL,
            subjects.CONTROL_WAKE,
            *_api(("STREAM.INFO",), (UPDATES,)),
        ),
        subscribe=(),
    )


def _observer() -> Role:
    return Role(
        name="observer",
        purpose="looks how much waits for workers",
        publish=(
            *_api(("STREAM.INFO", "CONSUMER.LIST"), WORKING_STREAMS),
            *_api(("CONSUMER.INFO",), WORKING_STREAMS, ".*"),
        ),
        subscribe=(),
    )


def _gateway() -> Role:
    return Role(
        name="gateway",
        purpose="passes live updates on, and shares pages with other gateways",
        publish=(
            subjects.CONTROL_GATEWAYS,
            subjects.CONTROL_SESSIONS,
            subjects.control_sessions("*"),
            subjects.CONTROL_LOAD,
            CACHE_SUBJECTS,
            *_api(
                ("STREAM.CREATE", "STREAM.INFO", "STREAM.UPDATE", "STREAM.PURGE"), (CACHE_STREAM,)
            ),
            *_api(("DIRECT.GET",), (CACHE_STREAM,), ".>"),
        ),
        subscribe=(
            f"{subjects.USERS_PREFIX}*",
            f"{subjects.TOPICS_PREFIX}*",
            subjects.CONTROL_GATEWAYS,
            subjects.CONTROL_SESSIONS,
            subjects.control_sessions("*"),
            subjects.CONTROL_LOAD,
            subjects.CONTROL_REVOCATIONS,
            subjects.CONTROL_WORKERS_ALL,
        ),
    )


def _worker() -> Role:
    return Role(
        name="worker",
        purpose="runs the pool and its workers: prioritize, deliver, retain",
        publish=(
            # An audience that goes on does so in an update of its own.
            subjects.UPDATES_ALL,
            f"{subjects.LANES_PREFIX}*.*",
            subjects.DEAD_LETTERS_ALL,
            f"{subjects.USERS_PREFIX}*",
            f"{subjects.TOPICS_PREFIX}*",
            subjects.CONTROL_WORKERS_ALL,
            *_api(
                (
                    *("STREAM.INFO", "STREAM.PURGE", "STREAM.MSG.GET", "DIRECT.GET"),
                    "CONSUMER.LIST",
                ),
                WORKING_STREAMS,
            ),
            *_api(("CONSUMER.MSG.NEXT", "CONSUMER.INFO"), WORKING_STREAMS, ".*"),
            *_acks(WORKING_STREAMS),
        ),
        subscribe=(
            # While it sleeps, what passes by is its hint.
            subjects.UPDATES_ALL,
            f"{subjects.LANES_PREFIX}*.*",
            subjects.CONTROL_WAKE,
            subjects.CONTROL_LOAD,
            subjects.CONTROL_WORKERS_ALL,
        ),
    )


def _admin() -> Role:
    streams = (*WORKING_STREAMS, DEAD_LETTERS)
    return Role(
        name="admin",
        purpose="a person's commands: provision, doctor, dlq, reconcile, revoke, backups",
        publish=("$JS.API.>", "$JS.FC.>", "$JS.SNAPSHOT.>", "feed.>", *_acks(streams)),
        subscribe=("feed.>", "$JS.EVENT.ADVISORY.>"),
    )
