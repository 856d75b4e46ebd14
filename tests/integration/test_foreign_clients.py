"""Clients that are not ours: the very commands and programs of docs/protocol.md, run as they stand.

Only the address is another one; `tests/foreign/` locks the npm packages that the programs import.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.servers import ROOT, Stack, require, until, update

PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- run: ([a-z]+) -->\n```(?:sh|js)\n(.*?)```", PAGE, re.DOTALL))
ADDRESS = "127.0.0.1:8080"


class Program:
    """A program that runs, and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.text = ""
        self._process = process
        self._task = asyncio.create_task(self._read())

    async def until_printed(self, text: str) -> None:
        """Wait until it has printed a text; fails with what it has printed instead."""

        async def printed() -> bool:
            if text not in self.text and self._task.done():
                pytest.fail(f"it ended without {text!r}: {self.text}")
            return text in self.text

        await until(printed, seconds=20, what=f"{text!r} is printed")

    async def aclose(self) -> None:
        """End it, and whatever it has started."""
        # Also when the shell itself is gone: what it left behind is in its group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._task

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while part := await self._process.stdout.read(65536):
            self.text += part.decode(errors="replace")
        await self._process.wait()


@asynccontextmanager
async def run(stack: Stack, command: list[str], *, folder: Path = ROOT) -> AsyncIterator[Program]:
    """Run a command with the settings of a stack; its standard input stays open."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=stack.environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    program = Program(process)
    try:
        yield program
    finally:
        await program.aclose()


def example(stack: Stack, name: str) -> str:
    """An example of the page, with the address of a stack's gateway."""
    text = EXAMPLES[name]
    assert ADDRESS in text
    return text.replace(ADDRESS, stack.url.removeprefix("http://"))


async def running(stack: Stack) -> None:
    await stack.start_gateway()
    await stack.start_pool()
    await stack.publish([update(id="first")])
    await stack.settled()


async def test_the_commands_of_the_page(stack: Stack) -> None:
    """The `websockets` command, and curl at each door over HTTP, show what was and what comes."""
    require(shutil.which("curl"), "curl is not there")
    await running(stack)
    async with AsyncExitStack() as opened:
        programs = {
            name: await opened.enter_async_context(run(stack, ["bash", "-c", example(stack, name)]))
            for name in ("websockets", "events", "updates", "snapshot")
        }
        for program in programs.values():
            await program.until_printed('"first"')
        del programs["snapshot"]
        await programs["websockets"].until_printed('"caught_up"')
        await programs["events"].until_printed("event: caught_up")
        await stack.publish([update(id="second")])
        for program in programs.values():
            await program.until_printed('"second"')
            assert program.text.count('"first"') == 1


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the npm packages of the examples."""
    npm = require(shutil.which("npm") and shutil.which("node") and "npm", "node or npm is missing")
    folder = tmp_path_factory.mktemp("foreign")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / "foreign" / name, folder)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


async def test_the_programs_of_the_page(stack: Stack, packages: Path) -> None:
    """npm's `ws` and `eventsource` show what was and what comes, the latter after a restart too."""
    await running(stack)
    token = stack.token("alice")
    async with AsyncExitStack() as opened:
        programs = {}
        for name in ("ws", "eventsource"):
            (packages / f"{name}.mjs").write_text(example(stack, name))
            command = ["node", f"{name}.mjs", token]
            context = run(stack, command, folder=packages)
            programs[name] = await opened.enter_async_context(context)
        for program in programs.values():
            await program.until_printed('"first"')
        await stack.publish([update(id="second")])
        for program in programs.values():
            await program.until_printed('"second"')
        (gateway,) = stack.gateways
        assert await gateway.stop() == 0
        await stack.publish([update(id="third")])
        await gateway.start()
        await programs["eventsource"].until_printed('"third"')
        for id_ in ("first", "second", "third"):
            assert programs["eventsource"].text.count(f'"{id_}"') == 1


def test_the_locked_packages_are_the_ones_that_the_page_imports() -> None:
    """And their lock names no registry."""
    programs = "".join(EXAMPLES.values())
    imported = set(re.findall(r'^import .* from "(.*)";', programs, re.MULTILINE))
    package = json.loads((ROOT / "tests" / "foreign" / "package.json").read_text())
    assert set(package["dependencies"]) == imported
    assert "resolved" not in (ROOT / "tests" / "foreign" / "package-lock.json").read_text()
