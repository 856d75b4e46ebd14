"""What the tests of attacks share: the tables of docs/attacks.md, and somebody who must not notice.

A row of a table is an attack's name and the exact answer; a test has what to send under that name.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.servers import ROOT, Stack, until, update

PAGE = ROOT / "docs" / "attacks.md"


def table(section: str) -> dict[str, list[str]]:
    """Answers by attack, a column each; those that are crossed out are left out."""
    _, found, rest = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")
    assert found, f"{PAGE.name} has no section {section!r}"
    lines = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]
    return {name: answers for name, *answers in cells if not name.startswith("~~")}


def assert_same_rows(rows: Iterable[str], cases: Iterable[str]) -> None:
    """Every row has something to send, and what is sent has a row."""
    assert sorted(rows) == sorted(cases)


class Bystander:
    """A client that must be served whatever others send."""

    def __init__(self, stack: Stack, token: str) -> None:
        self._stack = stack
        self._follower = stack.follow("bystander", token=token)
        self._updates = 0

    async def is_served(self) -> None:
        """An update reaches it on its first connection, and it has seen no error."""
        self._updates += 1
        name = f"served-{self._updates}"
        await self._stack.publish([update("bystander", id=name)], "high")
        await until(lambda: name in self._follower.ids("home"), what="the bystander is served")
        assert self._follower.error is None
        assert len(self._follower.frames_of("connection_established")) == 1
        assert self._follower.frames_of("error") == []


@contextlib.asynccontextmanager
async def bystander(stack: Stack, token: str | None = None) -> AsyncIterator[None]:
    """Somebody who is served before and after, and a gateway whose log stays clean."""
    await stack.start_pool()
    watched = Bystander(stack, token or stack.token("bystander"))
    await watched.is_served()
    yield
    await watched.is_served()
    for gateway in stack.gateways:
        assert "Traceback" not in gateway.output()
        assert " ERROR " not in gateway.output()
        assert "eyJ" not in gateway.output(), "so every token begins"


@contextlib.asynccontextmanager
async def attacker(stack: Stack, user: str = "attacker") -> AsyncIterator[Attacker]:
    """A bare connection of a user that follows nothing yet."""
    headers = {"Authorization": f"Bearer {stack.token(user)}"}
    url = stack.url.replace("http", "ws", 1) + "/v1/ws"
    async with connect(url, additional_headers=headers, max_size=None) as socket:
        first = json.loads(await asyncio.wait_for(socket.recv(), 10))
        yield Attacker(socket, first["epoch"])


class Attacker:
    """A connection that sends anything and says what came back."""

    PROBE = json.dumps({"type": "subscribe", "feeds": ["probe!"]})
    """Its answer is the end of the answers to what was sent before."""

    def __init__(self, socket: ClientConnection, epoch: str) -> None:
        self._socket = socket
        self.epoch = epoch

    async def answers(self, messages: Iterable[str | bytes], *, caught_up: Collection[str]) -> str:
        """What the server sends in answer, as the tables say it.

        Args:
            messages: What is sent.
            caught_up: The feeds to wait for; without any, none is told of.
        """
        seen: list[str] = []
        with contextlib.suppress(ConnectionClosed):
            for message in [*messages, self.PROBE]:
                await self._socket.send(message)
        try:
            waited_for = {"probe!", *caught_up}
            while waited_for:
                frame = json.loads(await asyncio.wait_for(self._socket.recv(), 10))
                waited_for.discard(str(frame.get("message", ""))[:6])
                if frame["type"] == "caught_up":
                    waited_for.difference_update(frame["feeds"])
                seen.append(self._text(frame, caught_up=bool(caught_up)))
        except ConnectionClosed as closed:
            seen.append(f"close {closed.rcvd.code}" if closed.rcvd else "cut")
        return ", ".join(filter(None, dict.fromkeys(seen))) or "no answer"

    @staticmethod
    def _text(frame: dict[str, Any], *, caught_up: bool) -> str:
        match frame["type"]:
            case "error" if frame["message"].startswith("probe!"):
                return ""
            case "error":
                return f"`error` `{frame['code']}`"
            case "reset":
                return f"`reset` `{frame['reason']}`"
            case "caught_up" | "feed_updates":
                return "`caught_up`" if caught_up and frame["type"] == "caught_up" else ""
        return f"`{frame['type']}`"
