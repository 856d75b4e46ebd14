"""What a node's agent tells of its faults."""

from __future__ import annotations

import logging

import pytest

from livefeed.cli.node_events import Events
from livefeed.errors import Unavailable


def test_a_fault_is_told_once_and_another_of_its_kind_too(caplog: pytest.LogCaptureFixture) -> None:
    """What lasts is told when it begins and ends; it hides no other fault of the same part."""
    caplog.set_level(logging.INFO)
    events = Events(as_json=False)
    for detail in ("timeout", "timeout", "AccessDenied", "AccessDenied"):
        events.fault("lifecycle", Unavailable("aws", detail))
    events.well("lifecycle")
    events.well("lifecycle")
    assert [record.getMessage() for record in caplog.records] == [
        "node-agent: lifecycle: aws is unavailable: timeout",
        "node-agent: lifecycle: aws is unavailable: AccessDenied",
        "node-agent: lifecycle: all is well again",
    ]
