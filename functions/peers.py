"""The workers of one function, as they announce themselves, and what falls to each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final

from livefeed import subjects
from livefeed.adapters.nats.connection import Connection
from livefeed.limits import ANNOUNCE_SECONDS
from livefeed.partition import alive, served_by
from livefeed.subjects import LANES, Lane


class Peers:
    """What one worker knows of the others; it says of itself what it wants to know of them.

    Args:
        connection: NATS.
        function: The function's name.
        worker: This worker's id.
        lanes: The lanes that it serves.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        connection: Connection,
        function: str,
        worker: str,
        lanes: Sequence[Lane],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._worker = worker
        self._lanes = lanes
        self._clock = clock
        self._subject: Final = subjects.control_workers(function)
        self._heard: dict[Lane, dict[str, float]] = {lane: {} for lane in lanes}
        self._announced_at = -ANNOUNCE_SECONDS

    def listen(self) -> None:
        """Hear the others."""
        self._connection.subscribe_direct(self._subject, self._on_announcement)

    def announce(self, now: float, lag_seconds: Callable[[], float]) -> None:
        """Say that this worker is there and how late it is, unless it was said just now."""
        if now - self._announced_at >= ANNOUNCE_SECONDS:
            self._announced_at = now
            self._say(leaving=False, lag_seconds=lag_seconds())

    def announce_leaving(self) -> None:
        """Say that this worker takes nothing more."""
        self._say(leaving=True, lag_seconds=0.0)

    def partitions(self, lane: Lane, now: float) -> frozenset[int]:
        """What falls to this worker beside those that are alive and serve the lane."""
        heard = self._heard[lane]
        others = alive(heard, now)
        self._heard[lane] = {worker: at for worker, at in heard.items() if worker in others}
        return served_by(self._worker, others)

    def _say(self, *, leaving: bool, lag_seconds: float) -> None:
        said = {"worker": self._worker, "lanes": self._lanes, "leaving": leaving}
        text = json.dumps({**said, "lag_seconds": lag_seconds})
        self._connection.send(self._subject, text.encode())

    def _on_announcement(
        self, _subject: bytes, _reply: bytes, _headers: bytes, payload: bytes
    ) -> None:
        try:
            said = json.loads(payload)
            worker, leaving = str(said["worker"]), bool(said["leaving"])
            lanes = list(said.get("lanes", LANES))  # One that does not say serves all.
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        for lane, heard in self._heard.items():
            if leaving:
                heard.pop(worker, None)
            elif lane in lanes:
                heard[worker] = self._clock()
