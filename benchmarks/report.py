"""What a scenario found out: figures as a table and as JSON, and whether deliveries were exact."""

from __future__ import annotations

import contextlib
import math
import os
import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self

import psutil

from benchmarks.chart import Chart
from benchmarks.units import Direction, unit_of

Bound = Literal["≤", "≥", "="]
BOUNDS: Final[dict[str, Bound]] = {"≤": "≤", "≥": "≥", "=": "="}
GIB: Final = 1024**3


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure has to be."""

    bound: Bound
    limit: float

    def is_met(self, value: float) -> bool:
        """Whether a value is within the goal."""
        if self.bound == "=":
            return value == self.limit
        return value <= self.limit if self.bound == "≤" else value >= self.limit

    @property
    def better(self) -> Direction | None:
        """Which values are better; None where only one is right."""
        return {"≤": "lower", "≥": "higher"}.get(self.bound)  # type: ignore[return-value]

    def __str__(self) -> str:
        return f"{self.bound} {self.limit:g}"

    @classmethod
    def read(cls, text: str) -> Self:
        """A goal from its text; raises ValueError."""
        bound, _, limit = text.partition(" ")
        if bound not in BOUNDS:
            raise ValueError(f"a goal is like '≤ 15', not {text!r}")
        return cls(BOUNDS[bound], float(limit))


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value; one without a goal helps to understand those that have one."""

    name: str
    value: float
    unit: str = ""
    goal: Goal | None = None

    @property
    def met(self) -> bool | None:
        """Whether its goal is met; None without one."""
        return None if self.goal is None else self.goal.is_met(self.value)

    @property
    def better(self) -> Direction | None:
        """Which values are better, as its goal or else its unit says; None: it says nothing."""
        if self.goal is not None:
            return self.goal.better
        unit = unit_of(self.unit)
        return unit.better if unit else None

    def cells(self) -> tuple[str, str, str, str]:
        """Its value, unit, goal and verdict for a row of a table."""
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        return number_text(self.value), self.unit, str(self.goal or ""), verdict

    def public(self) -> dict[str, Any]:
        """Its JSON."""
        goal = None if self.goal is None else str(self.goal)
        return {"value": self.value, "unit": self.unit, "goal": goal, "met": self.met}


@dataclass(slots=True)
class Table:
    """What is compared side by side, in numbers and in words.

    Attributes:
        title: What all of it has in common.
        rows: As many cells in each as there are columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Add a row; the cells that are not given are empty."""
        self.rows.append((*cells, *[""] * (len(self.columns) - len(cells))))

    def public(self) -> dict[str, Any]:
        """Its JSON."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows}

    def lines(self) -> list[str]:
        """It as text for a terminal."""
        return [self.title, *aligned([self.columns, *self.rows], right=())]


@dataclass(slots=True)
class Report:
    """What one run of a scenario says.

    Attributes:
        scenario: Its name.
        figures: In the order in which they are shown.
        failure: Why it could not be run to its end, or empty.
        notes: Sentences that somebody who reads the figures has to know.
        tables: What is shown below the figures; most scenarios have none.
    """

    scenario: str
    figures: list[Figure] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    """By kind, such as `lost`: deliveries that were not exact. All 0, or the report is not ok."""
    failure: str = ""
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    """What a scenario draws that says so; the first is what `--plot` writes."""

    @property
    def ok(self) -> bool:
        """Whether it ran to its end and nothing was lost, doubled, foreign or inexact."""
        return not self.failure and not any(self.faults.values())

    def add(self, name: str, value: float, unit: str = "", goal: Goal | None = None) -> None:
        """Add a figure."""
        self.figures.append(Figure(name, value, unit, goal))

    def values(self) -> dict[str, float]:
        """The figures' values by name."""
        return {figure.name: figure.value for figure in self.figures}

    def describe(self, *, seed: int, quick: bool) -> None:
        """Add what the run was asked for, unless the scenario itself has said it."""
        said = {figure.name for figure in self.figures}
        for name, value in (("seed", seed), ("quick", int(quick))):
            if name not in said:
                self.add(name, value)

    def public(self) -> dict[str, Any]:
        """Its JSON, as the design has it."""
        return {
            "scenario": self.scenario,
            "ok": self.ok,
            "computer": computer(),
            "figures": {figure.name: figure.public() for figure in self.all_figures()},
            **({"tables": [table.public() for table in self.tables]} if self.tables else {}),
        }

    def table(self) -> str:
        """The figures as text for a terminal."""
        rows: list[tuple[str, ...]] = [("figure", "value", "unit", "goal", "")]
        # What has to be something stands above what explains it.
        figures = sorted(self.all_figures(), key=lambda figure: figure.goal is None)
        rows += [(one.name, *one.cells()) for one in figures]
        lines = [
            f"{self.scenario}: {'ok' if self.ok else 'NOT OK'}   ({computer()})",
            *aligned(rows, right=(1,)),
            *(line for table in self.tables for line in ("", *table.lines())),
        ]
        lines += [f"failed: {self.failure}"] if self.failure else []
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def all_figures(self) -> list[Figure]:
        """Every figure, with the faults by their kinds as the last ones."""
        zero = Goal("=", 0)
        return [*self.figures, *(Figure(name, n, "", zero) for name, n in self.faults.items())]


def computer() -> str:
    """The computer in general words."""
    memory = psutil.virtual_memory().total / GIB
    return (
        f"{os.cpu_count()} CPUs {_processor()}, {memory:.0f} GiB, {platform.system()}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def merged(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sums of counts of the same names."""
    sums: dict[str, int] = {}
    for part in parts:
        for name, number in part.items():
            sums[name] = sums.get(name, 0) + number
    return sums


def _processor() -> str:
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def number_text(value: float) -> str:
    """A number as one reads it: three digits, or all of a whole one."""
    if math.isfinite(value) and float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"


def aligned(rows: Sequence[Sequence[str]], *, right: Collection[int]) -> list[str]:
    """The lines of a table; in the columns `right`, digits are below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if place in right else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
