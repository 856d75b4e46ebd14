"""A real history of files through the whole stack, checked against the last tree."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.history import Run, load_history
from benchmarks.load import Meter
from benchmarks.report import Report
from benchmarks.scenario import Options, Scenario
from benchmarks.stack import Stack, signing_settings
from livefeed import subjects
from livefeed.adapters.nats.connection import close
from livefeed.adapters.nats.publish import Publisher
from livefeed.adapters.tokens import sign

NAME: Final = "history"
FOLDER: Final = Path(__file__).parents[2] / "tests" / "data" / "websockets_history"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How the history is published."""

    seconds: float = 20.0
    cuts: int = 20


QUICK: Final = Sizes(seconds=5.0)


async def run(options: Options) -> Report:
    """Publish it while four clients follow in their own ways; all must end with the last tree."""
    sizes = options.sized(QUICK if options.quick else Sizes())
    report = Report(NAME)
    options.say("starting the servers")
    async with Stack(settings=options.settings(sizes)) as stack:
        await stack.start_pool()
        connection = await stack.connect("livefeed-bench")
        publisher = Publisher(connection)
        publisher.start()

        async def publish(updates: Iterable[Mapping[str, Any]]) -> None:
            await publisher.publish_batch(
                [
                    (
                        subjects.updates("medium", "history"),
                        json.dumps(update).encode(),
                        {"Nats-Msg-Id": str(update["updateId"])},
                    )
                    for update in updates
                ]
            )

        settings = signing_settings(stack.jwt_secret)
        options.say(f"publishing the history over {sizes.seconds:g} s")
        one = Run(
            load_history(FOLDER),
            url=f"http://127.0.0.1:{stack.gateway_ports[0]}",
            token_of=lambda user: sign(settings, {"sub": user, "exp": time.time() + 3600}),
            publish=publish,
            seconds=sizes.seconds,
            cuts=sizes.cuts,
            seed=options.seed,
        )
        meter = Meter(stack)
        outcome = await one.run()
        used = meter.read()
        await close(connection)
    report.faults = dict.fromkeys(outcome.faults, 1)
    report.add("updates", outcome.updates)
    report.add("frames", outcome.frames)
    report.add("cuts", outcome.cuts)
    used.add_to(report)
    return report


SCENARIO: Final = Scenario(
    NAME, "A real history of files; every client must end with exactly the last tree.", run
)
