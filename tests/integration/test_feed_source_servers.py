"""Which server a feed source reads and how it is reached, and that a gateway waits for none."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import ExitStack
from typing import Final
from urllib.parse import urlsplit

import httpx
from sqlalchemy import text

from livefeed.adapters.postgres.schema import latest_revision, migrate, revision
from livefeed.adapters.postgres.sessions import Sessions
from tests.servers import OwnServers, Process, Stack, frozen, server_port, until

SOURCE: Final = """
    from sqlalchemy import text
    from livefeed.feed_source import SourcePage

    async def ranked(request):
        async with request.sessions() as session:
            where = (await session.execute(text("select inet_server_port()"))).scalar_one()
        return SourcePage([{"id": f"port-{where}"}])
"""
HANGING: Final = """
    import asyncio

    async def may_follow(user, feed):
        await asyncio.sleep(60)
"""
ANSWER_SECONDS: Final = 0.5
BUSY_SECONDS: Final = 0.5


async def test_urls_of_several_hosts_are_read_as_everywhere(own_servers: OwnServers) -> None:
    """As docs/operations/faults.md has them for failing over: by sessions, and by `migrate`."""
    url = urlsplit(own_servers.postgres.url)
    several = (
        f"postgresql://{url.netloc.rpartition('@')[0]}@127.0.0.1:{server_port()},"
        f"127.0.0.1:{own_servers.postgres.port}{url.path}"
        "?target_session_attrs=read-write&sslmode=disable"
    )
    assert await migrate(several) == []
    assert await revision(several) == latest_revision()
    sessions = Sessions(several, connections=1, timeout_seconds=5, application="tests")
    async with sessions() as session:
        port = (await session.execute(text("select inet_server_port()"))).scalar_one()
        read_only = (await session.execute(text("show transaction_read_only"))).scalar_one()
    await sessions.close()
    assert (port, read_only) == (own_servers.postgres.port, "on")


async def read(gateway: Process, token: str, feed: str = "home") -> httpx.Response:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=10) as client:
        headers = {"Authorization": f"Bearer {token}"}
        return await client.get(f"/v1/feeds/{feed}", headers=headers)


async def test_it_reads_a_replica_and_the_primary_while_there_is_none(
    own_stack: Stack, own_servers: OwnServers
) -> None:
    """It was stopped; and the replica again when it is back."""
    replica = await own_servers.start_replica()
    own_stack.plug_in(SOURCE, feed_source="ranked")
    gateway = await own_stack.start_gateway(replica_urls=[replica.url])

    async def read_from(port: int) -> bool:
        answer = await read(gateway, own_stack.token("alice"))
        return f"port-{port}" in answer.text and "ttl=-" not in answer.headers["Cache-Status"]

    async def reads(port: int) -> None:
        await until(lambda: read_from(port), seconds=15, what=f"it reads {port}")

    primary = own_servers.postgres
    await reads(replica.port)
    await replica.stop()
    await reads(primary.port)
    await replica.start()
    await reads(replica.port)


async def test_whoever_is_asked_before_a_page_has_the_same_deadline(stack: Stack) -> None:
    """An authorizer that hangs: it may take 2 s elsewhere."""
    stack.plug_in(HANGING, authorizer="may_follow")
    gateway = await stack.start_gateway()
    began_at = time.monotonic()
    answer = await read(gateway, stack.token("alice"))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert time.monotonic() - began_at < ANSWER_SECONDS + BUSY_SECONDS


async def test_a_gateway_leaves_while_everything_hangs(
    own_stack: Stack, own_servers: OwnServers
) -> None:
    """With reads under way, and connections to servers that will not say goodbye."""
    replica = await own_servers.start_replica()
    own_stack.plug_in(SOURCE, feed_source="ranked")
    gateway = await own_stack.start_gateway(replica_urls=[replica.url])
    assert (await read(gateway, own_stack.token("alice"))).status_code == 200
    with ExitStack() as hanging:
        hanging.enter_context(frozen(own_servers.postgres))
        hanging.enter_context(frozen(replica))
        os.kill(own_servers.nats.pid, signal.SIGSTOP)
        hanging.callback(os.kill, own_servers.nats.pid, signal.SIGCONT)
        reads = [
            asyncio.create_task(read(gateway, own_stack.token(f"user{number}")))
            for number in range(20)
        ]
        await asyncio.sleep(0.1)
        code = await gateway.stop(seconds=20)
        await asyncio.gather(*reads, return_exceptions=True)
    assert code == 0
    assert "Traceback" not in gateway.output()
