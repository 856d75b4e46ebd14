"""Types of parameters that several commands have: what may be an id, what may be a feed's name."""

from __future__ import annotations

from typing import Final

import click

from livefeed.follow import ID_RULE
from livefeed.identity import is_feed, is_id


class _Id(click.ParamType[str]):
    name = "id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what is no id."""
        if not is_id(value):
            self.fail(f"{value[:64]!r} is no id: expected {ID_RULE}", param, ctx)
        return value


class _Feed(click.ParamType[str]):
    name = "feed"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what is no feed's name."""
        if not is_feed(value):
            rule = "1 to 64 of a-z, 0-9, _ and -, the first no _ or -"
            self.fail(f"{value[:64]!r} is no feed's name: expected {rule}", param, ctx)
        return value


ID: Final = _Id()
FEED: Final = _Feed()
