"""Results as they were written by `--json`: one object a line, of one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.report import Figure, Goal

QUICK: Final = "quick"
SEED: Final = "seed"


class BadResults(ValueError):
    """A file that holds no results; the text names it, the line, and what is wrong."""


class _Figure(msgspec.Struct):
    value: float
    unit: str = ""
    goal: str | None = None


class _Result(msgspec.Struct):
    scenario: str
    ok: bool
    computer: str
    figures: dict[str, _Figure]


_decode = msgspec.json.Decoder(_Result).decode


@dataclass(frozen=True, slots=True)
class Result:
    """One run of a scenario."""

    scenario: str
    ok: bool
    computer: str
    figures: dict[str, Figure]

    def value(self, name: str) -> float | None:
        """A figure's value, or None."""
        return self.figures[name].value if name in self.figures else None


def read_results(path: Path) -> list[Result]:
    """Read a file that `bench … --json > FILE` has written, or several of them one after the other.

    Raises:
        BadResults: When it is not there or is something else.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise BadResults(f"{path}: {error.strerror or error}") from error
    results = [
        _read(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()
    ]
    if not results:
        raise BadResults(f"{path}: there is no result in it; write one with --json > {path}")
    return results


def _read(path: Path, number: int, line: bytes) -> Result:
    try:
        raw = _decode(line)
        figures = {
            name: Figure(name, one.value, one.unit, Goal.read(one.goal) if one.goal else None)
            for name, one in raw.figures.items()
        }
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadResults(f"{path}:{number}: {error}; a line is what --json prints") from error
    return Result(raw.scenario, raw.ok, raw.computer, figures)


def by_scenario(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The runs of each scenario, in the order in which scenarios come first."""
    runs: dict[str, list[Result]] = {}
    for result in results:
        runs.setdefault(result.scenario, []).append(result)
    return runs
