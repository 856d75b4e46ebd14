"""A real history through a real stack: every client must end with exactly the last tree.

The history's publishers re-add what they removed, and their clock runs backwards in places. While
it is published, one client follows from the start, one connects in the middle, one is cut off again
and again and resumes by cursor, one subscribes to its second feed late. In the end all of them, and
the snapshot, must show every path with its last blob, in feed order, and nothing else.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from livefeed_client import FeedState, LiveFeed, Snapshot, SnapshotRefused, Timing, fetch_snapshot

from livefeed.demo_history import Event, Target, decode_event, updates_of

PERSONAL_FEEDS: Final = ("home", "work")
TOPIC_FEED: Final = "everyone"
FEEDS: Final = (*PERSONAL_FEEDS, TOPIC_FEED)
USERS: Final = ("alice", "bob")
CHUNK: Final = 100
"""Events that are published together."""
END_SECONDS_MAX: Final = 60.0
"""How long after the last publish a client may take to have everything."""

Update = dict[str, Any]
Expected = Sequence[tuple[str, str]]
"""`(path, blob)` of every file of the last tree, in feed order."""


@dataclass(frozen=True, slots=True)
class History:
    """A history and what must come of it."""

    events: list[Event]
    expected: Expected


@dataclass(slots=True)
class Outcome:
    """What a run showed."""

    faults: list[str] = field(default_factory=list)
    """What is not as it must be; empty when all is exact."""
    updates: int = 0
    frames: int = 0
    cuts: int = 0


def load_history(folder: Path) -> History:
    """Read `events.jsonl.gz` and `tree.json`."""
    with gzip.open(folder / "events.jsonl.gz") as lines:
        events = [decode_event(text, line) for line, text in enumerate(lines, 1)]
    tree: Mapping[str, str] = json.loads((folder / "tree.json").read_text())
    first_added: dict[str, int] = {}
    for event in events:
        if event.change == "A":
            first_added[event.path] = min(event.at, first_added.get(event.path, event.at))
    order = sorted(tree.items(), key=lambda pair: (-first_added[pair[0]], pair[0]))
    return History(events, order)


def groups_of(history: History) -> list[list[Update]]:
    """The updates of each event: both users' two feeds, which share item ids, and the topic."""
    targets = [Target(users=USERS, feed=feed) for feed in PERSONAL_FEEDS]
    targets.append(Target(topic=True, feed=TOPIC_FEED))
    return [
        [update for target in targets for update in updates_of(event, line, target)]
        for line, event in enumerate(history.events, 1)
    ]


class Run:
    """One run of a history.

    Args:
        history: What is published.
        url: Where the gateway is.
        token_of: A token for a user.
        publish: Publishes updates and returns when all are accepted.
        seconds: Over how long the history is published.
        cuts: How often the unlucky client is cut off.
        seed: Of everything random.
    """

    def __init__(
        self,
        history: History,
        *,
        url: str,
        token_of: Callable[[str], str],
        publish: Callable[[Iterable[Update]], Awaitable[object]],
        seconds: float,
        cuts: int,
        seed: int,
    ) -> None:
        self._history = history
        self._url = url
        self._token_of = token_of
        self._publish = publish
        self._seconds = seconds
        self._cuts = cuts
        self._random = random.Random(seed)  # a test's choice
        self._published = asyncio.Event()
        self._middle = asyncio.Event()
        self.outcome = Outcome()

    async def run(self) -> Outcome:
        """Publish and follow; returns what was found."""
        clients = [
            ("from the start", "alice", self._follow_from_the_start),
            ("from the middle", "bob", self._follow_from_the_middle),
            ("cut off", "alice", self._follow_with_cuts),
            ("second feed late", "bob", self._follow_second_feed_late),
        ]
        async with asyncio.TaskGroup() as tasks:
            for name, user, follow in clients:
                tasks.create_task(self._client(name, user, follow), name=name)
            await self._publish_all()
        await self._check_snapshots()
        return self.outcome

    async def _publish_all(self) -> None:
        groups = groups_of(self._history)
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        for start in range(0, len(groups), CHUNK):
            updates = [one for group in groups[start : start + CHUNK] for one in group]
            await self._publish(updates)
            self.outcome.updates += len(updates)
            if start >= len(groups) // 2:
                self._middle.set()
            due_at = began_at + self._seconds * min(1.0, (start + CHUNK) / len(groups))
            await asyncio.sleep(max(0.0, due_at - loop.time()))
        self._published.set()

    async def _client(
        self,
        name: str,
        user: str,
        follow: Callable[[LiveFeed], Awaitable[None]],
    ) -> None:
        feeds = PERSONAL_FEEDS[:1] if name == "second feed late" else FEEDS
        timing = Timing(backoff_first=0.05, backoff_max=0.5)
        feed = LiveFeed(self._url, token=self._token_of(user), feeds=feeds, timing=timing)
        if name == "from the middle":
            await self._middle.wait()
        async with feed:
            beside = asyncio.ensure_future(follow(feed))
            try:
                await self._read_to_the_end(name, feed)
            finally:
                beside.cancel()

    async def _read_to_the_end(self, name: str, feed: LiveFeed) -> None:
        """Read until the state is the expected one, after everything was published."""
        deadline: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            if self._published.is_set():
                deadline = deadline or loop.time() + END_SECONDS_MAX
                if not _faults(name, feed.state, self._history.expected):
                    return
                if loop.time() > deadline:
                    self.outcome.faults += _faults(name, feed.state, self._history.expected)
                    return
            try:
                async with asyncio.timeout(0.5):
                    await anext(feed)
                    self.outcome.frames += 1
            except TimeoutError:
                continue

    async def _follow_from_the_start(self, _feed: LiveFeed) -> None:
        """Nothing happens to this client."""

    async def _follow_from_the_middle(self, _feed: LiveFeed) -> None:
        """It was late, and that is all."""

    async def _follow_with_cuts(self, feed: LiveFeed) -> None:
        # All of them before the last update is published: afterwards nobody waits for a cut.
        moments = sorted(self._random.uniform(0, 0.95 * self._seconds) for _ in range(self._cuts))
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        for moment in moments:
            await asyncio.sleep(max(0.0, began_at + moment - loop.time()))
            await feed.drop_connection()
            self.outcome.cuts += 1

    async def _follow_second_feed_late(self, feed: LiveFeed) -> None:
        await self._middle.wait()
        await feed.subscribe([name for name in FEEDS if name != PERSONAL_FEEDS[0]])

    async def _check_snapshots(self) -> None:
        for user in USERS:
            for name in FEEDS:
                snapshot = await self._snapshot(user, name)
                shown = [(item.id, item.content["blob"]) for item in snapshot.items]
                if shown != list(self._history.expected):
                    self.outcome.faults.append(f"snapshot of {user}'s {name} differs")

    async def _snapshot(self, user: str, name: str) -> Snapshot:
        """A snapshot, also when whoever answers it is just coming back."""
        async with asyncio.timeout(END_SECONDS_MAX):
            while True:
                try:
                    token = self._token_of(user)
                    return await fetch_snapshot(self._url, token=token, feed=name)
                except (SnapshotRefused, httpx.HTTPError):
                    await asyncio.sleep(0.2)


def _faults(name: str, state: FeedState, expected: Expected) -> list[str]:
    faults = []
    for feed in FEEDS:
        shown = [(item.id, item.content["blob"]) for item in state.items(feed)]
        if shown != list(expected):
            wrong = len(set(shown) ^ set(expected))
            order = "" if wrong else ", but for the order"
            faults.append(f"client {name}: {feed} has {len(shown)} items, {wrong} differ{order}")
    return faults
