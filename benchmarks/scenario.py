"""What a scenario is, and what it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, TypeVar

from benchmarks.report import Report
from livefeed.settings import Settings

Sizes = TypeVar("Sizes")


SHORT_WINDOWS: Final[Mapping[str, float]] = {
    "window_medium_seconds": 1.0,
    "window_low_seconds": 2.0,
}
"""For quick runs in which it is not windows that are measured."""


class WrongSize(ValueError):
    """A size that the scenario does not have, or a value that is none."""


class Progress:
    """One line on a terminal that says what a scenario does now; nothing anywhere else."""

    def __init__(self, scenario: str) -> None:
        self._scenario = scenario
        self._shown = sys.stderr.isatty()

    def __call__(self, phase: str) -> None:
        """Say what begins."""
        if self._shown:
            print(f"\r\033[K{self._scenario}: {phase} …", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave an empty line to whoever writes next."""
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for."""

    quick: bool = False
    seed: int = 1
    sizes: Mapping[str, str] = field(default_factory=dict)
    """Sizes by name that replace the scenario's own, and settings of the servers by theirs."""
    say: Callable[[str], None] = lambda _phase: None
    """Told what begins."""

    def sized(self, sizes: Sizes) -> Sizes:
        """A scenario's frozen dataclass of numbers, with those that were asked for replaced.

        Raises:
            WrongSize: Naming what is wrong.
        """
        kinds: dict[str, Any] = {
            one.name: type(getattr(sizes, one.name))
            for one in fields(sizes)  # type: ignore[arg-type]  # a dataclass, as it says
        }
        given: dict[str, Any] = {}
        for name, text in self.sizes.items():
            if name in self.settings(sizes):
                continue
            if name not in kinds:
                raise WrongSize(f"there is no size {name}; there are {', '.join(kinds)}")
            try:
                given[name] = kinds[name](text)
            except ValueError as error:
                raise WrongSize(f"{name}={text}: {error}") from error
        return replace(sizes, **given)  # type: ignore[type-var]

    def settings(
        self, sizes: object, *, quick: Mapping[str, float] | None = None
    ) -> dict[str, float | str]:
        """What was asked for that is no size of the scenario, but a setting of the servers.

        Args:
            sizes: The scenario's.
            quick: Settings of a quick run, where nothing else was asked for.
        """
        own = {one.name for one in fields(sizes)}  # type: ignore[arg-type]  # as above
        known = Settings.model_fields.keys() - own
        asked = {name: text for name, text in self.sizes.items() if name in known}
        return {**(quick or {} if self.quick else {}), **asked}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing to measure."""

    name: str
    sentence: str
    run: Callable[[Options], Coroutine[Any, Any, Report]]
    plot: str = ""
    """What it draws, in a few words; empty when it draws nothing."""
