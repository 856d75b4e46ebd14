"""How soon a worker is there where none was, and how soon the first update after a silence."""

from __future__ import annotations

import asyncio
import signal
import statistics
from dataclasses import dataclass
from typing import Final

from benchmarks.load import Load, Meter
from benchmarks.measure import LatencyRecorder
from benchmarks.report import Goal, Report
from benchmarks.scenario import Options, Scenario
from benchmarks.stack import Stack
from benchmarks.traffic import Traffic, clock
from livefeed.adapters.nats.connection import close

NAME: Final = "coldstart"
SECONDS_GOAL: Final = Goal("≤", 0.6)
FIRST_UPDATE_GOAL: Final = Goal("≤", 2)
FUNCTIONS: Final = ("prioritize", "deliver")
REQUESTS: Final = "$JS.API.CONSUMER.MSG.NEXT.>"
"""Where every worker asks JetStream for messages; another client can watch."""
FETCH_SECONDS_MAX: Final = 20.0
LEAVE_SECONDS: Final = 10.0
SILENT_SECONDS_MAX: Final = 30.0
SILENT_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    starts: int = 7
    silences: int = 7
    worker_idle_seconds: float = 1.0
    quiet_seconds: float = 2.0
    """From the moment that the last worker has left to the next update."""


QUICK: Final = Sizes(starts=3, silences=2)


async def run(options: Options) -> Report:
    """Measure single starts, then a whole stack that has fallen asleep."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    options.say("starting the servers")
    async with Stack(settings=options.settings(sizes)) as stack:
        await _starts(stack, sizes, options, report)
        await _silences(stack, sizes, options, report)
    return report


async def _starts(stack: Stack, sizes: Sizes, options: Options, report: Report) -> None:
    medians = {}
    for function in FUNCTIONS:
        # The first one finds neither the files in memory nor, in a new checkout, compiled modules.
        options.say(f"starting {function} {sizes.starts} times")
        seconds = [await _first_fetch(stack, function) for _ in range(1 + sizes.starts)][1:]
        medians[function] = round(statistics.median(seconds), 3)
    report.add("seconds", max(medians.values()), "s", SECONDS_GOAL)
    for function, median in medians.items():
        report.add(f"{function}_seconds", median, "s")


async def _first_fetch(stack: Stack, function: str) -> float:
    """Seconds from the start of a worker's process to its first request for messages."""
    connection = await stack.connect("livefeed-bench")
    fetched: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def on_request(_subject: bytes, _reply: bytes, _headers: bytes, _payload: bytes) -> None:
        if not fetched.done():
            fetched.set_result(clock())

    try:
        connection.subscribe_direct(REQUESTS, on_request)
        await connection.flush(2)
        began = clock()
        worker = stack.start_worker(function)
        try:
            async with asyncio.timeout(FETCH_SECONDS_MAX):
                return (await fetched - began) / 1e9
        finally:
            await worker.stop([(signal.SIGTERM, LEAVE_SECONDS)])
    finally:
        await close(connection)


async def _silences(stack: Stack, sizes: Sizes, options: Options, report: Report) -> None:
    idle = sizes.worker_idle_seconds
    await stack.start_pool(worker_idle_seconds=idle)
    traffic = Traffic(seed=options.seed, users=1)
    async with Load(stack, traffic, connections=1) as load:
        # A channel and the plans of the database are made once; this is about workers.
        await load.publish(1, per_second=1.0, recorded=False)
        await _silence(stack, 0.0)
        latency = LatencyRecorder()
        started = len(stack.worker_summaries())
        meter = Meter(stack, load)
        for number in range(sizes.silences):
            options.say(f"the first update after silence {number + 1} of {sizes.silences}")
            await _silence(stack, sizes.quiet_seconds)
            latency.merge((await load.publish(1, per_second=1.0)).latency)
        used = meter.read()
        await _silence(stack, 0.0)
        stack.check()
        report.faults = await load.judge()
    report.add("first_update_seconds", round(latency.maximum, 3), "s", FIRST_UPDATE_GOAL)
    report.add("first_update_p50_seconds", round(latency.percentile(50), 3), "s")
    report.add("silences", latency.count)
    report.add("workers_started", len(stack.worker_summaries()) - started)
    used.add_to(report)


async def _silence(stack: Stack, quiet_seconds: float) -> None:
    """Wait until no worker runs, and a while longer."""
    async with asyncio.timeout(SILENT_SECONDS_MAX):
        while stack.workers_running():  # noqa: ASYNC110  # nothing tells when a process is gone
            await asyncio.sleep(SILENT_POLL_SECONDS)
    await asyncio.sleep(quiet_seconds)


SCENARIO: Final = Scenario(
    NAME, "From no worker at all: to a worker's first fetch, and to the first update shown.", run
)
