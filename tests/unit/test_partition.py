"""Partitions and who serves them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livefeed.limits import ANNOUNCED_SECONDS_MAX, PARTITIONS
from livefeed.partition import alive, partition_of, served_by

Names = st.sets(st.text("abcdef0123456789", min_size=1, max_size=6), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("owner", "partition"),
    [("user:alice", 14), ("user:bob", 9), ("topic:home", 5), ("user:a/b", 8)],
)
def test_the_partition_of_an_owner_is_fixed_for_ever(owner: str, partition: int) -> None:
    """Stored lane messages and consumers depend on it: these values may never change."""
    assert partition_of(owner) == partition


def test_partitions_are_even() -> None:
    """Sixteen thousand users fall about evenly."""
    counts = [0] * PARTITIONS
    for number in range(16_000):
        counts[partition_of(f"user:{number}")] += 1
    assert min(counts) > 850
    assert max(counts) < 1150


@given(workers=Names)
def test_each_partition_has_exactly_one_server(workers: set[str]) -> None:
    """Workers that know of each other share the partitions without overlap or gap."""
    shares = [served_by(worker, workers) for worker in workers]
    assert sorted(partition for share in shares for partition in share) == list(range(PARTITIONS))


@given(workers=Names, newcomer=st.just("newcomer"))
def test_a_newcomer_moves_only_its_own_share(workers: set[str], newcomer: str) -> None:
    """Nobody gains a partition when a worker joins, but the one who joins."""
    for worker in workers:
        assert served_by(worker, workers | {newcomer}) <= served_by(worker, workers)


def test_a_silent_worker_is_not_alive() -> None:
    """A worker counts for three seconds after its last word."""
    heard_at = {"old": 0.0, "new": 1.0}
    assert alive(heard_at, ANNOUNCED_SECONDS_MAX + 0.5) == {"new"}
