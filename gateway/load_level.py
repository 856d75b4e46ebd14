"""The load level of this gateway: samples each second, every step logged and announced.

What each level does is in docs/operations/load.md; the decisions are in livefeed/load.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Mapping
from typing import Any, Final

from livefeed import subjects
from livefeed.adapters.nats.connection import Connection as Nats
from livefeed.adapters.resources import cores, memory_bytes, memory_limit_bytes
from livefeed.limits import ANNOUNCED_SECONDS_MAX, LOOP_PROBE_SECONDS
from livefeed.load import (
    CACHE_LIFETIME_FACTOR,
    LANES_INPUTS,
    OWN_INPUTS,
    Input,
    Level,
    LoadLevel,
    at_most,
    highest,
    lag_said,
    with_bounds,
)
from livefeed.settings import Settings

logger = logging.getLogger(__name__)


class LaneLag:
    """How late the lanes are, as the workers say it; nobody is asked for it."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, float]] = {}
        """By worker: how late it is, and when it said so."""

    def listen(self, nats: Nats) -> None:
        """Hear the workers."""
        nats.subscribe_direct(subjects.CONTROL_WORKERS_ALL, self._on_announcement)

    def seconds(self, now: float) -> float | None:
        """The most that a worker is late; None when no worker is there."""
        self._said = {
            worker: (lag, at)
            for worker, (lag, at) in self._said.items()
            if now - at <= ANNOUNCED_SECONDS_MAX
        }
        return max((lag for lag, _ in self._said.values()), default=None)

    def _on_announcement(
        self, _subject: bytes, _reply: bytes, _headers: bytes, payload: bytes
    ) -> None:
        said = lag_said(payload)
        if said is not None:
            worker, lag = said
            self._said[worker] = lag, time.monotonic()


class Samples:
    """What this process measures of itself: shares of what it may use, and seconds.

    Args:
        memory_bytes_max: Of all processes of the gateway; None for the container's limit.
        workers: The processes that share the limits.
    """

    def __init__(self, memory_bytes_max: int | None, workers: int) -> None:
        self._memory_bytes_max: Final = (memory_bytes_max or memory_limit_bytes()) / workers
        # A process of ours uses one core, whatever there is.
        self._cores: Final = min(1.0, cores() / workers)
        self._cpu_seconds, self._at = time.process_time(), time.monotonic()
        self._loop_lag = 0.0
        self._probe_due_at = math.inf

    async def probe(self) -> None:
        """Find out how late timers come, until cancelled."""
        while True:
            self._probe_due_at = time.monotonic() + LOOP_PROBE_SECONDS
            await asyncio.sleep(LOOP_PROBE_SECONDS)
            self._loop_lag = max(self._loop_lag, time.monotonic() - self._probe_due_at)

    def memory_share(self) -> float:
        """Of what this process may use."""
        return memory_bytes() / self._memory_bytes_max

    def take(self) -> dict[Input, float | None]:
        """The values since the last time."""
        cpu_seconds, now = time.process_time(), time.monotonic()
        passed = max(now - self._at, 1e-3) * self._cores
        # The probe itself may be what is late.
        self._loop_lag = max(self._loop_lag, now - self._probe_due_at)
        values: dict[Input, float | None] = {
            "cpu": (cpu_seconds - self._cpu_seconds) / passed,
            "memory": self.memory_share(),
            "loop_lag": self._loop_lag,
        }
        self._cpu_seconds, self._at, self._loop_lag = cpu_seconds, now, 0.0
        return values


class Load:
    """What the doors ask: how high the load is here.

    The lag of the lanes is everybody's: it raises `level` to elevated at most, for nobody's update
    comes sooner when clients are refused. What is announced counts it in full.
    """

    def __init__(self, nats: Nats, gateway: str, settings: Settings) -> None:
        thresholds = with_bounds(settings.load_thresholds)
        self._nats: Final = nats
        self._gateway: Final = gateway
        self._seconds: Final = settings.load_sample_seconds
        self._samples: Final = Samples(settings.gateway_memory_bytes_max, settings.gateway_workers)
        self._lane_lag: Final = LaneLag()
        self._own: Final = LoadLevel(thresholds, OWN_INPUTS)
        self._lanes: Final = LoadLevel(thresholds, LANES_INPUTS)
        self._critical_since: float | None = None
        self.inputs: Mapping[Input, float | None] = {}
        """The last sample."""

    @property
    def level(self) -> Level:
        """At critical no new connection is taken."""
        return highest([self._own.level, at_most(self._lanes.level, "elevated")])

    @property
    def announced(self) -> Level:
        """What the workers are told."""
        return highest([self._own.level, self._lanes.level])

    @property
    def cache_factor(self) -> float:
        """By how much what is cached lives longer now."""
        return 1.0 if self.level == "normal" else CACHE_LIFETIME_FACTOR

    async def run(self) -> None:
        """Sample until cancelled."""
        self._lane_lag.listen(self._nats)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._samples.probe(), name="loop-lag")
            while True:
                await asyncio.sleep(self._seconds)
                try:
                    self._take_sample()
                except Exception:
                    logger.exception("a sample of the load failed")

    def memory_share(self) -> float:
        """The share of its memory that this process uses now."""
        return self._samples.memory_share()

    def described(self) -> dict[str, Any]:
        """For people: the level and the last sample, None for what is not known."""
        inputs = {name: _rounded(value) for name, value in self.inputs.items()}
        return {"level": self.level, "announced": self.announced, "inputs": inputs}

    def _take_sample(self) -> None:
        before = self.level, self.announced
        lag = self._lane_lag.seconds(time.monotonic())
        self.inputs = {**self._samples.take(), "lane_lag": lag}
        self._own.sample(self.inputs)
        self._lanes.sample(self.inputs)
        said = self.described()
        if (self.level, self.announced) != before:
            logger.warning("the load level changes: %s", json.dumps(said))
        self._announce(time.monotonic())

    def _announce(self, now: float) -> None:
        said: dict[str, Any] = {"gateway": self._gateway, "level": self.announced}
        if self.announced != "critical":
            self._critical_since = None
        else:
            self._critical_since = self._critical_since or now
            said["critical_seconds"] = now - self._critical_since
        self._nats.send(subjects.CONTROL_LOAD, json.dumps(said).encode())


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
