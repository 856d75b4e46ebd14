"""Where a command finds its settings: the environment first, then the stack that `up` runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from livefeed.errors import Misconfigured
from livefeed.settings import Settings, load_settings

STACK_FILE: Final = "stack.json"
DATA_VARIABLE: Final = "LIVEFEED_DATA"


def default_data_directory() -> Path:
    """Where `up` keeps its data: `LIVEFEED_DATA`, or `.livefeed` in the checkout or here."""
    if DATA_VARIABLE in os.environ:
        return Path(os.environ[DATA_VARIABLE])
    checkout = Path(__file__).resolve().parents[2]
    return (checkout if (checkout / "dev").is_file() else Path.cwd()) / ".livefeed"


def command_settings(**overrides: Any) -> Settings:
    """The settings of a command; what is set in the environment wins over the stack's.

    Raises:
        Misconfigured: For a wrong setting, or a stack file that cannot be read.
    """
    stack = read_stack(default_data_directory())
    found = {name: value for name, value in stack.items() if not _is_set(name)}
    given = {name: value for name, value in overrides.items() if value is not None}
    return load_settings(**{**found, **given})


def read_stack(directory: Path) -> dict[str, Any]:
    """What the stack in a data directory tells; nothing when none was ever started there."""
    path = directory / STACK_FILE
    try:
        settings: dict[str, Any] = json.loads(path.read_text())["settings"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Misconfigured(f"{path} cannot be read ({error}); remove it and run `up`") from error
    return settings


def write_stack(directory: Path, settings: dict[str, Any]) -> None:
    """Tell other commands how to reach this stack; holds secrets, so only the owner may read it."""
    path = directory / STACK_FILE
    draft = path.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps({"settings": settings}, indent=1))
    draft.replace(path)


def environment_of(settings: dict[str, Any]) -> dict[str, str]:
    """The environment that gives a child process these settings."""
    values = {name: _text(value) for name, value in settings.items()}
    return os.environ | {f"LIVEFEED_{name.upper()}": value for name, value in values.items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _is_set(name: str) -> bool:
    return any(variable.upper() == f"LIVEFEED_{name.upper()}" for variable in os.environ)
