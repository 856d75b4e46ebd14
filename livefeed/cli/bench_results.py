"""`livefeed bench compare` and `plot`: what becomes of results that were written to files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from livefeed.errors import Misconfigured

if TYPE_CHECKING:
    from benchmarks.chart import Chart
    from benchmarks.results import Result

_File = click.Path(dir_okay=False, path_type=Path)


@click.command("compare")
@click.argument("old", metavar="OLD.json", type=_File)
@click.argument("new", metavar="NEW.json", type=_File)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with every figure.")
@click.option("--markdown", is_flag=True, help="For a comment on a pull request.")
@click.option("--all", "every", is_flag=True, help="Also figures without a goal that are the same.")
def compare(old: Path, new: Path, *, as_json: bool, markdown: bool, every: bool) -> None:
    """Say which figures of NEW.json are worse than those of OLD.json.

    A file has what `bench SCENARIO --json` prints, of one run of a scenario or of several. The exit
    code is 1 when a figure is worse by more than runs differ by themselves, or a scenario is not
    exact any more.
    """
    before, after = _read(old), _read(new)
    from benchmarks import page, regressions

    try:
        comparison = regressions.compare(before, after)
    except ValueError as error:
        raise Misconfigured(f"{old} and {new}: {error}") from error
    if as_json:
        click.echo(json.dumps(page.comparison_public(comparison), ensure_ascii=False))
    elif markdown:
        click.echo(page.comparison_markdown(comparison))
    else:
        click.echo(page.comparison_text(comparison, every=every))
    sys.exit(0 if comparison.ok else 1)


@click.command("plot")
@click.argument("results", metavar="RESULTS.json", type=_File)
@click.argument("chart", metavar="FILE.svg", type=_File)
def plot(results: Path, chart: Path) -> None:
    """Draw the chart of `connections` from its results: CPU a message, memory a connection."""
    found = _read(results)
    from benchmarks.charts import connections_chart

    figures = {
        name: figure.value
        for result in found
        if result.scenario == "connections"
        for name, figure in result.figures.items()
    }
    try:
        drawn = connections_chart(figures)
    except ValueError as error:
        raise Misconfigured(f"{results}: {error}") from error
    write_chart(chart, drawn)


def write_chart(path: Path, chart: Chart | None) -> None:
    """Write a chart; None only looks whether that will be possible.

    Raises:
        Misconfigured: When the file is not one that can be written.
    """
    if path.suffix != ".svg":
        mend = f"rsvg-convert {path.stem}.svg -o {path.stem}.png makes a PNG of it"
        raise Misconfigured(f"{path}: charts are SVG, so name a file like {path.stem}.svg; {mend}")
    if not path.parent.is_dir():
        raise Misconfigured(f"{path}: there is no folder {path.parent}")
    if chart is not None:
        from benchmarks.chart import svg

        path.write_text(svg(chart), encoding="utf-8")


def _read(path: Path) -> list[Result]:
    try:
        from benchmarks.results import BadResults, read_results
    except ModuleNotFoundError as error:
        raise Misconfigured(
            "the benchmarks are not part of an installed package; use a checkout: `./dev bench`"
        ) from error
    try:
        return read_results(path)
    except BadResults as error:
        raise Misconfigured(str(error)) from error
