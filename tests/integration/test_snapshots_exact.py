"""Pages of feeds out of every cache, of any age, and what follows from their cursors: the log.

On the real stack: several gateways with a shared cache, updates all the time, and clients that go
on over a WebSocket from what they were given long ago.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NamedTuple, get_args

import httpx
import pytest
from livefeed_client import FeedState
from livefeed_client.pages import Page, of_one_epoch, read_snapshot_pages, state_of

from livefeed.load import Input
from tests.integration.test_order_end_to_end import an_update, expected
from tests.servers import Follower, OwnServers, Process, Stack, until
from tests.shared_levels import SHARED_LEVELS, SharedLevel

FRESH_SECONDS: Final = 0.4
"""In memory; five times as long in the shared cache."""
USERS: Final = ("alice", "bob", "carol", "dave")
ROUNDS: Final = 12
UPDATES_A_ROUND: Final = 24
READS_A_ROUND: Final = 3
SOURCES: Final = {"made", "memory", "memory stale", "shared", "shared stale"}


class Given(NamedTuple):
    """A snapshot that a client was given, and goes on from later."""

    user: str
    pages: list[Page]

    @property
    def state(self) -> FeedState:
        return state_of(self.pages)


class Gateways:
    """Gateways with one shared cache, read page by page from any of them."""

    def __init__(self, stack: Stack, shared: SharedLevel, choices: random.Random) -> None:
        self.sources: Counter[str] = Counter()
        """Where pages came from."""
        self._stack, self._shared, self._choices = stack, shared, choices
        self._client = httpx.AsyncClient(timeout=10)

    async def start(self, fresh_seconds: float = FRESH_SECONDS) -> Process:
        """One more."""
        return await self._stack.start_gateway(
            snapshot_fresh_seconds=fresh_seconds,
            connections_per_user_max=1_000,
            # Never elevated: pages would be fresh for twice as long.
            load_thresholds={name: [None, None] for name in get_args(Input)},
            **self._shared.settings(),
        )

    async def snapshot(
        self, user: str, gateway: Process | None = None, limit: int | None = None
    ) -> Given:
        """All pages of a feed, each by another gateway, or all by one."""
        limit = limit or self._choices.choice((1, 2, 3, 5, 50))
        headers = {"Authorization": f"Bearer {self._stack.token(user)}"}

        async def get(parameters: Mapping[str, str]) -> Page:
            by = gateway or self._choices.choice(self._stack.gateways)
            answer = await self._client.get(
                f"{by.url}/v1/feeds/home",
                params={"limit": str(limit), **parameters},
                headers=headers,
            )
            assert answer.status_code == 200, answer.text
            self.sources[_source(answer.headers["Cache-Status"])] += 1
            page: Page = answer.json()
            return page

        while True:
            pages = await read_snapshot_pages(get)
            if of_one_epoch(pages):
                return Given(user, pages)

    async def aclose(self) -> None:
        await self._client.aclose()


@pytest.fixture(params=list(SHARED_LEVELS))
async def gateways(
    request: pytest.FixtureRequest, own_stack: Stack, own_servers: OwnServers
) -> AsyncIterator[Gateways]:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # What one reads when it fails.
    async with SHARED_LEVELS[request.param](own_servers) as shared:
        gateways = Gateways(own_stack, shared, random.Random(seed))
        yield gateways
        await gateways.aclose()


async def test_every_page_and_what_follows_is_the_log(
    gateways: Gateways, own_stack: Stack, own_servers: OwnServers
) -> None:
    """Made anew, out of memory, out of the shared cache, stale in both; with twelve rounds of
    updates and of what falls below a floor behind it, or with none."""
    choices, first = gateways._choices, await gateways.start()
    await gateways.start()
    await own_stack.start_pool(worker_processes_max=2)
    sent: dict[str, list[dict[str, Any]]] = {user: [] for user in USERS}
    given = []
    for number in range(ROUNDS):
        await own_stack.publish(_updates(choices, number, sent), "high")
        # Not settled: pages are made while the log is written.
        for _ in range(READS_A_ROUND):
            user, limit = choices.choice(USERS), choices.choice((2, 5))
            given.append(await gateways.snapshot(user))
            given += [await gateways.snapshot(user, first, limit) for _ in range(2)]
            await asyncio.sleep(choices.random() * FRESH_SECONDS / 4)
        await _raise_floor(own_servers, choices)
    # What is fresh in memory was fresh in the shared cache before: both are past their times.
    await asyncio.sleep(FRESH_SECONDS * 6 * 1.1)
    late = await gateways.start()
    given += [await gateways.snapshot(user, late) for user in USERS for _ in range(2)]
    assert set(gateways.sources) == SOURCES, gateways.sources
    print(f"{len(given)} snapshots of {sum(gateways.sources.values())} pages: {gateways.sources}")
    followers = [own_stack.follow(one.user, state=one.state) for one in given]
    await own_stack.publish(_updates(choices, ROUNDS, sent), "high")
    await own_stack.settled()
    newcomers = {user: own_stack.follow(user) for user in USERS}
    await _hold_the_log(given, followers, newcomers)
    assert not [frame for one in followers for frame in one.frames_of("reset")]
    for user, newcomer in newcomers.items():
        own = [item for item in newcomer.items("home") if item.channel == "me/home"]
        shown = [
            (item.id, item.content["n"], item.engagement and item.engagement["n"]) for item in own
        ]
        assert shown == expected(sent[user])


async def test_a_page_of_another_epoch_is_followed_by_all_of_the_new_one(
    gateways: Gateways, own_stack: Stack, own_servers: OwnServers
) -> None:
    """Gateways serve it as long as they know of no other epoch, the shared cache too; whoever goes
    on from it is told to begin again, and no page of the old epoch is given for one of the new."""
    choices = gateways._choices
    for _ in range(2):
        await gateways.start(fresh_seconds=60)
    await own_stack.start_pool()
    sent: dict[str, list[dict[str, Any]]] = {user: [] for user in USERS}
    await own_stack.publish(_updates(choices, 0, sent), "high")
    await own_stack.settled()
    before = [await gateways.snapshot(user, limit=5) for user in USERS for _ in range(2)]
    old = _epoch(before[0])
    await own_servers.postgres.sql("update feed_epoch set epoch = 'another'")
    await own_servers.postgres.sql("update feed_channel set seq = seq + 1000, floor = seq")
    during = [await gateways.snapshot(user, limit=5) for user in USERS for _ in range(2)]
    assert old in {_epoch(one) for one in during}, "it is kept, and nobody knows better"
    given = [*before, *during]
    followers = [own_stack.follow(one.user, state=one.state) for one in given]
    for follower in followers:
        await until(lambda one=follower: one.frames_of("reset"), what="it is told to begin again")

    for by in own_stack.gateways:
        # A page that is made says which log this is; then what is fresh of the old one is no more.
        assert _epoch(await gateways.snapshot("alice", by, limit=7)) != old
        assert old not in {_epoch(await gateways.snapshot(user, by, limit=5)) for user in USERS}
    await own_stack.publish(_updates(choices, 1, sent), "high")
    await own_stack.settled()
    after = [await gateways.snapshot(user) for user in USERS]
    followers += [own_stack.follow(one.user, state=one.state) for one in after]
    newcomers = {user: own_stack.follow(user) for user in USERS}
    await _hold_the_log([*given, *after], followers, newcomers)


async def _hold_the_log(
    given: list[Given], followers: list[Follower], newcomers: dict[str, Follower]
) -> None:
    """Wait until all who went on from a snapshot hold what those do who began with nothing."""
    for newcomer in newcomers.values():
        await newcomer.caught_up()
    for one, follower in zip(given, followers, strict=True):
        newcomer = newcomers[one.user]
        await until(
            lambda follower=follower, newcomer=newcomer: _held(follower) == _held(newcomer),
            what=f"who went on from {[page['cursor'] for page in one.pages]} holds the log",
        )


def _updates(
    choices: random.Random, number: int, sent: dict[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Random ones, for one user or for everyone; what was sent to whom is noted."""
    made = []
    for place in range(UPDATES_A_ROUND):
        user = choices.choice((*USERS, None))
        audience = {"user": user} if user else {"user": None, "audience": {"feed": True}}
        made.append(an_update(choices, number * 100 + place, feed="home", **audience))
        if user:
            sent[user].append(made[-1])
    return made


async def _raise_floor(servers: OwnServers, choices: random.Random) -> None:
    """Have what everybody has fall below a floor now and then, as `retain` does."""
    if choices.random() < 0.3:
        await servers.postgres.sql(
            "with raised as (update feed_channel "
            f"set floor = greatest(floor, seq - {choices.randint(0, 6)}) "
            "where name = 'topic:home' returning id, floor) "
            "delete from feed_entry using raised where channel_id = id and seq <= floor"
        )


def _held(follower: Follower) -> tuple[Any, ...]:
    """All that a client holds: where it is, and every item."""
    state = follower.state
    items = [(one.place, one.seq, one.content, one.engagement) for one in state.items("home")]
    return state.cursor.epoch, dict(state.cursor.positions), items


def _epoch(given: Given) -> str:
    return str(given.pages[0]["cursor"]).partition(":")[0]


def _source(cache_status: str) -> str:
    level = re.search(r"detail=(\w+)", cache_status)
    return f"{level[1] if level else 'made'}{' stale' if 'ttl=-' in cache_status else ''}"
