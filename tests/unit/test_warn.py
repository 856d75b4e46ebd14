"""What befalls each of many requests is said once in a while."""

from __future__ import annotations

import logging

import pytest

from gateway.warn import Seldom


def test_the_same_is_said_seldom_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Another cause is said at once; what was not said is in the next line."""
    seldom = Seldom(logging.getLogger("tests"), 3_600.0)
    for _ in range(1_000):
        seldom.warn("log", "no log")
    seldom.warn("nats", "no nats")
    assert [record.getMessage() for record in caplog.records] == ["no log", "no nats"]
    caplog.clear()
    seldom = Seldom(logging.getLogger("tests"), 0.0)
    seldom._said["log"] = (0.0, 999)
    seldom.warn("log", "no log")
    seldom.warn("log", "no log")
    assert [record.getMessage() for record in caplog.records] == [
        "no log (and 999 times more since it was said last)",
        "no log",
    ]
