"""Programs of the tree that are no package's modules, for tests that call their functions."""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path
from typing import Any


def script(path: Path) -> Any:
    """A Python file as a module; what stands below `if __name__ == …` does not run."""
    spec = util.spec_from_file_location(f"script_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    # Dataclasses look their module up by its name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
