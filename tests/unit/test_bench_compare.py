"""`bench compare`: what is worse by more than runs differ by themselves, and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.page import comparison_markdown, comparison_text
from benchmarks.regressions import Comparison, compare
from benchmarks.report import Goal, Report
from benchmarks.results import BadResults, Result, read_results
from livefeed.cli.bench import command
from livefeed.errors import Misconfigured

COMPUTER = "2 CPUs of a kind"
Figures = dict[str, tuple[float, str, str | None]]

FIGURES: Figures = {
    "cpu_us_per_message": (10.0, "µs", None),
    "p50_ms": (20.0, "ms", "≤ 25"),
    "p99_ms": (80.0, "ms", "≤ 100"),
    "updates_per_second": (12_000.0, "/s", "≥ 10000"),
    "floor_ratio": (1.1, "×", "≤ 1.25"),
    "hit_share": (0.9, "share", "≥ 0.8"),
    "rss_mib_gateway": (100.0, "MiB", None),
    "count": (30_000.0, "", "≥ 30000"),
    "lost": (0.0, "", "= 0"),
    "deliveries": (1_000.0, "", None),
    "cpu_seconds_naive": (5.0, "s (naive)", None),
    "seed": (1.0, "", None),
    "quick": (0.0, "", None),
}


def line(
    figures: Figures | None = None, *, ok: bool = True, computer: str = COMPUTER, **values: float
) -> str:
    """One run of the scenario `some`, with these values instead of the usual ones."""
    public = {
        name: {
            "value": values.get(name, value),
            "unit": unit,
            "goal": goal,
            "met": Goal.read(goal).is_met(values.get(name, value)) if goal else None,
        }
        for name, (value, unit, goal) in (figures or FIGURES).items()
    }
    run = {"scenario": "some", "ok": ok, "computer": computer, "figures": public}
    return json.dumps(run, ensure_ascii=False)


def results(tmp_path: Path, *lines: str) -> list[Result]:
    file = tmp_path / "results.json"
    file.write_text("\n".join(lines), encoding="utf-8")
    return read_results(file)


def compared(tmp_path: Path, old: Sequence[str], new: Sequence[str]) -> Comparison:
    return compare(results(tmp_path, *old), results(tmp_path, *new))


def worse(comparison: Comparison) -> set[str]:
    return {change.name for change in comparison.regressions}


def better(comparison: Comparison) -> set[str]:
    return {change.name for change in comparison.improvements}


def test_the_same_results_are_the_same(tmp_path: Path) -> None:
    comparison = compared(tmp_path, [line()], [line()])
    assert comparison.ok
    assert worse(comparison) == better(comparison) == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpu_us_per_message", 14.0),
        ("p50_ms", 33.0),
        ("p99_ms", 180.0),
        ("updates_per_second", 8_500.0),
        ("floor_ratio", 1.5),
        ("hit_share", 0.7),
        ("rss_mib_gateway", 125.0),
        ("count", 20_000.0),
        ("lost", 1.0),
    ],
)
def test_what_is_worse_is_named_and_in_the_other_direction_better(
    tmp_path: Path, name: str, value: float
) -> None:
    comparison = compared(tmp_path, [line()], [line(**{name: value})])
    assert worse(comparison) == {name}
    assert not comparison.ok
    other = compared(tmp_path, [line(**{name: value})], [line()])
    assert better(other) == {name}
    assert other.ok


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpu_us_per_message", 12.0),  # within what CPU scatters by
        ("p50_ms", 26.0),  # the goal is missed now, but it may be chance
        ("p99_ms", 150.0),  # the slowest of many scatter more
        ("deliveries", 10.0),  # no goal, no unit: neither is better
        ("cpu_seconds_naive", 50.0),  # of something else
    ],
)
def test_what_may_be_chance_or_says_nothing_is_not_worse(
    tmp_path: Path, name: str, value: float
) -> None:
    assert compared(tmp_path, [line()], [line(**{name: value})]).ok


def test_a_difference_of_nearly_nothing_is_none_however_large_a_share(tmp_path: Path) -> None:
    figures: Figures = {"p50_ms": (0.3, "ms", None), "idle": (0.1, "% of a core", "≤ 1")}
    assert compared(tmp_path, [line(figures)], [line(figures, p50_ms=1.2, idle=0.9)]).ok


def test_several_runs_say_themselves_by_how_much_they_differ(tmp_path: Path) -> None:
    """Runs that are alike find a change that one run against one would not."""
    steady = [line(p50_ms=20 + number / 10) for number in range(5)]
    slower = [line(p50_ms=25 + number / 10) for number in range(5)]
    assert worse(compared(tmp_path, steady, slower)) == {"p50_ms"}
    assert compared(tmp_path, steady[:1], slower[:1]).ok
    wild = [line(p50_ms=value) for value in (12, 18, 20, 26, 35)]
    wild_later = [line(p50_ms=value) for value in (16, 22, 25, 33, 44)]
    assert compared(tmp_path, wild, wild_later).ok


def test_one_bad_run_moves_neither_the_middle_nor_the_bound(tmp_path: Path) -> None:
    steady = [20.0, 20.1, 20.2, 20.3, 20.4]
    old = [line(p50_ms=value) for value in steady]
    new = [line(p50_ms=value) for value in [*steady[:4], 400.0]]
    assert compared(tmp_path, old, new).ok
    assert compared(tmp_path, new, [line(p50_ms=value + 10) for value in steady]).regressions


def test_runs_of_one_program_are_hardly_ever_worse_than_each_other(tmp_path: Path) -> None:
    """Three runs against three that scatter by 10 %: of 200 comparisons, at most one."""
    source = random.Random(7)

    def runs() -> list[str]:
        return [line(p50_ms=20 * source.lognormvariate(0, 0.1)) for _ in range(3)]

    # Each judges one figure.
    false_alarms = sum(not compared(tmp_path, runs(), runs()).ok for _ in range(200))
    assert false_alarms <= 1


def test_different_computers_are_compared_by_ratios_alone(tmp_path: Path) -> None:
    slow = line(computer="a smaller one", cpu_us_per_message=90.0, p99_ms=900.0, floor_ratio=2.0)
    comparison = compared(tmp_path, [line()], [slow])
    assert worse(comparison) == {"floor_ratio"}
    assert "only ratios are compared" in comparison.notes[0]
    assert "a smaller one" in comparison.notes[0]


def test_a_scenario_that_is_not_exact_any_more_is_a_regression_by_itself(tmp_path: Path) -> None:
    comparison = compared(tmp_path, [line()], [line(ok=False)])
    assert comparison.broken == ["some"]
    assert not comparison.ok
    assert compared(tmp_path, [line(ok=False)], [line(ok=False)]).ok


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    less = {name: figure for name, figure in FIGURES.items() if name != "p50_ms"}
    other = json.loads(line()) | {"scenario": "other"}
    comparison = compared(tmp_path, [line(), json.dumps(other)], [line(less)])
    assert "some: without p50_ms now" in comparison.notes
    assert "other is in one of them only" in comparison.notes


def test_quick_runs_are_not_compared_with_whole_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--quick"):
        compared(tmp_path, [line()], [line(quick=1)])


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    report = Report("some", faults={"lost": 0})
    report.add("p99_ms", 12.5, "ms", Goal("≤", 15))
    report.describe(seed=3, quick=True)
    (result,) = results(tmp_path, json.dumps(report.public()))
    assert result.ok
    assert result.figures["p99_ms"] == report.figures[0]
    assert (result.value("seed"), result.value("quick"), result.value("lost")) == (3, 1, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no result in it"),
        ("[]", "1: Expected `object`, got `array`"),
        ('{"scenario": "x"}', "missing required field"),
        ("latency: ok", "1: JSON is malformed"),
        (line() + "\n{", "2: Input data was truncated"),
        (line({"p": (1.0, "ms", "≤ 2")}).replace("≤ 2", "about 2"), "a goal is like '≤ 15'"),
    ],
)
def test_a_file_of_something_else_is_named_with_its_line(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(BadResults) as refused:
        results(tmp_path, text)
    assert str(tmp_path / "results.json") in str(refused.value)
    assert said in str(refused.value)


def test_the_table_names_what_changed_and_what_has_a_goal(tmp_path: Path) -> None:
    comparison = compared(tmp_path, [line()], [line(p50_ms=60.0, cpu_us_per_message=5.0)])
    table = comparison_text(comparison, every=False)
    assert "rss_mib_gateway" not in table
    assert "rss_mib_gateway" in comparison_text(comparison, every=True)
    rows = {row.split()[1]: row for row in table.splitlines() if row.startswith("some")}
    assert rows["p50_ms"].endswith("WORSE")
    assert "3.00" in rows["p50_ms"]
    assert rows["cpu_us_per_message"].endswith("better")
    assert table.splitlines()[-1] == "1 worse, 1 better, 7 the same"
    markdown = comparison_markdown(comparison)
    assert "| some | p50_ms | 20 | 60 | ms | 3.00 | ± 60% | WORSE |" in markdown
    assert markdown.index("WORSE") < markdown.index("<details>") < markdown.index("floor_ratio")


def invoke(tmp_path: Path, old: str, new: str, *options: str) -> Any:
    files = [tmp_path / "old.json", tmp_path / "new.json"]
    for file, text in zip(files, (old, new), strict=True):
        file.write_text(text, encoding="utf-8")
    return CliRunner().invoke(command, ["compare", *map(str, files), *options])


def test_the_exit_code_is_the_verdict_in_every_form(tmp_path: Path) -> None:
    for options in ((), ("--json",), ("--markdown",), ("--all",)):
        assert invoke(tmp_path, line(), line(), *options).exit_code == 0
        assert invoke(tmp_path, line(), line(p50_ms=60.0), *options).exit_code == 1
    public = json.loads(invoke(tmp_path, line(), line(p50_ms=60.0), "--json").stdout)
    assert public["ok"] is False
    verdicts = {figure["name"]: figure["verdict"] for figure in public["figures"]}
    assert verdicts["p50_ms"] == "worse"
    assert verdicts["p99_ms"] == "same"
    assert verdicts["deliveries"] == "unjudged"


def test_a_malformed_file_is_one_clear_error(tmp_path: Path) -> None:
    outcome = invoke(tmp_path, line(), "{")
    assert isinstance(outcome.exception, Misconfigured)
    assert "new.json:1" in str(outcome.exception)
