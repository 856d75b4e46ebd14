"""Progress through an input, on a terminal."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import sys
from typing import Any, Final

import click

CLEAR_LINE: Final = "\r\x1b[K"


def progress(descriptor: int, label: str) -> contextlib.AbstractContextManager[Any]:
    """A bar that is told of the bytes read: of a file's, or only how many there were."""
    about = os.fstat(descriptor)
    length = about.st_size if stat.S_ISREG(about.st_mode) else None
    return click.progressbar(
        # Without a length it needs something to count, whose end never comes.
        None if length is not None else itertools.repeat(None),
        length=length,
        label=label,
        show_pos=length is None,
        file=sys.stderr,
        hidden=not sys.stderr.isatty(),
    )


def say(sentence: str) -> None:
    """A sentence on standard error, in place of the bar; it is drawn again below."""
    click.echo(f"{CLEAR_LINE if sys.stderr.isatty() else ''}{sentence}", err=True)
