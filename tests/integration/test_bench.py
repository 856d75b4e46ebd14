"""`livefeed bench`: a run on real servers is exact, and its JSON is what the design says."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from livefeed.cli.bench import command
from livefeed.errors import Misconfigured
from tests.servers import ROOT

SMALL = {
    "connections": 40,
    "per_second": 40,
    "seconds": 3,
    "warm_up_seconds": 1,
    "worker_life_seconds": 3,
    "idle_updates": 5,
    "idle_warm_up": 2,
}


async def bench(
    directory: Path, *arguments: str, seconds: float = 90
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, from a folder that is not the checkout."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "clients" / "python")])
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "livefeed.cli", "bench", *arguments],
        capture_output=True,
        check=False,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(directory)},
        text=True,
        timeout=seconds,
    )


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def test_a_small_run_is_exact_and_drawn_and_leaves_nothing_behind(tmp_path: Path) -> None:
    chart = tmp_path / "latency.svg"
    sizes = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    done = await bench(tmp_path, "latency", "--quick", "--json", *sizes, "--plot", str(chart))
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert set(report) == {"scenario", "ok", "computer", "figures"}
    assert (report["scenario"], report["ok"]) == ("latency", True)
    figures = report["figures"]
    for name, figure in figures.items():
        assert set(figure) == {"value", "unit", "goal", "met"}, name
        assert isinstance(figure["value"], int | float), name
        assert (figure["goal"] is None) == (figure["met"] is None), name
    assert {"p50_idle_ms", "p99_ms", "p999_ms"} <= set(figures)
    assert figures["published"]["value"] == SMALL["per_second"] * SMALL["seconds"]
    assert figures["deliveries"]["value"] >= figures["published"]["value"]
    assert (figures["seed"]["value"], figures["quick"]["value"]) == (1, 1)
    roles = ("gateway", "workers", "pool", "nats", "postgres")
    assert {f"{kind}_{role}" for kind in ("cpu_percent", "rss_mib") for role in roles} <= set(
        figures
    )
    assert names(tmp_path) == ["latency.svg"], "the run leaves nothing else behind"
    assert chart.read_text(encoding="utf-8").startswith("<svg")


WINDOWS = {"window_medium_seconds": 0.5, "window_low_seconds": 1}
TINY: dict[str, dict[str, float | str]] = {
    "backlog": {
        "updates": 2_000,
        "users": 100,
        "rest_seconds": 0,
        "wide_updates": 20,
        "wide_users": 300,
        "wide_audience": 200,
        "processes": 2,
        **WINDOWS,
    },
    "lanes": {"connections": 20, "per_second": 40, "seconds": 3, "warm_up_seconds": 1, **WINDOWS},
    "overload": {
        "connections": 5,
        "per_second": 20,
        "seconds": 2,
        "warm_up_seconds": 1,
        "waiting": 3_000,
        "low_users": 200,
        "soak_seconds": 0,
        **WINDOWS,
    },
    "followers": {
        "followers": 12_000,
        "connections": 5,
        "seconds": 2,
        "warm_up_seconds": 1,
        **WINDOWS,
    },
    "storm": {"connections": 20, "missed": 5, "per_second": 200},
    "slow": {
        "connections": 5,
        "per_second": 20,
        "hidden": 5,
        "slow_per_second": 30,
        "seconds": 2,
        "warm_up_seconds": 0.5,
    },
    "snapshot": {
        "users": 60,
        "fill": 600,
        "reads_per_second": 60,
        "warm_up_seconds": 0,
        "seconds": 2,
        "quiet_seconds": 1,
        "degraded_seconds": 1,
        "statistics_seconds": 0.5,
        "connections": 5,
        **WINDOWS,
    },
    "cost": {"users": 40, "updates": 120, "many": 30, "statistics_seconds": 0.5, **WINDOWS},
    "fanout": {
        "connections": 30,
        "updates": 4,
        "per_second": 10,
        "warm_up": 2,
        "idle_seconds": 0.1,
    },
    "connections": {
        "gateways": 2,
        "counts": "10,40",
        "messages_per_second": 80,
        "seconds": 1,
        "warm_up_seconds": 0.5,
        "idle_seconds": 0.2,
    },
    "personal": {
        "connections": 20,
        "per_second": 100,
        "seconds": 2,
        "warm_up_seconds": 0.5,
        "wide_connections": 40,
        "wide_audience": 20,
        "wide_per_second": 5,
        "wide_seconds": 2,
        **WINDOWS,
    },
    "idle": {"seconds": 1, "connections": 5, "retain_seconds": 1},
    "coldstart": {"starts": 1, "silences": 1, "quiet_seconds": 0.5},
}
GOALS = {
    "followers": {"worker_rss_max_mib"},
    "backlog": {"updates_per_second", "deliveries_per_second_wide"},
    "lanes": {"medium_p95_seconds", "low_p95_seconds", "within_30s"},
    "overload": {"high_p99_ratio", "low_waiting_least"},
    "storm": {"caught_up_seconds"},
    "snapshot": {
        "uncached_p99_ms",
        "queries_per_read",
        "degraded_max_ms",
        "degraded_error_share",
    },
    "cost": {"cpu_ratio"},
    "slow": {"p99_ratio", "gateway_rss_growth_mib", "frames_a_second_max"},
    "fanout": {"floor_ratio"},
    "connections": {
        *("count_a_process", "count", "rss_kib_per_connection", "cpu_growth"),
        *("cpu_deviation", "rss_deviation"),
    },
    "personal": {"cpu_us_per_delivery", "cpu_us_per_delivery_wide"},
    "soak": {"broken_invariants", "reliability", "within_30s"},
    "idle": {"idle_cpu_percent"},
    "coldstart": {"seconds", "first_update_seconds"},
    "million": {"heads_moved_again", "frames_again"},
}


@pytest.mark.parametrize("scenario", sorted(TINY))
async def test_every_scenario_is_exact_and_has_its_goals(scenario: str, tmp_path: Path) -> None:
    figures = await exact(tmp_path, scenario, TINY[scenario])
    if scenario == "backlog":
        assert figures["entries"]["value"] > 0
        assert figures["entries_wide"]["value"] > 1_000
    if scenario == "lanes":
        assert figures["deliveries"]["value"] == 120
        # Which is larger says nothing where the lanes are quiet: nothing is gathered then.
        assert figures["low_p50_seconds"]["value"] > 0
    if scenario == "fanout":
        assert figures["deliveries"]["value"] == 120
    if scenario == "storm":
        assert figures["replayed"]["value"] == 100
    if scenario == "snapshot":
        assert figures["reads_answered"]["value"] == 120
        assert figures["answers_compared"]["value"] > 120
    if scenario == "cost":
        assert figures["frames_naive"]["value"] == figures["updates_sent_naive"]["value"] > 0
        assert figures["frames_livefeed"]["value"] < figures["frames_naive"]["value"]
    if scenario == "overload":
        assert figures["entries"]["value"] > 0
    if scenario == "personal":
        assert figures["deliveries"]["value"] == 200
        assert figures["deliveries_wide"]["value"] == 200
        parts = [
            figures[f"cpu_us_per_delivery_{role}"]["value"]
            for role in ("gateway", "workers", "nats", "postgres")
        ]
        assert figures["cpu_us_per_delivery"]["value"] >= sum(parts) > 0
    if scenario == "connections":
        assert figures["count"]["value"] == 40
        assert {"cpu_us_per_message_10", "rss_kib_per_connection_40"} <= set(figures)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_updates_survive_killed_workers_and_mean_nothing_twice(tmp_path: Path) -> None:
    """What a killed worker had in its hands comes again after up to half a minute."""
    sizes: dict[str, float | str] = {
        "updates": 20_000,
        "users": 500,
        "clients": 20,
        "kill_seconds": 0.5,
        **WINDOWS,
    }
    figures = await exact(tmp_path, "million", sizes, seconds=200)
    assert figures["kills"]["value"] > 0
    assert figures["heads_moved_again"]["value"] == 0
    assert figures["frames_again"]["value"] == 0


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_nothing_breaks_while_parts_are_killed(tmp_path: Path) -> None:
    """What a killed worker had in its hands comes again after up to half a minute here too."""
    sizes: dict[str, float | str] = {
        "minutes": 0.8,
        "connections": 20,
        "per_second": 40,
        "churn_per_second": 4,
        "blow_seconds": 2,
        "warm_up_seconds": 1,
        **WINDOWS,
    }
    chart = tmp_path / "soak.svg"
    figures = await exact(tmp_path, "soak", sizes, "--plot", str(chart), seconds=200)
    assert figures["blows"]["value"] > 2
    assert figures["reconnects_churn"]["value"] > 10
    assert figures["deliveries"]["value"] == figures["published"]["value"] == 24 * 40
    assert chart.read_text(encoding="utf-8").startswith("<svg")


async def exact(
    directory: Path,
    scenario: str,
    sizes: dict[str, float | str],
    *options: str,
    seconds: float = 90,
) -> dict[str, Any]:
    """Run a scenario that has to be exact, and return its figures."""
    words = [word for name, value in sizes.items() for word in ("--set", f"{name}={value}")]
    done = await bench(directory, scenario, "--quick", "--json", *words, *options, seconds=seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    figures: dict[str, Any] = report["figures"]
    assert report["ok"]
    assert GOALS[scenario] <= {name for name, figure in figures.items() if figure["goal"]}
    assert all(figures[name]["value"] == 0 for name in ("lost", "doubled", "foreign", "inexact"))
    return figures


async def test_a_small_week_is_level_and_drawn(tmp_path: Path) -> None:
    """Its tables grow until they are as old as the log remembers, and then no more."""
    folder = tmp_path / "figures"
    folder.mkdir()
    sizes = {"users": 60, "events": 30, "day_seconds": 1.5, "flush_rows": 100, "folder": folder}
    words = [word for name, value in sizes.items() for word in ("--set", f"{name}={value}")]
    done = await bench(tmp_path, "week", "--quick", "--json", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)["figures"]
    assert figures["growth"]["value"] < 1.3
    assert 0.5 < figures["size_ratio"]["value"] < 2
    samples = json.loads((folder / "week.json").read_text())
    assert [len(one) for one in samples.values()] == [28, 28]
    assert (folder / "week.svg").read_text().startswith("<svg")


async def test_without_a_scenario_they_are_listed_and_a_wrong_one_is_an_error(
    tmp_path: Path,
) -> None:
    listed = await bench(tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert {line.split()[0] for line in listed.stdout.splitlines()} >= {"latency", "coldstart"}
    wrong = await bench(tmp_path, "speed")
    assert wrong.returncode == 1
    assert "there is no scenario speed" in wrong.stderr


def test_an_installed_package_says_where_the_benchmarks_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks.scenarios", None)
    monkeypatch.setitem(sys.modules, "benchmarks.results", None)
    for arguments in (["latency"], ["compare", "a", "b"], ["plot", "a", "b.svg"]):
        outcome = CliRunner().invoke(command, arguments)
        assert isinstance(outcome.exception, Misconfigured)
        assert "use a checkout" in str(outcome.exception)
