"""What a stack costs that has nothing to do: no update, no worker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from benchmarks.load import Load, Meter
from benchmarks.report import Goal, Report, merged
from benchmarks.scenario import Options, Scenario
from benchmarks.stack import Stack
from benchmarks.traffic import Traffic
from benchmarks.units import CORE

NAME: Final = "idle"
CPU_GOAL: Final = Goal("≤", 1)
SERVERS: Final = ("gateway", "pool", "workers", "nats", "postgres")
POLL_SECONDS: Final = 0.1
ASLEEP_SECONDS_MAX: Final = 120.0
QUIET_SECONDS: Final = 2.0
"""From the last worker's end, or the last connect, to the measurement."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How long it is measured, and with how many clients besides none and one."""

    seconds: float = 60.0
    connections: int = 1_000
    worker_idle_seconds: float = 1.0
    retain_seconds: float = 60.0
    """`retain` runs once after there was work, and is waited for; while idle every 10 minutes."""


QUICK: Final = Sizes(seconds=5.0, retain_seconds=5.0)


async def run(options: Options) -> Report:
    """Have one update delivered, let everything fall asleep, and measure."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    options.say("starting the servers")
    async with Stack(settings=options.settings(sizes)) as stack:
        await stack.start_pool(
            worker_idle_seconds=sizes.worker_idle_seconds, retain_seconds=sizes.retain_seconds
        )
        async with Load(stack, _traffic(options, 0), connections=1) as load:
            options.say("one update, and then none")
            await load.publish(1, per_second=1.0, recorded=False)
            report.faults = await load.judge()
        await _measure(stack, None, 0, sizes, options, report)
        for clients in (1, sizes.connections):
            options.say(f"connecting {clients:,} clients")
            async with Load(stack, _traffic(options, clients), connections=clients) as load:
                await _measure(stack, load, clients, sizes, options, report)
                report.faults = merged([report.faults, await load.judge()])
    return report


def _traffic(options: Options, clients: int) -> Traffic:
    """Of users that are not those of any other number of clients."""
    return Traffic(seed=options.seed + clients, users=max(1, clients))


async def _measure(
    stack: Stack,
    load: Load | None,
    clients: int,
    sizes: Sizes,
    options: Options,
    report: Report,
) -> None:
    """Add the CPU of all servers, and the share of each."""
    options.say("waiting until the last worker has left")
    await _asleep(stack)
    options.say(f"{clients:,} clients, nothing to do, for {sizes.seconds:g} s")
    summaries = len(stack.worker_summaries())
    meter = Meter(stack, *([load] if load else []))
    await asyncio.sleep(sizes.seconds)
    used = meter.read()
    stack.check()
    suffix = f"_{clients}" if clients else ""
    total = sum(used.percent[role] for role in SERVERS)
    report.add(f"idle_cpu_percent{suffix}", round(total, 2), CORE, None if suffix else CPU_GOAL)
    used.add_to(report, suffix)
    ran = len(stack.worker_summaries()) - summaries
    if ran:
        report.notes.append(f"{ran} workers ran while there were {clients} clients")


async def _asleep(stack: Stack) -> None:
    """Wait until `retain` has run and no worker runs, and a while longer."""
    async with asyncio.timeout(ASLEEP_SECONDS_MAX):
        while stack.workers_running() or not _retained(stack):  # noqa: ASYNC110  # as in coldstart
            await asyncio.sleep(POLL_SECONDS)
    await asyncio.sleep(QUIET_SECONDS)


def _retained(stack: Stack) -> bool:
    return any(summary["function"] == "retain" for summary in stack.worker_summaries())


SCENARIO: Final = Scenario(
    NAME, "What all servers cost with no worker and nothing to do, by the number of clients.", run
)
