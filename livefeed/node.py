"""What the agent of a cloud node does about the node's end, as a state machine. Pure.

A notice says that the node goes. Its livefeed process is told once to leave, and drains by itself;
the lifecycle action is kept alive meanwhile, and completed when the process has ended or the
deadline has come. Seconds are those of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

Kind = Literal["termination", "spot", "rebalance"]
"""Of a notice: the group ends the node, the cloud takes a spot node back, or it may do so soon."""

SPOT_MARGIN_SECONDS: Final = 5.0
"""So long before a spot node is taken back nothing is left to do on it."""
COMPLETE_SECONDS_MAX: Final = 3_900.0
"""After a termination notice the action is tried for so long: its hook waits for the balancer to
let the node go, which takes an hour at most. Then the hook's own default decides."""
RETRY_SECONDS_MAX: Final = 15.0

LAG: Final = "Lag"
"""Name of the metric: messages pending and in workers' hands."""
CONNECTIONS: Final = "Connections"
"""Name of the metric: connections of one gateway node."""
STREAM: Final = "Stream"
CONSUMER: Final = "Consumer"
GROUP: Final = "AutoScalingGroupName"
INSTANCE: Final = "InstanceId"


class Policy(NamedTuple):
    """What the settings ask for."""

    deadline_seconds: float
    """How long the process may take, from the first notice on."""
    heartbeat_seconds: float
    drains_on_rebalance: bool = False
    has_hook: bool = True
    """Whether a lifecycle action waits for this node."""


class Sight(NamedTuple):
    """What one look found; what could not be asked is as if it were not."""

    terminating: bool = False
    spot_seconds: float | None = None
    """Until the spot node is taken back."""
    rebalance: bool = False
    pid: int | None = None
    """The livefeed process, while one runs."""


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered from look to look."""

    notices: frozenset[Kind] = frozenset()
    deadline: float | None = None
    """Set by the first notice that calls for leaving; later ones only bring it forward."""
    told: int | None = None
    """The process that was told to leave: once, for the second time means at once."""
    ended: bool = False
    overdue: bool = False
    heartbeat_at: float = 0.0
    complete_at: float = 0.0
    give_up_at: float = 0.0
    failures: int = 0
    closed: bool = False
    """The lifecycle action is completed or given up."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """A notice came."""

    kind: Kind
    seconds: float | None
    """Until the deadline; None when the notice does not call for leaving."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Have a process leave."""

    pid: int


@dataclass(frozen=True, slots=True)
class Ended:
    """No process is left."""

    told: bool
    """Whether one was told; else there was none to tell."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """The deadline has come, and a process is left."""

    pid: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Keep the lifecycle action waiting."""


@dataclass(frozen=True, slots=True)
class Complete:
    """Complete the lifecycle action; what came of it goes to `completed`."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The lifecycle action could not be completed."""


Action = Noticed | Tell | Ended | Overdue | Heartbeat | Complete | GiveUp


def step(state: State, sight: Sight, now: float, policy: Policy) -> tuple[State, list[Action]]:
    """What to do after a look, in order."""
    state, actions = _notice(state, sight, now, policy)
    if state.deadline is None:
        return state, actions
    for part in (_leave, _hook):
        state, more = part(state, sight, now, policy)
        actions += more
    return state, actions


def completed(state: State, now: float, *, succeeded: bool, chance: float) -> State:
    """What is remembered of an attempt to complete the action.

    Args:
        state: Before it.
        now: Seconds.
        succeeded: Whether the action is completed.
        chance: From 0 to 1, so that nodes that end together do not ask together.
    """
    if succeeded:
        return replace(state, closed=True)
    failures = state.failures + 1
    again_at = now + retry_seconds(failures, chance)
    return replace(state, failures=failures, complete_at=again_at)


def untold(state: State) -> State:
    """What is remembered when a process could not be told to leave: it is told again."""
    return replace(state, told=None)


