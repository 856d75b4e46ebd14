"""Writes the parts of the documentation that are data in the code.

    python docs/generate.py             write them
    python docs/generate.py --check     only name what is out of date; exit 1 if anything is

A part stands in a page between `<!-- generated: NAME -->` and `<!-- end: NAME -->`.
"""

from __future__ import annotations

import ast
import functools
import importlib
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

ROOT: Final = Path(__file__).resolve().parents[1]
PREFIX: Final = "LIVEFEED_"

for folder in (ROOT / "clients" / "python", ROOT / "docs", ROOT):
    sys.path.insert(0, str(folder))


class Documented(NamedTuple):
    """A name with a value and the string that stands below it."""

    section: str
    """The comment above it and its neighbours."""
    name: str
    text: str


def limits_tables() -> str:
    """Every bound of `livefeed.limits`, in its sections."""
    module = importlib.import_module("livefeed.limits")
    source = (ROOT / "livefeed" / "limits.py").read_text(encoding="utf-8")
    sections: dict[str, list[list[str]]] = {}
    for one in documented(source):
        value = human(one.name, getattr(module, one.name))
        sections.setdefault(one.section, []).append([code(one.name), value, one.text])
    tables = [
        f"## {section}\n\n{table(['Name', 'Value', 'Meaning'], rows)}"
        for section, rows in sections.items()
    ]
    return "\n\n".join(tables)


def settings_table() -> str:
    """Every setting with its variable, its default, what is allowed, and its meaning."""
    fields = importlib.import_module("livefeed.settings").Settings.model_fields
    return fields_table(fields, PREFIX)


def node_settings_table() -> str:
    """The same of a cloud node's agent."""
    fields = importlib.import_module("livefeed.node_settings").NodeSettings.model_fields
    return fields_table(fields, f"{PREFIX}NODE_")


def fields_table(fields: Mapping[str, Any], prefix: str) -> str:
    """Every setting of a class."""
    rows = [
        [
            code(prefix + name.upper()),
            default_of(name, field.get_default(call_default_factory=True)),
            ", ".join(allowed(field)) or "–",
            field.description or "",
        ]
        for name, field in fields.items()
    ]
    return table(["Variable", "Default", "Allowed", "Meaning"], rows)


def commands_table() -> str:
    """Every command that is there, as its `--help` says it."""
    rows = [
        [code(usage(name, command)), command.get_short_help_str(limit=1000)]
        for name, command in commands()
    ]
    return table(["Command", "Does"], rows)


def close_codes_table() -> str:
    """Every close code of ours, with the string below it."""
    codes = importlib.import_module("livefeed.protocol").CloseCode
    source = (ROOT / "livefeed" / "protocol.py").read_text(encoding="utf-8")
    texts = {one.name: one.text for one in documented(class_source(source, "CloseCode"))}
    rows = [
        [str(int(one)), code(one.name), "yes" if comes_back(one) else "no", texts[one.name]]
        for one in codes
    ]
    return table(["Code", "Name", "Come back", "Meaning"], rows)


def error_codes_table() -> str:
    """Every code of an `error` frame or an HTTP answer that the protocol explains."""
    errors = importlib.import_module("livefeed.protocol").ERRORS
    return table(["Code", "Meaning"], [[code(name), text] for name, text in errors.items()])


def reset_reasons_table() -> str:
    """Every reason of a `reset` frame."""
    reasons = importlib.import_module("livefeed.protocol").RESET_REASONS
    return table(["Reason", "Meaning"], [[code(name), text] for name, text in reasons.items()])


def reconnect_reasons_table() -> str:
    """Every reason of a `reconnect` frame."""
    reasons = importlib.import_module("livefeed.protocol").RECONNECT_REASONS
    return table(["Reason", "Meaning"], [[code(name), text] for name, text in reasons.items()])


def thresholds_table() -> str:
    """From where on each input of the load level calls for what."""
    thresholds = importlib.import_module("livefeed.load").THRESHOLDS
    rows = [
        [code(name), *map(bound_text, (one.elevated, one.critical)), one.meaning]
        for name, one in thresholds.items()
    ]
    return table(["Input", "Elevated", "Critical", "Meaning"], rows)


