"""The scenarios: each module here has one, named SCENARIO; a new one only adds a module."""

from __future__ import annotations

import importlib
import pkgutil

from benchmarks.scenario import Scenario


def scenarios() -> dict[str, Scenario]:
    """Every scenario by its name, in alphabetical order."""
    found: list[Scenario] = [
        importlib.import_module(f"{__name__}.{module.name}").SCENARIO
        for module in pkgutil.iter_modules(__path__)
    ]
    return {scenario.name: scenario for scenario in sorted(found, key=lambda one: one.name)}
