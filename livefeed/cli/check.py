"""`livefeed check`: would the server take these updates?"""

from __future__ import annotations

import json
import time
from typing import Any

import click

from livefeed.cli.lines import InputUnreadable, check_line, lines_of, name_of
from livefeed.errors import UpdateRefused
from livefeed.update import update_schema

PROBLEMS_MAX = 1_000
"""Faults that the JSON object lists; `wrong` counts all of them."""


@click.command("check")
@click.argument("file", required=False)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of an update instead.")
def command(file: str | None, *, as_json: bool, schema: bool) -> None:
    """Check the updates in FILE (`-`: standard input), one JSON object a line, as the server will.

    For each wrong line it prints the number, the reason under which the server would put it into
    the dead-letter queue, and a sentence. The exit code is 1 when anything is wrong.
    """
    if schema:
        click.echo(json.dumps(update_schema(), indent=1))
        return
    if file is None:
        raise click.UsageError("name a FILE with updates, or `-` for standard input")
    checked, wrong, problems = _check(file, as_json=as_json)
    if as_json:
        click.echo(json.dumps({"checked": checked, "wrong": wrong, "problems": problems}))
    else:
        click.echo(f"checked {checked}, wrong {wrong}")
    if wrong:
        raise click.exceptions.Exit(1)


def _check(file: str, *, as_json: bool) -> tuple[int, int, list[dict[str, Any]]]:
    checked = wrong = 0
    problems: list[dict[str, Any]] = []
    for line in lines_of(file):
        checked += 1
        try:
            check_line(line, now_microseconds=time.time_ns() // 1000)
        except UpdateRefused as refused:
            wrong += 1
            if not as_json:
                click.echo(f"line {line.number}: {refused.reason}: {refused.detail}")
            elif wrong <= PROBLEMS_MAX:
                problem = {"line": line.number, "reason": refused.reason, "detail": refused.detail}
                problems.append(problem)
    if checked == 0:
        raise InputUnreadable(f"{name_of(file)} has no updates: expected one JSON object a line")
    return checked, wrong, problems
