"""The smallest run that shows every part at work, and verifies what came in every way there is."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from benchmarks.comparison import compare, compare_answers
from benchmarks.corpus import Corpus, recent_past
from benchmarks.drain import drain
from benchmarks.flood import Flood, flood
from benchmarks.load import Load, Meter
from benchmarks.load_process import LoadProcess
from benchmarks.readers import Read, Readers, ReadResult, read
from benchmarks.reference import Reference
from benchmarks.report import Goal, Report, merged
from benchmarks.scenario import Options, Scenario
from benchmarks.stack import Stack
from benchmarks.traffic import Traffic
from livefeed.subjects import LANES

NAME: Final = "smoke"
SECONDS_GOAL: Final = Goal("≤", 15)
ARRIVE_SECONDS: Final = 10.0
"""How long what does not come is waited for; what comes later still counts."""
SECONDS_MAX: Final = 60.0
WINDOWS: Final = {"window_medium_seconds": 0.2, "window_low_seconds": 0.4}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How little."""

    connections: int = 10
    updates: int = 60
    """For one user each, in every lane; as many again while nobody is connected."""
    topic_updates: int = 5
    per_second: int = 60
    contradicting: int = 300
    """Updates of few items, for the log to keep the newest of."""
    contradicting_users: int = 10
    reads: int = 40
    """The first of each user from the log, the others from a cache."""


async def run(options: Options) -> Report:
    """One after the other: live, missed, a topic, the log, feeds over HTTP."""
    sizes = options.sized(Sizes())
    report = Report(NAME)
    began = time.perf_counter()
    options.say("starting the servers")
    async with Stack(settings=WINDOWS | options.settings(sizes)) as stack:
        meter = Meter(stack)
        await stack.start_pool()
        await _clients(stack, sizes, options, report)
        await _log_and_feeds(stack, sizes, options, report)
        stack.check()
        used = meter.read()
    report.add("seconds", round(time.perf_counter() - began, 1), "s", SECONDS_GOAL)
    used.add_to(report)
    return report


async def _clients(stack: Stack, sizes: Sizes, options: Options, report: Report) -> None:
    """What connected clients are sent: live, from the log after a cut, and of a topic."""
    one_each = Traffic(2 * options.seed, sizes.connections, priorities=LANES)
    topic = Traffic(2 * options.seed + 1, sizes.connections, feed="news", topic=True)
    async with (
        Load(stack, one_each, connections=sizes.connections) as load,
        Load(stack, topic, connections=sizes.connections) as others,
    ):
        options.say("publishing")
        live = await load.publish(
            sizes.updates, per_second=sizes.per_second, arrive_seconds=ARRIVE_SECONDS
        )
        news = await others.publish(
            sizes.topic_updates, per_second=5, arrive_seconds=ARRIVE_SECONDS
        )
        options.say("cutting every client, and having it come back")
        load.cut()
        await load.publish(sizes.updates, per_second=sizes.per_second, arrive_seconds=0)
        await load.come_back(spread_seconds=0.1, seconds_max=SECONDS_MAX)
        missed = await load.publish(0, per_second=1, arrive_seconds=ARRIVE_SECONDS)
        options.say("verifying every delivery")
        report.faults = merged([await load.judge(), await others.judge()])
    report.add("p50_ms", round(live.latency.percentile(50) * 1e3, 1), "ms")
    report.add("deliveries", live.deliveries + missed.deliveries + news.deliveries)
    report.add("replayed", missed.replayed)


async def _log_and_feeds(stack: Stack, sizes: Sizes, options: Options, report: Report) -> None:
    """What the log keeps of updates that contradict each other, and what is read of it."""
    corpus = Corpus(options.seed, sizes.contradicting_users, 6, 1, recent_past(), NAME)
    readers = Readers(corpus, stack.gateway_ports[0], stack.jwt_secret, options.seed, 4, 50, 50)
    async with AsyncExitStack() as exits:
        publisher = await exits.enter_async_context(LoadProcess(flood, stack.nats_url, corpus))
        reading = await exits.enter_async_context(LoadProcess(read, readers))
        options.say("filling the log")
        publisher.send(Flood(0, sizes.contradicting))
        await publisher.receive()
        await drain(stack, seconds_max=SECONDS_MAX)
        options.say("reading feeds")
        await reading.receive()
        reading.send(Read(sizes.reads, 1.0, sizes.reads))
        result: ReadResult = await reading.receive()
    options.say("comparing the log with the model, and the answers with the log")
    await compare(stack, Reference(corpus, range(sizes.contradicting)), report)
    await compare_answers(stack, corpus, result.samples, report)
    report.faults = merged([report.faults, {"lost": result.errors}])


SCENARIO: Final = Scenario(
    NAME, "Every part once, in seconds: live, missed, a topic, the log, feeds over HTTP.", run
)
