"""Health in one aggregate: problems make checks, checks a report; and the rules for our own parts.

Pure. `broker_health` and `database_health` have the rules for the servers; adapters gather facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, get_args

State = Literal["healthy", "degraded", "unhealthy"]
"""Degraded serves, with less than was asked for; unhealthy does not serve, or may lose updates."""
STATES: Final[tuple[State, ...]] = get_args(State)
"""From best to worst."""

Part = Literal[
    "broker",
    "durability",
    "streams",
    "consumers",
    "dead_letters",
    "primary",
    "schema",
    "epoch",
    "replica",
    "redis",
    "workers",
    "gateway",
]
PARTS: Final[tuple[Part, ...]] = get_args(Part)

PROBLEMS_SHOWN_MAX: Final = 3
"""A check names so many of its problems, the worst first, and counts the rest."""

Figure = int | float | str | bool


class Problem(NamedTuple):
    """One thing that is wrong with a part."""

    state: State
    reason: str
    """What is wrong, and why."""
    mend: str
    """What to do about it."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was found out about one part."""

    part: Part
    state: State
    reason: str
    mend: str | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """Every check, in the order of `PARTS`."""

    checks: tuple[Check, ...]

    @property
    def state(self) -> State:
        """The worst of all."""
        return worst(check.state for check in self.checks)


def report_of(checks: Iterable[Check]) -> Report:
    """Put checks in order."""
    return Report(tuple(sorted(checks, key=lambda check: PARTS.index(check.part))))


def worst(states: Iterable[State]) -> State:
    """The worst of some states; of none, healthy."""
    return max(states, key=STATES.index, default="healthy")


def conclude(
    part: Part,
    problems: Sequence[Problem],
    *,
    healthy: str,
    figures: Mapping[str, Figure] | None = None,
) -> Check:
    """One check of all the problems of a part; `healthy` is its reason when there are none."""
    figures = figures or {}
    if not problems:
        return Check(part, "healthy", healthy, None, figures)
    ordered = sorted(problems, key=lambda problem: -STATES.index(problem.state))
    reasons = list(dict.fromkeys(problem.reason for problem in ordered))
    shown, hidden = reasons[:PROBLEMS_SHOWN_MAX], len(reasons[PROBLEMS_SHOWN_MAX:])
    mends = dict.fromkeys(problem.mend for problem in ordered)
    reason = "; ".join(shown) + (f"; and {hidden} more" if hidden else "")
    return Check(part, ordered[0].state, reason, "; ".join(mends), figures)


def not_checked(part: Part, because: str, mend: str) -> Check:
    """What could not be looked at is not healthy, and not known to be broken either."""
    return Check(part, "degraded", f"could not be checked: {because}", mend)


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def unavailable(parts: Iterable[Part], because: str, mend: str) -> list[Check]:
    """The first part is away; those behind it could not be looked at."""
    first, *behind = parts
    return [
        Check(first, "unhealthy", because, mend),
        *(not_checked(part, f"the {first} is away", f"see {first}") for part in behind),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionFacts:
    """One function, listened to for a moment."""

    function: str
    workers: int
    lags: tuple[int, ...]
    """Messages pending and in workers' hands, from the first look to the last."""


def workers(found: Sequence[FunctionFacts]) -> Check:
    """Whether somebody takes the updates that wait."""
    problems = []
    for facts in found:
        waited = min(facts.lags, default=0)
        if facts.workers == 0 and waited and facts.lags[-1] >= facts.lags[0]:
            reason = f"nothing takes updates: {facts.lags[-1]} messages wait for {facts.function}"
            mend = "start `livefeed pool`; it starts no worker of deliver while the primary is away"
            problems.append(Problem("unhealthy", reason, mend))
    figures: dict[str, Figure] = {}
    for facts in found:
        figures[f"{facts.function}_workers"] = facts.workers
        figures[f"{facts.function}_lag"] = facts.lags[-1] if facts.lags else 0
    heard = [f"{facts.function} {facts.workers}" for facts in found if facts.workers]
    healthy = ", ".join(heard) if heard else "asleep: nothing waits"
    return conclude("workers", problems, healthy=healthy, figures=figures)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayFacts:
    """What one gateway answers."""

    address: str
    answers: bool
    ready: bool
    reason: str
    """Why not; empty when it is ready."""


def gateway(found: Sequence[GatewayFacts]) -> Check:
    """Whether clients can come; with some gateways of several away they still can."""
    ready = sum(facts.ready for facts in found)
    state: State = "degraded" if ready else "unhealthy"
    problems = [
        Problem(
            state,
            f"{facts.address} is not ready: {facts.reason}"
            if facts.answers
            else f"nothing answers on {facts.address}: {facts.reason}",
            "see the other checks, or its log" if facts.answers else "start `livefeed gateway`",
        )
        for facts in found
        if not facts.ready
    ]
    figures = {"ready": ready, "asked": len(found)}
    addresses = ", ".join(facts.address for facts in found)
    return conclude("gateway", problems, healthy=f"ready on {addresses}", figures=figures)
