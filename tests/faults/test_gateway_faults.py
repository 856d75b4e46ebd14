"""What the gateway leans on fails under traffic: clients end with the log, within a stated time.

The bounds are those of docs/operations/faults.md; what was measured is printed.
"""

import asyncio
import os
import random
import signal
import time
from urllib.parse import urlsplit

import pytest

from tests.conftest import replayed
from tests.faults.test_outages import (
    BUSY_COMPUTER_SECONDS,
    USERS,
    CarefulPublisher,
    has_kept,
    kept_update,
    shown,
)
from tests.integration.test_order_end_to_end import expected
from tests.servers import OwnServers, Stack, frozen, until

KILLED_SECONDS = 10.0
"""From the kill of a gateway until its clients are caught up at the next one, its start with it."""
REPLICA_SECONDS = 3.0
"""How long a catch-up may take while the replica hangs."""
SILENT_SECONDS = 10.0
"""How long a dozen clients need, one after the other, to be caught up while NATS says nothing."""
FAILED_OVER_SECONDS = 20.0
"""From the order to promote until clients were reset and are caught up."""


class Traffic:
    """Readers of three users, a careful publisher, and whether the end is exact."""

    def __init__(self, stack: Stack) -> None:
        self.seed = random.randrange(2**32)
        self._stack = stack
        self.readers = {user: stack.follow(user) for user in USERS}
        self.publisher = CarefulPublisher(stack, random.Random(self.seed))

    async def flows(self) -> None:
        """Wait until every reader has something."""
        await until(
            lambda: all(has_kept(reader) for reader in self.readers.values()),
            seconds=20,
            what="it flows",
        )

    async def ends_exact(self) -> None:
        """Stop, and compare what readers and newcomers show with what was accepted."""
        await self.publisher.stop()
        await self._stack.settled(seconds=40)
        for user, reader in self.readers.items():
            wanted = expected(self.publisher.sent[user])
            await until(
                lambda reader=reader, wanted=wanted: shown(reader) == wanted,
                seconds=20,
                what=f"{user} has what was accepted (seed {self.seed})",
            )
            newcomer = self._stack.follow(user)
            await newcomer.caught_up()
            assert shown(newcomer) == wanted, f"seed {self.seed}"

    def times_caught_up(self) -> dict[str, int]:
        """How often each reader was told that it has everything."""
        return {user: len(one.frames_of("caught_up")) for user, one in self.readers.items()}

    async def caught_up_again(self, before: dict[str, int], *, seconds: float) -> None:
        """Wait until each was told so once more."""
        await until(
            lambda: all(now > before[user] for user, now in self.times_caught_up().items()),
            seconds=seconds + BUSY_COMPUTER_SECONDS,
            what="every reader is caught up again",
        )


async def test_a_killed_gateway_and_nats_away(own_stack: Stack, own_servers: OwnServers) -> None:
    """Clients go on by their cursors; without NATS they stay, and who comes gets the log."""
    gateway = await own_stack.start_gateway()
    await own_stack.start_pool(worker_processes_max=2)
    traffic = Traffic(own_stack)
    await traffic.flows()

    before, began_at = traffic.times_caught_up(), time.monotonic()
    gateway.kill()
    await gateway.start()
    await traffic.caught_up_again(before, seconds=KILLED_SECONDS)
    print(f"gateway killed: all caught up {time.monotonic() - began_at:.1f} s after it")

    await own_servers.nats.stop()
    began_at = time.monotonic()
    newcomer = own_stack.follow("alice")
    await newcomer.caught_up(seconds=5)
    print(f"nats away: a newcomer is caught up after {time.monotonic() - began_at:.1f} s")
    assert has_kept(newcomer)
    await asyncio.sleep(2)
    await own_servers.nats.start()
    await traffic.ends_exact()
    wanted = expected(traffic.publisher.sent["alice"])
    await until(lambda: shown(newcomer) == wanted, what="the newcomer has what was accepted")
    for reader, connects in [*((one, 2) for one in traffic.readers.values()), (newcomer, 1)]:
        assert len(reader.frames_of("connection_established")) == connects
        assert reader.frames_of("reset") == []


async def test_nats_says_nothing(own_stack: Stack, own_servers: OwnServers) -> None:
    """Not each catch-up waits for it: one does, and all are given what the log has."""
    await own_stack.start_gateway()
    await own_stack.start_pool(worker_processes_max=2)
    # Of users whom the gateway does not listen to yet.
    users = [f"user{number}" for number in range(12)]
    await own_stack.publish([kept_update(user) for user in users], "high")
    await own_stack.settled()
    traffic = Traffic(own_stack)
    await traffic.flows()
    began_at = time.monotonic()
    os.kill(own_servers.nats.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(SILENT_SECONDS + BUSY_COMPUTER_SECONDS):
            for user in users:
                newcomer = own_stack.follow(user)
                await newcomer.caught_up(seconds=SILENT_SECONDS)
                assert has_kept(newcomer)
                await newcomer.aclose()
    finally:
        os.kill(own_servers.nats.pid, signal.SIGCONT)
    print(f"nats silent: twelve newcomers are caught up in {time.monotonic() - began_at:.1f} s")
    await traffic.ends_exact()


@pytest.mark.timeout(180)
async def test_a_replica_that_fails_and_takes_over(
    own_stack: Stack, own_servers: OwnServers
) -> None:
    """Behind, hanging, gone: the primary answers. Promoted, its log is another one: a reset."""
    primary, replica = own_servers.postgres, await own_servers.start_replica()
    url = urlsplit(primary.url)
    own_stack.settings["replica_urls"] = [replica.url]
    own_stack.settings["database_url"] = (
        f"postgresql://{url.netloc},127.0.0.1:{replica.port}{url.path}"
        "?target_session_attrs=read-write"
    )
    await own_stack.start_gateway()
    await own_stack.start_pool(worker_processes_max=2)
    traffic = Traffic(own_stack)
    await traffic.flows()

    await newcomers_are_quick(own_stack, "well")
    await replica.sql("select pg_wal_replay_pause()")
    await newcomers_are_quick(own_stack, "behind")
    await replica.sql("select pg_wal_replay_resume()")
    with frozen(replica):
        await newcomers_are_quick(own_stack, "hangs")
    await replica.stop()
    await newcomers_are_quick(own_stack, "gone")
    await replica.start()

    await traffic.publisher.pause()
    await own_stack.settled()
    await replayed(primary, replica)
    before = traffic.times_caught_up()
    primary.kill()
    traffic.publisher.resume()
    await asyncio.sleep(1)
    began_at = time.monotonic()
    await replica.promote()
    await traffic.caught_up_again(before, seconds=FAILED_OVER_SECONDS)
    print(f"failed over: reset and caught up after {time.monotonic() - began_at:.1f} s")
    await traffic.ends_exact()
    for reader in traffic.readers.values():
        assert [frame["reason"] for frame in reader.frames_of("reset")] == ["epoch_changed"]
        assert len(reader.frames_of("connection_established")) == 1


async def newcomers_are_quick(stack: Stack, fault: str) -> None:
    """Who connects now is caught up within the bound, each time."""
    worst = 0.0
    for _ in range(5):
        began_at = time.monotonic()
        newcomer = stack.follow("alice")
        await newcomer.caught_up(seconds=REPLICA_SECONDS + BUSY_COMPUTER_SECONDS)
        worst = max(worst, time.monotonic() - began_at)
        assert has_kept(newcomer)
        await newcomer.aclose()
    print(f"replica {fault}: caught up after {worst:.2f} s at most")
