"""A real history on a real stack: four clients and the snapshot end with exactly the last tree."""

import random
from pathlib import Path

from benchmarks.history import Run, load_history
from tests.servers import Stack

HISTORY = Path(__file__).parents[1] / "data" / "websockets_history"


async def test_every_client_ends_with_exactly_the_last_tree(stack: Stack) -> None:
    """From the start, from the middle, cut off twenty times, and with a feed that is added late."""
    await stack.start_gateway()
    await stack.start_pool()
    seed = random.randrange(2**32)
    run = Run(
        load_history(HISTORY),
        url=stack.url,
        token_of=stack.token,
        publish=stack.publish,
        seconds=6,
        cuts=20,
        seed=seed,
    )
    outcome = await run.run()
    assert outcome.faults == [], f"seed {seed}"
    assert outcome.cuts == 20
