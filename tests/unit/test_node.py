"""What a node's agent does about the end of its node, whatever comes in whatever order."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livefeed import node
from livefeed.errors import Misconfigured
from livefeed.node import (
    Action,
    Complete,
    Ended,
    GiveUp,
    Heartbeat,
    Noticed,
    Overdue,
    Policy,
    Sight,
    State,
    Tell,
    completed,
    step,
)
from livefeed.node_settings import load_node_settings

POLICY = Policy(deadline_seconds=60, heartbeat_seconds=20)
RUNNING = Sight(pid=7)
ENDING = Sight(terminating=True, pid=7)


class Done(NamedTuple):
    """An action, and when."""

    at: float
    action: Action


class Run:
    """A machine that is given one look after the other."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.state = State()
        self.done: list[Done] = []

    def look(self, now: float, sight: Sight, *, succeeds: bool = True) -> list[Action]:
        """Look once; what it wants to complete succeeds, or does not."""
        self.state, actions = step(self.state, sight, now, self.policy)
        if any(isinstance(action, Complete) for action in actions):
            self.state = completed(self.state, now, succeeded=succeeds, chance=0.5)
        self.done += [Done(now, action) for action in actions]
        return actions

    def of(self, kind: type[Action]) -> list[Done]:
        """What was done of a kind."""
        return [done for done in self.done if isinstance(done.action, kind)]


def test_a_node_that_stays_is_left_alone() -> None:
    """Without a notice nothing is done, whether a process runs or not."""
    run = Run()
    for now in range(100):
        assert run.look(now, RUNNING if now % 3 else Sight()) == []


def test_a_termination_from_the_notice_to_the_end() -> None:
    """The process is told once; the action is kept waiting, then completed, once."""
    run = Run()
    assert run.look(0, ENDING) == [Noticed("termination", 60), Tell(7), Heartbeat()]
    assert run.look(2, ENDING) == []
    assert run.look(20, ENDING) == [Heartbeat()]
    assert run.look(22, Sight(terminating=True)) == [Ended(told=True), Complete()]
    assert run.look(24, Sight(terminating=True)) == []


def test_the_deadline_completes_what_has_not_ended() -> None:
    """A process that hangs does not hold the node for ever."""
    run = Run()
    run.look(0, ENDING)
    assert Complete() not in run.look(59.9, ENDING)
    assert run.look(60, ENDING) == [Overdue(7), Complete()]
    assert run.look(61, ENDING) == []


def test_a_spot_node_is_left_before_it_is_taken() -> None:
    """Its deadline is the sooner of the two; there is no action to complete."""
    run = Run(POLICY._replace(deadline_seconds=300))
    assert run.look(0, Sight(spot_seconds=120, pid=7)) == [Noticed("spot", 115), Tell(7)]
    assert run.look(115, Sight(spot_seconds=5, pid=7)) == [Overdue(7)]
    assert Run().look(0, Sight(spot_seconds=120, pid=7))[0] == Noticed("spot", 60)


def test_a_spot_node_that_its_group_ends_too() -> None:
    """What was drained for the one notice is completed at once for the other."""
    run = Run()
    run.look(0, Sight(spot_seconds=120, pid=7))
    assert run.look(9, Sight(spot_seconds=111)) == [Ended(told=True)]
    both = Sight(terminating=True, spot_seconds=100)
    assert run.look(20, both) == [Noticed("termination", 60), Complete()]


def test_a_notice_that_the_service_forgets_is_remembered() -> None:
    """The metadata service may be away at any look."""
    run = Run()
    run.look(0, ENDING)
    assert run.look(2, RUNNING) == []
    assert run.look(4, Sight()) == [Ended(told=True), Complete()]


def test_a_rebalance_is_a_notice_and_no_more() -> None:
    """Unless the settings say so: the group starts a successor first, and then ends the node."""
    sight = Sight(rebalance=True, pid=7)
    assert Run().look(0, sight) == [Noticed("rebalance", None)]
    drains = Run(POLICY._replace(drains_on_rebalance=True))
    assert drains.look(0, sight) == [Noticed("rebalance", 60), Tell(7)]


def test_a_process_that_is_started_again_is_told_too() -> None:
    """A manager may start the successor of what has just drained."""
    run = Run()
    run.look(0, ENDING)
    run.look(2, Sight(terminating=True))
    assert run.look(4, Sight(terminating=True, pid=8)) == [Tell(8)]
    assert run.look(6, Sight(terminating=True, pid=8)) == []


def test_an_action_that_is_refused_is_tried_until_it_is_given_up() -> None:
    """The hook waits only when the balancer has let go: until then it knows of no action."""
    run = Run()
    now = 0.0
    while not run.state.closed:
        run.look(now, Sight(terminating=True), succeeds=False)
        now += 1
    tries = run.of(Complete)
    assert tries[0].at == 0
    assert all(
        1 <= later.at - earlier.at <= node.RETRY_SECONDS_MAX
        for earlier, later in itertools.pairwise(tries)
    )
    assert run.of(GiveUp) == [Done(node.COMPLETE_SECONDS_MAX, GiveUp())]


