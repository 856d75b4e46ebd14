"""A moment on the command line: a time, or a duration before now."""

from __future__ import annotations

import time

import click

from livefeed.errors import Refused
from livefeed.moment import parse_moment


def moment(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    """Microseconds since 1970, from an option such as `2h` or `2026-11-25T08:00:00Z`."""
    if text is None:
        return None
    try:
        return parse_moment(text, now_microseconds=time.time_ns() // 1000)
    except Refused as refused:
        raise click.BadParameter(refused.detail, context, parameter) from refused