def retry_seconds(failures: int, chance: float) -> float:
    """How long to wait before the next try, after so many in a row that failed.

    Args:
        failures: At least 1.
        chance: From 0 to 1, so that nodes that fail together do not come back together.
    """
    return min(RETRY_SECONDS_MAX, 2.0 ** min(failures - 1, 10)) * (0.5 + chance / 2)


def _notice(state: State, sight: Sight, now: float, policy: Policy) -> tuple[State, list[Action]]:
    actions: list[Action] = []
    for kind in _kinds(sight):
        if kind in state.notices:
            continue
        state = replace(state, notices=state.notices | {kind})
        if kind == "termination":
            state = replace(state, give_up_at=now + COMPLETE_SECONDS_MAX)
        seconds = _seconds_to_leave(kind, sight, policy)
        if seconds is not None:
            by = now + seconds
            sooner = by if state.deadline is None else min(state.deadline, by)
            state = replace(state, deadline=sooner)
        actions.append(Noticed(kind, seconds))
    return state, actions


def _kinds(sight: Sight) -> Iterable[Kind]:
    if sight.terminating:
        yield "termination"
    if sight.spot_seconds is not None:
        yield "spot"
    if sight.rebalance:
        yield "rebalance"


def _seconds_to_leave(kind: Kind, sight: Sight, policy: Policy) -> float | None:
    if kind == "rebalance" and not policy.drains_on_rebalance:
        return None
    if kind == "spot" and sight.spot_seconds is not None:
        left = max(0.0, sight.spot_seconds - SPOT_MARGIN_SECONDS)
        return min(policy.deadline_seconds, left)
    return policy.deadline_seconds


def _leave(state: State, sight: Sight, now: float, _policy: Policy) -> tuple[State, list[Action]]:
    """Have whatever runs leave: also one that a manager has started again meanwhile."""
    pid = sight.pid
    if pid is None:
        if state.ended:
            return state, []
        return replace(state, ended=True), [Ended(told=state.told is not None)]
    state = replace(state, ended=False)
    if pid != state.told:
        return replace(state, told=pid), [Tell(pid)]
    if not state.overdue and _is_late(state, now):
        return replace(state, overdue=True), [Overdue(pid)]
    return state, []


def _hook(state: State, _sight: Sight, now: float, policy: Policy) -> tuple[State, list[Action]]:
    """Only a termination has a lifecycle action; one may follow the other notices."""
    if not policy.has_hook or "termination" not in state.notices or state.closed:
        return state, []
    if now >= state.give_up_at:
        return replace(state, closed=True), [GiveUp()]
    if state.ended or _is_late(state, now):
        return state, [Complete()] if now >= state.complete_at else []
    if now < state.heartbeat_at:
        return state, []
    return replace(state, heartbeat_at=now + policy.heartbeat_seconds), [Heartbeat()]


def _is_late(state: State, now: float) -> bool:
    return state.deadline is not None and now >= state.deadline


class Metric(NamedTuple):
    """One figure, as it is published."""

    name: str
    dimensions: Mapping[str, str]
    value: float


def lag_metrics(lags: Mapping[str, Mapping[str, int]]) -> list[Metric]:
    """The lag of each consumer, of each stream, and of all, by which workers are scaled.

    Args:
        lags: Messages pending and in workers' hands, by stream and consumer.
    """
    metrics = [Metric(LAG, {}, sum(sum(lag.values()) for lag in lags.values()))]
    for stream, lag in lags.items():
        metrics.append(Metric(LAG, {STREAM: stream}, sum(lag.values())))
        metrics += [
            Metric(LAG, {STREAM: stream, CONSUMER: consumer}, value)
            for consumer, value in lag.items()
        ]
    return metrics


def connection_metrics(connections: int, *, group: str | None, instance: str) -> list[Metric]:
    """The connections of a gateway node; the group's average is what a node has."""
    metrics = [Metric(CONNECTIONS, {INSTANCE: instance}, connections)]
    if group is not None:
        metrics.append(Metric(CONNECTIONS, {GROUP: group}, connections))
    return metrics
