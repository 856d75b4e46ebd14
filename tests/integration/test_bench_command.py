"""`livefeed bench` itself: one page for all, one object a scenario, and the exit code."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.report import Goal, Report
from benchmarks.scenario import Options, Scenario, WrongSize
from livefeed.cli import bench
from livefeed.errors import Misconfigured, Unavailable

ASKED: list[Options] = []


async def exact(options: Options) -> Report:
    ASKED.append(options)
    report = Report("exact", faults={"lost": 0}, notes=["others were busy"])
    report.add("p99_ms", 12.0, "ms", Goal("≤", 10))
    return report


async def lossy(_options: Options) -> Report:
    return Report("lossy", faults={"lost": 2})


async def gone(_options: Options) -> Report:
    raise Unavailable("nats", "it is gone")


async def wrong(_options: Options) -> Report:
    raise WrongSize("there is no size x")


def invoke(monkeypatch: pytest.MonkeyPatch, runs: list[Any], *arguments: str) -> Any:
    known = {run.__name__: Scenario(run.__name__, "A sentence.", run) for run in runs}
    monkeypatch.setattr(bench, "_scenarios", lambda: known)
    ASKED.clear()
    return CliRunner().invoke(bench.command, list(arguments))


def test_all_is_one_page_and_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    done = invoke(monkeypatch, [gone, lossy, exact], "all", "--quick", "--seed", "4")
    assert done.exit_code == 1
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows[1:4]] == [
        ["gone", "failed"],
        ["lossy", "lost"],
        ["exact", "p99_ms"],
    ]
    assert "exact: 1 of 3 scenarios; goals met: 0 of 1; seed 4; " in done.stdout
    assert "gone: failed: Unavailable: nats is unavailable: it is gone" in done.stdout
    assert "exact: others were busy" in done.stdout
    assert "livefeed: lossy: NOT OK, after " in done.stderr
    assert ASKED[0].quick
    assert ASKED[0].seed == 4


def test_all_is_one_object_a_scenario_for_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    done = invoke(monkeypatch, [exact, lossy], "all", "--json")
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["scenario"], one["ok"]) for one in objects] == [("exact", True), ("lossy", False)]
    for one in objects:
        assert set(one) == {"scenario", "ok", "computer", "figures"}
        assert one["figures"]["seed"]["value"] == 1
        assert one["figures"]["quick"]["value"] == 0
    assert "livefeed: exact: others were busy" in done.stderr


def test_a_missed_goal_alone_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    done = invoke(monkeypatch, [exact], "exact")
    assert done.exit_code == 0
    assert "MISSED" in done.stdout
    assert invoke(monkeypatch, [exact, exact], "all").exit_code == 0


def test_options_may_stand_before_the_scenario(monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (
        ("--set", "a=1", "exact", "--set", "b=x=y"),
        ("run", "exact", "--set", "a=1", "--set", "b=x=y"),
    ):
        assert invoke(monkeypatch, [exact], *arguments).exit_code == 0
        assert ASKED[0].sizes == {"a": "1", "b": "x=y"}


def test_a_wrong_size_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    done = invoke(monkeypatch, [wrong], "wrong", "--set", "x=1")
    assert isinstance(done.exception, Misconfigured)
    assert "there is no size x" in str(done.exception)


def test_without_a_scenario_they_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    done = invoke(monkeypatch, [exact, lossy])
    assert done.exit_code == 0
    assert done.stdout.splitlines() == ["exact        A sentence.", "lossy        A sentence."]
