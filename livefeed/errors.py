"""Every error that livefeed raises on purpose, as one tree.

LivefeedError
├── Refused            the input is wrong; the same input will be wrong for ever
│   ├── UpdateRefused      an update that goes to the dead-letter queue
│   ├── CursorRefused      a cursor that is not this user's or not a cursor
│   ├── AfterRefused       an `after` that was no `next` of a page
│   ├── FrameRefused       a frame that breaks the WebSocket protocol
│   └── AccessRefused      a token that does not allow what was asked
├── Unavailable        a server is away; the same input may succeed later
├── Overloaded         more is asked for than is served; the same input may succeed later
├── Misconfigured      a setting or a server's configuration has to be changed by a person
└── OutcomeUnknown     a publish may or may not have been stored; publish it again
"""

from __future__ import annotations

from typing import Literal

DeadLetterReason = Literal[
    "invalid_json",
    "invalid_update",
    "timestamp_in_future",
    "too_large",
    "unsupported_audience",
    "invalid_lane_message",
    "not_persistable",
    "too_many_deliveries",
]
"""Why a message is in the dead-letter queue; the last token of its subject."""


class LivefeedError(Exception):
    """The root: its text names the cause, and the mend where there is one."""


class Refused(LivefeedError):
    """Input that will be wrong for ever.

    Args:
        code: A stable machine name of the fault.
        detail: A sentence for a person, without secrets.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class UpdateRefused(Refused):
    """An update that cannot be accepted; `reason` is its place in the dead-letter queue."""

    def __init__(self, reason: DeadLetterReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason: DeadLetterReason = reason


class CursorRefused(Refused):
    """A cursor that is malformed or belongs to somebody else."""


class AfterRefused(Refused):
    """An `after` that was not given out as the `next` of a page."""

    def __init__(self) -> None:
        super().__init__("parameter_invalid", "after is not a value of `next`")


class FrameRefused(Refused):
    """A client's frame that breaks the protocol."""


class AccessRefused(Refused):
    """A token that is missing, invalid, expired, or does not allow what was asked."""


class Unavailable(LivefeedError):
    """A server that is away or overloaded.

    Args:
        dependency: `nats`, `primary` or `replica`, or what else was asked.
        detail: What was tried and what came back.
    """

    def __init__(self, dependency: str, detail: str) -> None:
        super().__init__(f"{dependency} is unavailable: {detail}")
        self.dependency = dependency
        self.detail = detail


class Overloaded(LivefeedError):
    """More is asked for than this gateway serves, or it takes nobody any more.

    Args:
        code: A stable machine name of the reason, of `protocol.ERRORS`.
        detail: A sentence for a person.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class OutcomeUnknown(LivefeedError):
    """A publish whose acknowledgement never came: it may be stored; publish it again."""


class Misconfigured(LivefeedError):
    """Something a person has to mend; the text says what and how."""
