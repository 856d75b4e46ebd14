"""What the gateways say of their load, and what it means to a worker.

Above normal, low gathers longer and live messages carry no trace; at critical low is not pulled. A
gateway that is silent counts no more after a while, so that nothing is paused for ever.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import cast

from livefeed import subjects
from livefeed.adapters.nats.connection import Connection
from livefeed.limits import LOAD_ANNOUNCED_SECONDS_MAX
from livefeed.load import LEVELS, LOW_WINDOW_FACTOR, Level, fleet_level


class FleetLoad:
    """The load level of all gateways together, as one worker hears it.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, tuple[Level, float]] = {}
        """By gateway: its level, and when it said so."""

    def listen(self, connection: Connection) -> None:
        """Hear the gateways."""
        connection.subscribe_direct(subjects.CONTROL_LOAD, self._on_announcement)

    @property
    def level(self) -> Level:
        """The level that enough of the gateways have, of those that are there."""
        now = self._clock()
        self._said = {
            gateway: (level, at)
            for gateway, (level, at) in self._said.items()
            if now - at <= LOAD_ANNOUNCED_SECONDS_MAX
        }
        return fleet_level([level for level, _ in self._said.values()])

    @property
    def pauses_low(self) -> bool:
        """Whether nothing of low is to be pulled."""
        return self.level == "critical"

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
        try:
            said = json.loads(payload)
            gateway, level = str(said["gateway"]), said["level"]
        except (ValueError, KeyError, TypeError):
            return
        if level in LEVELS:
            self._said[gateway] = cast(Level, level), self._clock()
