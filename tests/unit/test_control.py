"""What gateways say to each other: read strictly, for anybody may say anything there."""

import pytest

from functions.fleet_load import FleetLoad
from livefeed.control import GatewayCount, decode
from livefeed.limits import LOW_PAUSE_SECONDS_MAX


@pytest.mark.parametrize("connections", ["-1", "1" + "0" * 400, "1e400", "NaN", '"3"', "null"])
def test_a_count_is_a_count(connections: str) -> None:
    """A number that no gateway has is no message at all."""
    payload = b'{"gateway":"g","connections":%s}' % connections.encode()
    assert decode(payload, GatewayCount) is None
    assert decode(payload.replace(connections.encode(), b"3"), GatewayCount) == GatewayCount("g", 3)


def test_low_is_paused_for_a_while_and_then_not_for_as_long() -> None:
    """However long the load stays critical, low gets its half of the time."""
    now = 1000.0
    load = FleetLoad(clock=lambda: now)
    paused = 0
    for _ in range(600):
        load._on_announcement(b"", b"", b"", b'{"gateway":"g","level":"critical"}')
        paused += load.pauses_low
        now += 1
    assert load.level == "critical"
    assert paused == 600 / 2
    now += 60
    assert not load.pauses_low
    load._on_announcement(b"", b"", b"", b'{"gateway":"g","level":"critical"}')
    assert load.pauses_low, "it begins anew"
    now += LOW_PAUSE_SECONDS_MAX - 1
    load._on_announcement(b"", b"", b"", b'{"gateway":"g","level":"critical"}')
    assert load.pauses_low
