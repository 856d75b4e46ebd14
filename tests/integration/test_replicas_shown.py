"""What people see of the replicas: /healthz, and a warning when there are too few connections."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from livefeed.replica_choice import server_name
from tests.servers import Process, Stack, server_port, until, update


async def replicas_of(gateway: Process) -> list[dict[str, Any]]:
    """What /healthz says of the replicas."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{gateway.ops_url}/healthz")
    assert "postgresql" not in answer.text
    replicas: list[dict[str, Any]] = answer.json()["replicas"]
    return replicas


async def test_healthz_shows_each_replica(stack: Stack, replica_url: str) -> None:
    """Its name without credentials, its lag, its breaker; one that is away opens it."""
    away = f"postgresql://livefeed:hush@127.0.0.1:{server_port()}/livefeed"
    gateway = await stack.start_gateway(replica_urls=[replica_url, away])
    await stack.start_pool()
    await stack.publish([update()])
    follower = stack.follow("alice")
    await until(lambda: follower.ids("home") == ["p1"], what="the update is shown")

    async def seen() -> bool:
        near, gone = await replicas_of(gateway)
        assert [near["name"], gone["name"]] == [server_name(replica_url), server_name(away)]
        assert (gone["lag_seconds"], gone["lag_bytes"]) == (None, None)
        assert near["breaker"] == "closed"
        return near["lag_seconds"] == 0.0 and gone["breaker"] == "open"

    await until(seen, what="one replica is near, the other one away")
    assert "hush" not in json.dumps(await replicas_of(gateway))
    assert "hush" not in gateway.output()
    # It is told once, not at each look.
    assert gateway.output().count(f"{server_name(away)} is away") <= 3


async def test_a_gateway_without_replicas_shows_none(stack: Stack) -> None:
    """And has nothing to say about connections when there are enough."""
    gateway = await stack.start_gateway()
    assert await replicas_of(gateway) == []
    assert "max_connections" not in gateway.output()


@pytest.mark.parametrize("has_source", [False, True])
async def test_a_gateway_warns_when_a_server_has_too_few_connections(
    stack: Stack, replica_url: str, *, has_source: bool
) -> None:
    """Each server by its name, with what to do; it serves all the same. A source takes as many."""
    if has_source:
        stack.plug_in("async def ranked(request): ...", feed_source="ranked")
    gateway = await stack.start_gateway(
        replica_urls=[replica_url], database_pool_connections=200, gateway_workers=1
    )
    primary, replica = server_name(stack.database_url), server_name(replica_url)
    # One gateway and six other processes of this computer with 200 each, and a look at the primary.
    warnings = [
        f"{server}: the pools may open {wanted + 200 * has_source} connections, there are 197; mend"
        for server, wanted in ((primary, 1401), (replica, 201))
    ]
    await until(lambda: all(one in gateway.output() for one in warnings), what="it warns")
    assert "hush" not in gateway.output()
