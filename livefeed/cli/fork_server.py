"""What `livefeed pool` forks its workers from; run by it alone, with `python -m`.

Everything that a worker imports is imported here, once; settings are read by each worker.
"""

from __future__ import annotations

import gc
import sys

from livefeed.adapters.fork_server import serve
from livefeed.cli import worker  # noqa: F401 - with all that it imports
from livefeed.cli.main import main


def _run(arguments: list[str]) -> int:
    """Be a command, until it ends."""
    sys.argv = ["livefeed", *arguments]
    try:
        main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 0


if __name__ == "__main__":
    # What is there now is never looked at again, so that its pages stay shared.
    gc.collect()
    gc.freeze()
    serve(_run)
