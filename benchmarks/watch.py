"""The receiving side of a corpus, in a process of its own: some clients and what they hold."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.clients import TOKEN_SECONDS
from benchmarks.corpus import Corpus
from benchmarks.load_generator import Client, connect_many
from benchmarks.load_process import Link
from benchmarks.reference import Order, Place
from benchmarks.report import merged
from benchmarks.stack import signing_settings
from benchmarks.verify import decode_frame
from benchmarks.view import View
from livefeed.adapters.tokens import sign


@dataclass(frozen=True, slots=True)
class Watch:
    """Clients of the first users of a corpus, one each."""

    corpus: Corpus
    clients: int
    port: int
    jwt_secret: str


@dataclass(frozen=True, slots=True)
class Count:
    """Say how much came, and how far the clients are."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What all clients together have now."""

    updates: int
    frames: int
    """Frames with updates."""
    positions: dict[str, int]
    """By user."""


@dataclass(frozen=True, slots=True)
class JudgeViews:
    """Say the faults, now that everything should be here; both by user."""

    wanted: Mapping[str, Mapping[Place, Order]]
    heads: Mapping[str, int]


async def watch(link: Link, asked: Watch) -> None:
    """The load: connects, says how many came to be, and answers each Count and JudgeViews."""
    watching = _Watching(asked)
    link.send(await watching.connect())
    while True:
        command = await link.receive()
        link.send(watching.count() if isinstance(command, Count) else watching.judge(command))


class _Watching:
    """All clients of this process."""

    def __init__(self, asked: Watch) -> None:
        self._asked = asked
        self._views = [View(asked.corpus, number) for number in range(asked.clients)]
        self._frames = 0
        self._closed = 0

    async def connect(self) -> int:
        """Connect all; raises ConnectionError when that does not work."""
        asked = self._asked
        settings = signing_settings(asked.jwt_secret)
        expires = int(time.time()) + TOKEN_SECONDS
        connected = await connect_many(
            asked.clients,
            port=asked.port,
            path_for=lambda _: f"/v1/ws?feeds={asked.corpus.feed}",
            token_for=lambda n: sign(settings, {"sub": self._views[n].user, "exp": expires}),
            on_frame=self._on_frame,
        )
        if connected.failures:
            raise ConnectionError(f"{len(connected.failures)} clients: {connected.failures[0]}")
        for client in connected.clients:
            client.on_closed = self._on_closed
        return len(connected.clients)

    def count(self) -> Counted:
        """What came until now."""
        positions = {view.user: view.position for view in self._views}
        return Counted(sum(view.updates for view in self._views), self._frames, positions)

    def judge(self, command: JudgeViews) -> dict[str, int]:
        """The faults of all clients; nothing in a run closes one, so a closed one is a fault."""
        faults = merged(
            view.judge(command.wanted[view.user], head=command.heads[view.user])
            for view in self._views
        )
        return merged([faults, {"inexact": self._closed}])

    def _on_frame(self, client: Client, payload: bytes) -> None:
        frame = decode_frame(payload)
        self._frames += bool(frame.updates)
        self._views[client.index].take(frame)

    def _on_closed(self, _client: Client) -> None:
        self._closed += 1
