"""Whether new results are worse than old ones by more than runs differ by themselves.

Pure. A figure is judged by the ratio of its medians. By how much that may differ from 1 comes from
what its unit is known to scatter by (`units`), and, the more runs there are, from their median
absolute deviation, which one bad run does not move. A bare number that has a goal, such as a count,
is judged by whether it meets it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from benchmarks.report import Figure
from benchmarks.results import QUICK, SEED, Result, by_scenario
from benchmarks.units import Direction, Unit, scatter_of, unit_of

PRIOR_RUNS: Final = 2
"""As many runs as what is known of a unit counts for: few runs say little of how they scatter."""
LEAST: Final = 0.05
"""However alike the runs are: so much differs between two days."""
SIGMAS: Final = 4.0
"""Some 200 figures are judged at once, and none of them is to be worse by chance."""
MAD_TO_SIGMA: Final = 1.4826
"""From the median absolute deviation to the standard deviation, if it is normal."""
MEDIAN_ERROR: Final = 1.2533
"""The standard error of a median of n runs, over that of their mean."""

Verdict = Literal["worse", "better", "same", "unjudged"]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one figure.

    Attributes:
        ratio: New over old; infinite where old is 0.
        bound: By what share it may be worse before that is a regression; 0: its goal decides.
        met: Whether its goal is met, before and now; None without a goal.
    """

    scenario: str
    name: str
    unit: str
    old: float
    new: float
    ratio: float
    bound: float
    better: Direction | None
    verdict: Verdict
    met: tuple[bool, bool] | None = None


@dataclass(slots=True)
class Comparison:
    """All that changed.

    Attributes:
        changes: By scenario, in the order of the old results.
        broken: Scenarios that were exact and are not any more.
        notes: What a reader has to know, such as that the computers differ.
    """

    changes: list[Change] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def regressions(self) -> list[Change]:
        """Figures that are worse."""
        return [change for change in self.changes if change.verdict == "worse"]

    @property
    def improvements(self) -> list[Change]:
        """Figures that are better."""
        return [change for change in self.changes if change.verdict == "better"]

    @property
    def ok(self) -> bool:
        """Whether nothing is worse and nothing is broken."""
        return not self.regressions and not self.broken


def compare(old: Sequence[Result], new: Sequence[Result]) -> Comparison:
    """Compare the scenarios that are in both.

    Raises:
        ValueError: When nothing in them can be compared.
    """
    before, after = by_scenario(old), by_scenario(new)
    both = [name for name in before if name in after]
    if not both:
        raise ValueError("no scenario is in both of them")
    if _sizes(old) != _sizes(new):
        raise ValueError("one of them is of --quick runs and the other is not: other sizes")
    comparison = Comparison()
    computers = sorted({one.computer for one in (*old, *new)})
    alike = len(computers) == 1
    if not alike:
        comparison.notes.append(
            "these are different computers, so times, CPU, memory and rates say nothing: only "
            f"ratios are compared ({' | '.join(computers)})"
        )
    for name in both:
        comparison.notes += _notes(name, before[name], after[name])
        if all(run.ok for run in before[name]) and not all(run.ok for run in after[name]):
            comparison.broken.append(name)
        comparison.changes += _changes(before[name], after[name], alike=alike)
    for missing in (*(n for n in before if n not in after), *(n for n in after if n not in before)):
        comparison.notes.append(f"{missing} is in one of them only")
    return comparison


def _sizes(results: Sequence[Result]) -> bool:
    return any(result.value(QUICK) for result in results)


def _notes(name: str, old: Sequence[Result], new: Sequence[Result]) -> Iterator[str]:
    if {run.value(SEED) for run in old} != {run.value(SEED) for run in new}:
        yield f"{name}: the seeds differ"
    gone = {figure for run in old for figure in run.figures} - {
        figure for run in new for figure in run.figures
    }
    if gone:
        yield f"{name}: without {', '.join(sorted(gone))} now"


def _changes(old: Sequence[Result], new: Sequence[Result], *, alike: bool) -> Iterator[Change]:
    # An inexact run's figures say nothing.
    before = [run for run in old if run.ok] or old
    after = [run for run in new if run.ok] or new
    for name, figure in before[0].figures.items():
        values = [_values(name, runs) for runs in (before, after)]
        if name not in (QUICK, SEED) and all(values):
            newest = next(run.figures[name] for run in after if name in run.figures)
            yield _change(before[0].scenario, figure, newest, values[0], values[1], alike=alike)


def _values(name: str, runs: Sequence[Result]) -> list[float]:
    return [run.figures[name].value for run in runs if name in run.figures]


def _change(
    scenario: str,
    was: Figure,
    is_: Figure,
    old: Sequence[float],
    new: Sequence[float],
    *,
    alike: bool,
) -> Change:
    before, after = statistics.median(old), statistics.median(new)
    goal = is_.goal
    met = (goal.is_met(before), goal.is_met(after)) if goal else None
    unit = unit_of(is_.unit)
    bound = _bound(is_, unit, old, new) if unit else 0.0
    verdict: Verdict = "unjudged"
    if met is not None and (unit is None or is_.better is None):
        verdict = "same" if met[0] == met[1] else "better" if met[1] else "worse"
    elif unit and is_.better and is_.unit == was.unit and (alike or unit.kind == "ratio"):
        verdict = _verdict(before, after, is_.better, bound, unit.least)
    ratio = after / before if before else (1.0 if after == before else math.inf)
    return Change(
        scenario, is_.name, is_.unit, before, after, ratio, bound, is_.better, verdict, met
    )


def _bound(figure: Figure, unit: Unit, old: Sequence[float], new: Sequence[float]) -> float:
    """By what share the medians may differ."""
    known = scatter_of(figure.name, unit)
    # So that one run against one may differ by just what is known.
    prior = known / (SIGMAS * math.sqrt(2))
    return max(LEAST, SIGMAS * math.hypot(*(_relative_error(some, prior) for some in (old, new))))


def _relative_error(values: Sequence[float], prior: float) -> float:
    """The standard error of a median as a share of it, from the runs and what is known before."""
    runs, middle = len(values), statistics.median(values)
    deviation = statistics.median(abs(value - middle) for value in values)
    sigma = MAD_TO_SIGMA * deviation / abs(middle) if middle else prior
    variance = ((runs - 1) * sigma**2 + PRIOR_RUNS * prior**2) / (runs - 1 + PRIOR_RUNS)
    return math.sqrt(variance / runs) * (MEDIAN_ERROR if runs > 2 else 1.0)


def _verdict(before: float, after: float, better: Direction, bound: float, least: float) -> Verdict:
    if abs(after - before) <= least:
        return "same"
    # As factors, so that twice as much and half as much are equally far.
    low, high = sorted((before, after))
    if low > 0 and high / low <= 1 + bound:
        return "same"
    return "better" if (after < before) == (better == "lower") else "worse"