def test_without_a_hook_nothing_is_completed() -> None:
    """A group may have none."""
    run = Run(POLICY._replace(has_hook=False))
    assert run.look(0, ENDING) == [Noticed("termination", 60), Tell(7)]
    assert run.look(1, Sight(terminating=True)) == [Ended(told=True)]


class Look(NamedTuple):
    """A look of a made-up run."""

    seconds: float
    sight: Sight
    succeeds: bool


LOOKS = st.lists(
    st.builds(
        Look,
        seconds=st.floats(0, 40),
        sight=st.builds(
            Sight,
            terminating=st.booleans(),
            spot_seconds=st.none() | st.floats(-10, 130),
            rebalance=st.booleans(),
            pid=st.none() | st.integers(1, 3),
        ),
        succeeds=st.booleans(),
    ),
    max_size=60,
)
POLICIES = st.builds(
    Policy,
    deadline_seconds=st.floats(1, 200),
    heartbeat_seconds=st.floats(1, 60),
    drains_on_rebalance=st.booleans(),
    has_hook=st.booleans(),
)


@given(POLICIES, LOOKS)
def test_whatever_comes(policy: Policy, looks: list[Look]) -> None:
    """Told once each, never without a notice; completed once, never before the end or deadline."""
    run, now, before = Run(policy), 0.0, None
    for look in looks:
        now += look.seconds
        actions = run.look(now, look.sight, succeeds=look.succeeds)
        deadline = run.state.deadline
        if before is not None:
            assert deadline is not None
            assert deadline <= before
        before = deadline
        if deadline is None:
            assert all(action == Noticed("rebalance", None) for action in actions)
        if Complete() in actions:
            assert policy.has_hook
            assert "termination" in run.state.notices
            assert look.sight.pid is None or (deadline is not None and now >= deadline)
        if Heartbeat() in actions:
            assert look.sight.pid is not None
            assert deadline is not None
            assert now < deadline
    told = [done.action.pid for done in run.of(Tell) if isinstance(done.action, Tell)]
    assert all(one != following for one, following in itertools.pairwise(told))
    beats = [done.at for done in run.of(Heartbeat)]
    assert all(
        later - earlier >= policy.heartbeat_seconds * 0.999
        for earlier, later in itertools.pairwise(beats)
    )
    completes = [done.at for done in run.of(Complete)]
    assert all(one < following for one, following in itertools.pairwise(completes))
    kinds = [done.action.kind for done in run.of(Noticed) if isinstance(done.action, Noticed)]
    assert len(kinds) == len(set(kinds))


@given(POLICIES, LOOKS)
def test_it_comes_to_an_end(policy: Policy, looks: list[Look]) -> None:
    """After a termination notice, whatever came before, the action is closed in bounded time."""
    run, now = Run(policy._replace(has_hook=True)), 0.0
    for look in [*looks, Look(1, ENDING, succeeds=False)]:
        now += look.seconds
        run.look(now, look.sight, succeeds=look.succeeds)
    began_at = now
    while not run.state.closed:
        now += 5
        run.look(now, ENDING, succeeds=False)
    assert now - began_at <= node.COMPLETE_SECONDS_MAX + 5


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_retries_are_bounded(failures: int, chance: float) -> None:
    """However often it failed."""
    assert 0.5 <= node.retry_seconds(failures, chance) <= node.RETRY_SECONDS_MAX


def test_the_lag_adds_up() -> None:
    """Each consumer, each stream, and all: the last is what workers are scaled by."""
    metrics = node.lag_metrics({"A": {"one": 2, "two": 3}, "B": {"one": 5}})
    assert {
        (metric.name, *sorted(metric.dimensions.items())): metric.value for metric in metrics
    } == {
        ("Lag",): 10,
        ("Lag", ("Stream", "A")): 5,
        ("Lag", ("Consumer", "one"), ("Stream", "A")): 2,
        ("Lag", ("Consumer", "two"), ("Stream", "A")): 3,
        ("Lag", ("Stream", "B")): 5,
        ("Lag", ("Consumer", "one"), ("Stream", "B")): 5,
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"LIFECYCLE_HOOK": "drain"}, "LIVEFEED_NODE_AUTOSCALING_GROUP"),
        ({"ROLE": "database"}, "LIVEFEED_NODE_ROLE"),
        ({"METADATA_URL": "169.254.169.254"}, "LIVEFEED_NODE_METADATA_URL"),
        ({"DEADLINE_SECONDS": "0"}, "LIVEFEED_NODE_DEADLINE_SECONDS"),
    ],
)
def test_settings_that_are_refused(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], said: str
) -> None:
    """Each by its variable."""
    for name, value in given.items():
        monkeypatch.setenv(f"LIVEFEED_NODE_{name}", value)
    with pytest.raises(Misconfigured, match=said):
        load_node_settings()