def bound_text(bound: float | None) -> str:
    """A threshold, or that there is none."""
    return "–" if bound is None else f"{bound:g}"


def steps_table() -> str:
    """How many samples each step of the load level takes."""
    load = importlib.import_module("livefeed.load")
    below = f"Samples below {load.LEAVE_SHARE:.0%} that leave it"
    rows = [[level, str(one.enter), str(one.leave)] for level, one in load.STEPS.items()]
    return table(["Level", "Samples in a row that lead to it", below], rows)


def contract_text() -> str:
    """What Terraform has to know of the code."""
    return str(importlib.import_module("infrastructure").contract_text())


def inputs_table(folder: Path) -> str:
    """The inputs of a module of Terraform."""
    rows = importlib.import_module("infrastructure").inputs_rows(folder)
    return table(["Name", "Description", "Type", "Default"], rows)


def outputs_table(folder: Path) -> str:
    """The outputs of a module of Terraform."""
    rows = importlib.import_module("infrastructure").outputs_rows(folder)
    return table(["Name", "Description"], rows)


def module_pages() -> dict[str, dict[str, Callable[[], str]]]:
    """The page of every module of Terraform, with its generated parts."""
    folders = importlib.import_module("infrastructure").module_folders(ROOT)
    return {
        f"{folder.relative_to(ROOT).as_posix()}/README.md": {
            "inputs": functools.partial(inputs_table, folder),
            "outputs": functools.partial(outputs_table, folder),
        }
        for folder in folders
    }


def schema_text() -> str:
    """The JSON Schema of an update."""
    schema = importlib.import_module("livefeed.update").update_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def connections_chart() -> str:
    """The chart of the scenario `connections`, from the result that is kept."""
    results = importlib.import_module("benchmarks.results")
    (result,) = results.read_results(ROOT / "benchmarks" / "measured" / "connections.json")
    figures = {name: figure.value for name, figure in result.figures.items()}
    chart = importlib.import_module("benchmarks.charts").connections_chart(figures)
    return str(importlib.import_module("benchmarks.chart").svg(chart))


PARTS: Final[dict[str, dict[str, Callable[[], str]]]] = {
    "docs/limits.md": {"limits": limits_tables},
    "docs/operations/settings.md": {
        "settings": settings_table,
        "node settings": node_settings_table,
    },
    "docs/operations/load.md": {"thresholds": thresholds_table, "steps": steps_table},
    "docs/operations/commands.md": {"commands": commands_table},
    "docs/protocol.md": {
        "close codes": close_codes_table,
        "error codes": error_codes_table,
        "reset reasons": reset_reasons_table,
        "reconnect reasons": reconnect_reasons_table,
    },
}
FILES: Final[dict[str, Callable[[], str]]] = {
    "infra/terraform/contract.json": contract_text,
    "docs/schema/update.schema.json": schema_text,
    "docs/connections.svg": connections_chart,
}


def main(arguments: Sequence[str]) -> int:
    """Write what is out of date, or only name it."""
    check = "--check" in arguments
    stale = {path: text for path, text in pages() if read(path) != text}
    for path, text in stale.items():
        if not check:
            (ROOT / path).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path} {'is out of date' if check else 'written'}\n")
    return 1 if check and stale else 0


def pages() -> Iterator[tuple[str, str]]:
    """Every file that has generated parts, as it should be."""
    for path, parts in {**PARTS, **module_pages()}.items():
        text = read(path)
        for name, make in parts.items():
            text = put(path, text, name, make())
        yield path, text
    for path, make in FILES.items():
        yield path, make()


def put(path: str, text: str, name: str, part: str) -> str:
    """The page with one part replaced."""
    opening, closing = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
    before, found, rest = text.partition(opening)
    _, ended, after = rest.partition(closing)
    if not found or not ended:
        raise SystemExit(f"{path}: the markers {opening} and {closing} are missing")
    return f"{before}{opening}\n\n{part}\n\n{closing}{after}"


