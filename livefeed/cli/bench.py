"""`livefeed bench`: load the real parts and measure them; the scenarios are in `benchmarks/`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from livefeed.cli.running import run
from livefeed.errors import LivefeedError, Misconfigured

if TYPE_CHECKING:
    from benchmarks.report import Report
    from benchmarks.scenario import Scenario

ALL = "all"


@click.command("bench")
@click.argument("scenario", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a scenario.")
@click.option("--quick", is_flag=True, help="Small and short: shows that it works, not how fast.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--set", "sizes", multiple=True, metavar="NAME=NUMBER", hidden=True)
def command(
    scenario: str | None, *, as_json: bool, quick: bool, seed: int, sizes: tuple[str, ...]
) -> None:
    """Run SCENARIO on servers of its own and print its figures; without SCENARIO, list them.

    `all` runs every one. The exit code is 1 when a delivery was lost, doubled, foreign or inexact,
    or when a run failed; a goal that is missed alone does not change it.
    """
    known = _scenarios()
    if scenario is None:
        for one in known.values():
            click.echo(f"{one.name:<12} {one.sentence}")
        return
    if scenario != ALL and scenario not in known:
        raise Misconfigured(f"there is no scenario {scenario}; there are {', '.join(known)}, {ALL}")
    chosen = list(known.values()) if scenario == ALL else [known[scenario]]
    good = True
    for one in chosen:
        report = _measure(one, quick=quick, seed=seed, sizes=_numbers(sizes))
        good = good and report.ok
        _print(report, as_json=as_json)
    sys.exit(0 if good else 1)


def _scenarios() -> dict[str, Scenario]:
    try:
        from benchmarks.scenarios import scenarios
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("benchmarks"):
            raise
        raise Misconfigured(
            "the benchmarks are not part of an installed package; use a checkout: `./dev bench`"
        ) from None
    return scenarios()


def _measure(scenario: Scenario, *, quick: bool, seed: int, sizes: dict[str, str]) -> Report:
    """Run one; what ends it early makes its report fail, so that `all` goes on."""
    from benchmarks.load_process import LoadFailed
    from benchmarks.report import Report
    from benchmarks.scenario import Options, Progress, WrongSize

    progress = Progress(scenario.name)
    options = Options(quick=quick, seed=seed, sizes=sizes, say=progress)
    try:
        report: Report = run(scenario.run(options))
    except WrongSize as error:
        raise Misconfigured(str(error)) from error
    except (LivefeedError, LoadFailed, TimeoutError) as error:
        return Report(scenario.name, failure=f"{type(error).__name__}: {error}")
    finally:
        progress.clear()
    return report


def _numbers(sizes: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, _, value in (size.partition("=") for size in sizes)}


def _print(report: Report, *, as_json: bool) -> None:
    if not as_json:
        click.echo(report.table())
        return
    click.echo(json.dumps(report.public(), ensure_ascii=False))
    for note in [report.failure, *report.notes]:
        if note:
            click.echo(f"livefeed: {report.scenario}: {note}", err=True)
