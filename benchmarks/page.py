"""What one reads at the end: all scenarios on one page, and what became worse."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from benchmarks.regressions import Change, Comparison
from benchmarks.report import Report, aligned, computer, number_text

NOTES_ALIKE: Final = 4
"""From so many scenarios on they are counted, not named."""
_NUMBER: Final = re.compile(r"\d[\d.,]*")
VERDICTS: Final = {"worse": "WORSE", "better": "better", "same": "same", "unjudged": "–"}
"""How a comparison's verdicts are written."""


def page(reports: Sequence[Report], *, seconds: float, seed: int, quick: bool) -> str:
    """Every figure that has a goal, what is side by side, what was not exact or has to be known.

    Args:
        reports: Of all scenarios.
        seconds: How long they took together.
        seed: Of all of them.
        quick: Whether they were small and short.
    """
    rows: list[tuple[str, ...]] = [("scenario", "figure", "value", "unit", "goal", "")]
    verdicts: list[bool | None] = []
    for report in reports:
        with_goal = [figure for figure in report.figures if figure.goal is not None]
        verdicts += [figure.met for figure in with_goal]
        if not with_goal or not report.ok:
            rows.append((report.scenario, *_exactness(report)))
        rows += [(report.scenario, one.name, *one.cells()) for one in with_goal]
    exact = sum(report.ok for report in reports)
    tables = [line for report in reports for table in report.tables for line in table.lines()]
    lines = [
        *aligned(rows, right=(2,)),
        *(["", *tables] if tables else []),
        "",
        f"exact: {exact} of {len(reports)} scenarios; goals met: {verdicts.count(True)} of "
        f"{len(verdicts)}; seed {seed}; {seconds:.0f} s; {computer()}",
    ]
    if quick:
        lines.append("quick: small and short, to show that it works; goals are for the whole size")
    lines += [
        f"{report.scenario}: failed: {report.failure}" for report in reports if report.failure
    ]
    return "\n".join([*lines, *_notes(reports)])


def _notes(reports: Sequence[Report]) -> list[str]:
    """Each note with its scenario; one that differs by its numbers alone stands once for many."""
    found: dict[str, dict[str, str]] = {}
    for report in reports:
        for note in report.notes:
            found.setdefault(_NUMBER.sub("#", note), {}).setdefault(report.scenario, note)
    return [
        f"{', '.join(notes)}: {next(iter(notes.values()))}"
        if len(notes) < NOTES_ALIKE
        else f"{len(notes)} scenarios, such as {next(iter(notes))}: {next(iter(notes.values()))}"
        for notes in found.values()
    ]


def _exactness(report: Report) -> tuple[str, str, str, str, str]:
    if report.failure:
        return "failed", "", "", "", "NOT OK"
    wrong = {name: number for name, number in report.faults.items() if number}
    said = ", ".join(f"{name} {number:,}" for name, number in wrong.items())
    return said or "exact", "", "", "", "NOT OK" if wrong else "ok"


# What became worse.


def comparison_text(comparison: Comparison, *, every: bool) -> str:
    """A comparison for a terminal; with `every`, also what is the same."""
    changes = _shown(comparison, every=every)
    lines = aligned([_HEAD, *map(_row, changes)], right=(2, 3, 5)) if changes else []
    lines += [f"{name}: exact before, not any more" for name in comparison.broken]
    return "\n".join([*lines, *comparison.notes, _summary(comparison)])


def comparison_markdown(comparison: Comparison) -> str:
    """A comparison for a comment: what changed, and what has a goal folded below it."""
    worst = [one for one in comparison.changes if one.verdict in ("worse", "better")]
    lines = [f"**Benchmarks: {_summary(comparison)}**", ""]
    lines += [f"- **{name}** was exact and is not any more" for name in comparison.broken]
    lines += [f"- {note}" for note in comparison.notes]
    lines += ["", *_markdown_table(worst)] if worst else []
    rest = [one for one in _shown(comparison, every=False) if one not in worst]
    if rest:
        lines += ["", "<details><summary>Figures with a goal that are the same</summary>", ""]
        lines += [*_markdown_table(rest), "", "</details>"]
    return "\n".join([*lines, ""])


def comparison_public(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON."""
    return {
        "ok": comparison.ok,
        "broken": comparison.broken,
        "notes": comparison.notes,
        "figures": [
            {
                "scenario": one.scenario,
                "name": one.name,
                "unit": one.unit,
                "old": one.old,
                "new": one.new,
                "ratio": one.ratio if math.isfinite(one.ratio) else None,
                "bound": one.bound,
                "better": one.better,
                "verdict": one.verdict,
            }
            for one in comparison.changes
        ],
    }


_HEAD: Final = ("scenario", "figure", "old", "new", "unit", "ratio", "noise", "")


def _shown(comparison: Comparison, *, every: bool) -> list[Change]:
    return [
        one
        for one in comparison.changes
        if one.verdict in ("worse", "better")
        # That nothing was lost, as before, is said by what is not there.
        or (one.verdict == "same" and one.better is not None and (every or one.met is not None))
    ]


def _row(one: Change) -> tuple[str, ...]:
    ratio = f"{one.ratio:.2f}" if math.isfinite(one.ratio) else "–"
    noise = f"± {one.bound:.0%}" if one.bound else "goal"
    values = number_text(one.old), number_text(one.new)
    return one.scenario, one.name, *values, one.unit, ratio, noise, VERDICTS[one.verdict]


def _markdown_table(changes: Iterable[Change]) -> list[str]:
    rows = [_HEAD, ("---",) * len(_HEAD), *map(_row, changes)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def _summary(comparison: Comparison) -> str:
    judged = [one for one in comparison.changes if one.verdict != "unjudged"]
    worse, better = len(comparison.regressions), len(comparison.improvements)
    same = len(judged) - worse - better
    broken = f"{len(comparison.broken)} not exact any more, " if comparison.broken else ""
    return f"{broken}{worse} worse, {better} better, {same} the same"