def read(path: str) -> str:
    """The text of a file; empty when there is none yet."""
    file = ROOT / path
    return file.read_text(encoding="utf-8") if file.exists() else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def cell(text: str) -> str:
    """A text that does not end its cell."""
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """A text as code."""
    return f"`{text}`"


def documented(source: str) -> Iterator[Documented]:
    """The names of a source whose assignment is followed by a string, in order."""
    lines, section = source.splitlines(), ""
    body = ast.parse(source).body
    for statement, following in itertools.pairwise(body):
        name = assigned(statement)
        if name is None:
            continue
        above = lines[statement.lineno - 2]
        if above.startswith("# "):
            section = above.removeprefix("# ").rstrip(".")
        match following:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield Documented(section, name, text)


def assigned(statement: ast.stmt) -> str | None:
    """The one name that a statement assigns to."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return None


def class_source(source: str, name: str) -> str:
    """The body of a class, as if it were a module."""
    found = [one for one in ast.parse(source).body if isinstance(one, ast.ClassDef)]
    body = next(one for one in found if one.name == name).body
    return "\n".join(map(ast.unparse, body))


def human(name: str, value: Any) -> str:
    """A bound with its unit, which its name ends with."""
    if "BYTES" in name:
        return bytes_text(value)
    return seconds_text(value) if "SECONDS" in name else f"{value:,}"


def bytes_text(value: int) -> str:
    """Bytes in the largest unit that divides them."""
    for exponent, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if value >= 1024**exponent and value % 1024**exponent == 0:
            return f"{value // 1024**exponent:,} {unit}"
    return f"{value:,} bytes"


def seconds_text(value: float) -> str:
    """Seconds in the largest unit that divides them; whole minutes from two on."""
    if value >= 86_400 and value % 86_400 == 0:
        return f"{value / 86_400:g} day" + ("s" if value > 86_400 else "")
    return f"{value / 60:g} min" if value >= 120 and value % 60 == 0 else f"{value:g} s"


def default_of(name: str, value: Any) -> str:
    """A default as one would set it."""
    if value is None:
        return "–"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{code(text)} ({bytes_text(value)})" if "bytes" in name else code(text)


def allowed(field: Any) -> list[str]:
    """The values or the range that a setting may have."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    given = [
        f"{sign} {getattr(constraint, name):g}"
        if abs(getattr(constraint, name)) < 1e6
        else f"{sign} {bytes_text(getattr(constraint, name))}"
        for constraint in field.metadata
        for name, sign in signs.items()
        if hasattr(constraint, name)
    ]
    if get_origin(field.annotation) is Literal:
        given += [code(str(value)) for value in get_args(field.annotation)]
    return given


def commands() -> Iterator[tuple[str, Any]]:
    """The commands whose module is there, and those below them."""
    for name, module in importlib.import_module("livefeed.cli.main").COMMANDS.items():
        if util.find_spec(module) is not None:
            command = importlib.import_module(module).command
            yield name, command
            for below, one in getattr(command, "commands", {}).items():
                yield f"{name} {below}", one


def usage(name: str, command: Any) -> str:
    """How a command is called: its arguments, then its options but for help."""
    return " ".join([name, *(argument_text(one) for one in command.params)])


def argument_text(parameter: Any) -> str:
    """One argument or option as a usage line shows it."""
    value = value_name(parameter)
    if parameter.param_type_name == "argument":
        value += "…" if parameter.nargs == -1 else ""
        return value if parameter.required else f"[{value}]"
    flag = parameter.opts[-1]
    text = flag if parameter.is_flag else f"{flag} {value}"
    return text if parameter.required else f"[{text}]"


def value_name(parameter: Any) -> str:
    """What stands for a parameter's value."""
    choices = getattr(parameter.type, "choices", None)
    if parameter.metavar:
        return str(parameter.metavar)
    if choices:
        return "|".join(map(str, choices))
    is_number = re.match("integer|float", parameter.type.name)
    return "N" if is_number else parameter.name.upper()


def comes_back(close_code: int) -> bool:
    """Whether a client should connect again after a close code."""
    return not 4500 <= close_code <= 4999


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
