"""What a node's agent tells: a line for each thing that happens, for a person or as JSON."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

import click

from livefeed.errors import LivefeedError
from livefeed.node import Action, Ended, GiveUp, Noticed, Overdue

logger = logging.getLogger(__name__)

SENTENCES: Final = {
    "started": "this node is a {role}; it is asked every {seconds:g} s whether it is to end",
    "notice": "this node is to end: {kind}",
    "leave": "process {pid} is told to leave",
    "ended": "no process is left",
    "overdue": "process {pid} has not left in time: the node ends all the same",
    "heartbeat": "the lifecycle action is kept waiting",
    "completed": "the lifecycle action is completed",
    "given_up": "the lifecycle action could not be completed: its own default decides",
    "fault": "{part}: {detail}",
    "well": "{part}: all is well again",
    "left": "told to leave",
}
WARNINGS: Final = {"overdue", "given_up", "fault"}


class Events:
    """Tells what happens; of a fault that lasts only the beginning and the end.

    Args:
        as_json: One JSON object a line on standard output, in place of the log's lines.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._faults: dict[str, str] = {}

    def tell(self, event: str, **fields: Any) -> None:
        """Tell one thing."""
        if self._as_json:
            line = {"at": datetime.now(UTC).isoformat(), "event": event, **fields}
            click.echo(json.dumps(line))
            return
        level = logging.WARNING if event in WARNINGS else logging.INFO
        logger.log(level, "node-agent: %s", SENTENCES[event].format(**fields))

    def fault(self, part: str, error: LivefeedError) -> None:
        """A part does not work; told when it is another fault than before."""
        detail = str(error)
        if self._faults.get(part) != detail:
            self.tell("fault", part=part, detail=detail)
        self._faults[part] = detail

    def well(self, part: str) -> None:
        """A part works."""
        if self._faults.pop(part, None) is not None:
            self.tell("well", part=part)


def told_of(action: Action) -> tuple[str, dict[str, Any]]:
    """The event of an action that is only told, with its fields."""
    match action:
        case Noticed(kind, seconds):
            return "notice", {"kind": kind, "deadline_seconds": seconds}
        case Ended(told):
            return "ended", {"told": told}
        case Overdue(pid):
            return "overdue", {"pid": pid}
        case GiveUp():
            return "given_up", {}
    raise AssertionError(f"{action} is carried out, and not only told")
