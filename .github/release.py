"""Whether a tag fits what would be released, and the changelog's words for it.

    python .github/release.py check v1.2.3     the version is the same everywhere, and has words
    python .github/release.py notes v1.2.3     print the words

Rule: the standard library only, for it runs before anything is installed.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = ("pyproject.toml", "clients/python/pyproject.toml", "clients/js/package.json")


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Do one of the two, and return the exit code."""
    if len(arguments) != 2 or arguments[0] not in {"check", "notes"}:
        sys.stderr.write(__doc__ or "")
        return 2
    task, tag = arguments
    version = tag.removeprefix("v")
    words = notes(version, (root / "CHANGELOG.md").read_text(encoding="utf-8"))
    faults = [f"CHANGELOG.md has no words for {version}"] if not words else []
    if task == "check":
        faults += [
            f"{path} has version {found}, and the tag is {tag}"
            for path, found in versions(root).items()
            if found != version
        ]
    elif words:
        sys.stdout.write(words + "\n")
    for fault in faults:
        sys.stderr.write(f"release: {fault}\n")
    return 1 if faults else 0


def notes(version: str, changelog: str) -> str:
    """The part of a changelog that is about a version, without its heading."""
    heading = rf"^## \[?{re.escape(version)}\]?(?: [^\n]*)?$"
    found = re.search(heading + r"\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def versions(root: Path) -> dict[str, str]:
    """The version of each project that is there."""
    return {path: version_of(root / path) for path in PROJECTS if (root / path).exists()}


def version_of(path: Path) -> str:
    """The version that a project's file says."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return str(json.loads(text)["version"])
    return str(tomllib.loads(text)["project"]["version"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
