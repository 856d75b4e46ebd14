"""What the gateways say of their load, and what it means to a worker.

Above normal, low gathers longer and live messages carry no trace; at critical low is not pulled for
a while, and pulled again for as long. A gateway that is silent counts no more after a while. So
nothing is paused for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from livefeed import subjects
from livefeed.adapters.nats.connection import Connection
from livefeed.limits import LOAD_ANNOUNCED_SECONDS_MAX
from livefeed.load import LOW_WINDOW_FACTOR, Level, fleet_level, level_said, pauses_low


class _Heard(NamedTuple):
    level: Level
    at: float
    critical_since: float
    """Since when it is critical, if it is."""


class FleetLoad:
    """The load level of all gateways together, as one worker hears it.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, _Heard] = {}
        """By gateway."""

    def listen(self, connection: Connection) -> None:
        """Hear the gateways."""
        connection.subscribe_direct(subjects.CONTROL_LOAD, self._on_announcement)

    @property
    def level(self) -> Level:
        """The level that enough of the gateways have, of those that are there."""
        now = self._clock()
        self._said = {
            gateway: heard
            for gateway, heard in self._said.items()
            if now - heard.at <= LOAD_ANNOUNCED_SECONDS_MAX
        }
        return fleet_level([heard.level for heard in self._said.values()])

    @property
    def pauses_low(self) -> bool:
        """Whether nothing of low is to be pulled."""
        if self.level != "critical":
            return False
        # The gateways' time, not this worker's: one that finds low paused has no work and leaves,
        # and its successor would begin anew.
        since = min(one.critical_since for one in self._said.values() if one.level == "critical")
        return pauses_low(self._clock() - since)

    @property
    def traces(self) -> bool:
        """Whether live messages carry their traces."""
        return self.level == "normal"

    @property
    def low_window_factor(self) -> float:
        """By how much low gathers longer."""
        return 1.0 if self.level == "normal" else LOW_WINDOW_FACTOR

    def _on_announcement(
        self, _subject: bytes, _reply: bytes, _headers: bytes, payload: bytes
    ) -> None:
        said, now = level_said(payload), self._clock()
        if said is None:
            return
        before = self._said.get(said.gateway)
        if said.critical_seconds is not None:
            since = now - said.critical_seconds
        else:
            since = before.critical_since if before and before.level == "critical" else now
        self._said[said.gateway] = _Heard(said.level, now, since)
