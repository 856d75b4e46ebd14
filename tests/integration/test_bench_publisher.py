"""The publishing side of a load: on its schedule, gathered when asked to, patient when asked to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.publisher import Burst, Due, post_all
from livefeed.errors import OutcomeUnknown, Unavailable


class Server:
    """Accepts an update after it has said no in these ways, one after the other."""

    def __init__(self, *refusals: Exception) -> None:
        self.refusals = refusals
        self.tries: dict[int, int] = {}
        self.batches: list[list[int]] = []

    async def post(self, number: int, *, due: int, recorded: bool) -> None:
        assert recorded
        assert due > 0
        before = self.tries.get(number, 0)
        self.tries[number] = before + 1
        if before < len(self.refusals):
            raise self.refusals[before]

    async def together(self, some: Sequence[Due], recorded: bool) -> None:
        assert recorded
        self.batches.append([one.number for one in some])
        if self.refusals:
            raise self.refusals[0]


def burst(*, gather: float = 0.0, patience: float = 0.0, count: int = 20) -> Burst:
    return Burst(
        100, count, 1_000.0, recorded=True, gather_seconds=gather, patience_seconds=patience
    )


async def test_each_update_is_published_once_by_itself() -> None:
    server = Server()
    published = await post_all(server.post, burst(), server.together)
    assert server.tries == dict.fromkeys(range(100, 120), 1)
    assert server.batches == []
    assert (published.accepted, published.late.count) == (20, 20)


async def test_what_is_due_within_a_time_goes_together_in_order() -> None:
    server = Server()
    published = await post_all(server.post, burst(gather=0.0045), server.together)
    assert [number for batch in server.batches for number in batch] == list(range(100, 120))
    assert [len(batch) for batch in server.batches] == [6, 6, 6, 2]
    assert server.tries == {}
    assert (published.accepted, published.late.count) == (20, 20)
    assert published.late.maximum >= 0.004, "it counts from when each of them was due"


async def test_a_batch_that_is_not_accepted_is_published_one_by_one() -> None:
    server = Server(OutcomeUnknown("no answer"))
    published = await post_all(server.post, burst(gather=0.01, patience=5), server.together)
    assert server.tries == dict.fromkeys(range(100, 120), 2)
    assert published.accepted == 20


@pytest.mark.parametrize(
    ("refusals", "unknown", "refused"),
    [
        ([Unavailable("nats", "full")], 0, 1),
        ([OutcomeUnknown("no answer")], 1, 0),
    ],
)
async def test_without_patience_one_attempt_decides(
    refusals: list[Exception], unknown: int, refused: int
) -> None:
    published = await post_all(Server(*refusals).post, burst(count=1))
    assert (len(published.unknown), len(published.refused)) == (unknown, refused)
    assert published.accepted == 0


async def test_with_patience_it_is_published_until_it_is_accepted() -> None:
    server = Server(Unavailable("nats", "away"), OutcomeUnknown("no answer"))
    published = await post_all(server.post, burst(count=3, patience=10))
    assert server.tries == dict.fromkeys(range(100, 103), 3)
    assert published.accepted == 3


async def test_what_may_have_been_stored_is_unknown_whatever_is_said_later() -> None:
    always = [OutcomeUnknown("no answer"), *[Unavailable("nats", "full")] * 50]
    published = await post_all(Server(*always).post, burst(count=1, patience=0.3))
    assert published.unknown == {100}
    assert published.refused == set()
