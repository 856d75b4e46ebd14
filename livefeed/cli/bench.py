"""`livefeed bench`: load the real parts and measure them; the scenarios are in `benchmarks/`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from livefeed.cli.bench_results import compare, plot, write_chart
from livefeed.cli.running import run as run_loop
from livefeed.errors import LivefeedError, Misconfigured

if TYPE_CHECKING:
    from benchmarks.report import Report
    from benchmarks.scenario import Options, Scenario

ALL = "all"
RUN = "run"


class _Group(click.Group):
    """Takes whatever is no command of its own for a scenario: `bench latency` runs it."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        first = arguments[0] if arguments else ""
        own = first in self.commands or first in context.help_option_names
        return super().parse_args(context, arguments if own else [RUN, *arguments])


@click.group("bench", cls=_Group)
def command() -> None:
    """Load the real parts and measure them: `bench SCENARIO` is `bench run SCENARIO`.

    Without SCENARIO, list them.
    """


@command.command(RUN)
@click.argument("scenario", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a scenario.")
@click.option("--quick", is_flag=True, help="Small and short: shows that it works, not how fast.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option(
    "--plot",
    "chart",
    metavar="FILE.svg",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw what the scenario draws.",
)
@click.option(
    "--set",
    "sizes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Another size of the scenario, or a setting of the servers, by its name.",
)
def run(
    scenario: str | None,
    *,
    as_json: bool,
    quick: bool,
    seed: int,
    chart: Path | None,
    sizes: tuple[str, ...],
) -> None:
    """Run SCENARIO on servers of its own and print its figures; without SCENARIO, list them.

    `all` runs every one, and prints one page. The exit code is 1 when a delivery was lost, doubled,
    foreign or inexact, or when a run failed; a goal that is missed alone does not change it.
    """
    known = _scenarios()
    if scenario is None:
        for one in known.values():
            click.echo(f"{one.name:<12} {one.sentence}")
        return
    if scenario != ALL and scenario not in known:
        raise Misconfigured(f"there is no scenario {scenario}; there are {', '.join(known)}, {ALL}")
    chosen = list(known.values()) if scenario == ALL else [known[scenario]]
    if chart is not None:
        _check_chart(chart, chosen, known)
    options = _options(quick=quick, seed=seed, sizes=sizes)
    reports = _measure_all(chosen, options, as_json=as_json)
    if chart is not None and reports[0].charts:
        write_chart(chart, reports[0].charts[0])
    sys.exit(0 if all(report.ok for report in reports) else 1)


command.add_command(compare)
command.add_command(plot)


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


def _check_chart(chart: Path, chosen: list[Scenario], known: dict[str, Scenario]) -> None:
    """Refuse before minutes have passed what could not be drawn after them."""
    if len(chosen) != 1 or not chosen[0].plot:
        able = ", ".join(f"{one.name} ({one.plot})" for one in known.values() if one.plot)
        raise Misconfigured(f"--plot draws one scenario of these: {able}")
    write_chart(chart, None)


def _options(*, quick: bool, seed: int, sizes: tuple[str, ...]) -> Options:
    from benchmarks.scenario import Options

    named = dict(size.partition("=")[::2] for size in sizes)
    return Options(quick=quick, seed=seed, sizes=named)


def _measure_all(chosen: list[Scenario], options: Options, *, as_json: bool) -> list[Report]:
    """Run them one after the other; each is printed when it is there, several as one page."""
    from benchmarks.page import page

    began = time.monotonic()
    reports: list[Report] = []
    for one in chosen:
        report = _measure(one, options)
        reports.append(report)
        if as_json:
            _print_json(report)
        elif len(chosen) == 1:
            click.echo(report.table())
        else:
            seconds = time.monotonic() - began
            said = "ok" if report.ok else "NOT OK"
            click.echo(f"livefeed: {one.name}: {said}, after {seconds:.0f} s", err=True)
    if len(chosen) > 1 and not as_json:
        seconds = time.monotonic() - began
        click.echo(page(reports, seconds=seconds, seed=options.seed, quick=options.quick))
    return reports


def _measure(scenario: Scenario, options: Options) -> Report:
    """Run one; what ends it early makes its report fail, so that `all` goes on."""
    from dataclasses import replace

    from benchmarks.load_process import LoadFailed
    from benchmarks.report import Report
    from benchmarks.scenario import Progress, WrongSize

    progress = Progress(scenario.name)
    try:
        report: Report = run_loop(scenario.run(replace(options, say=progress)))
    except WrongSize as error:
        raise Misconfigured(str(error)) from error
    except (LivefeedError, LoadFailed, OSError) as error:
        report = Report(scenario.name, failure=f"{type(error).__name__}: {error}")
    finally:
        progress.clear()
    report.describe(seed=options.seed, quick=options.quick)
    return report


def _print_json(report: Report) -> None:
    click.echo(json.dumps(report.public(), ensure_ascii=False))
    for note in [report.failure, *report.notes]:
        if note:
            click.echo(f"livefeed: {report.scenario}: {note}", err=True)
