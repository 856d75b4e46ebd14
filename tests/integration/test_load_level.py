"""The load level on a real stack: what brings it about, and what it does."""

import asyncio
import json
import signal
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from livefeed import subjects
from livefeed.adapters.nats.connection import Connection
from livefeed.limits import LOAD_ANNOUNCED_SECONDS_MAX
from tests.servers import Process, Stack, until, update

FAST = 0.1
"""Seconds between samples: what takes 35 s with the usual second takes 3.5."""
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NEVER = [None, None]
CALM: dict[str, Any] = dict.fromkeys(("cpu", "memory", "loop_lag", "lane_lag"), NEVER)


async def load_of(stack: Stack) -> dict[str, Any]:
    """What /healthz says of the load."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{stack.gateways[0].ops_url}/healthz")
    load: dict[str, Any] = answer.json()["load"]
    return load


async def comes_to(stack: Stack, level: str, *, of: str = "level") -> None:
    """Wait until the gateway is, or announces, a level."""

    async def there() -> bool:
        return bool((await load_of(stack))[of] == level)

    await until(there, seconds=30, what=f"the load's {of} is {level}")


async def hold_up(gateway: Process) -> None:
    """Stop the gateway again and again, so that its event loop is late at each sample."""
    try:
        while True:
            gateway.signal(signal.SIGSTOP)
            await asyncio.sleep(0.4)
            gateway.signal(signal.SIGCONT)
            await asyncio.sleep(FAST / 2)
    finally:
        gateway.signal(signal.SIGCONT)


async def test_a_late_gateway_refuses_new_connections_and_serves_the_others(stack: Stack) -> None:
    """At critical a newcomer is told to come back; who is there is served; then it is over."""
    thresholds = {**CALM, "loop_lag": [0.2, 0.2]}
    gateway = await stack.start_gateway(load_thresholds=thresholds, load_sample_seconds=FAST)
    await stack.start_pool()
    follower = stack.follow("alice")
    await follower.caught_up()
    holding_up = asyncio.create_task(hold_up(gateway))
    try:
        await comes_to(stack, "critical")
        with pytest.raises(InvalidStatus) as refused:
            async with connect(
                gateway.url.replace("http", "ws") + "/v1/ws?feeds=home",
                additional_headers={"Authorization": f"Bearer {stack.token('bob')}"},
            ):
                pass
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"]
        await stack.publish([update(id="p1")], "high")
        await until(lambda: follower.ids("home") == ["p1"], what="who is there is served")
    finally:
        holding_up.cancel()
    await comes_to(stack, "normal")
    newcomer = stack.follow("bob")
    await newcomer.caught_up()
    steps = [line for line in gateway.output().splitlines() if "load level changes" in line]
    assert len(steps) >= 4, "each step is logged"


async def test_low_waits_while_high_is_late(stack: Stack) -> None:
    """Real lag of high pauses low, refuses nobody, and ends with it."""
    # A message of high that waited at all calls for critical; one that waits for none for nothing.
    thresholds = {**CALM, "lane_lag": [1e-5, 1e-5]}
    await stack.start_gateway(load_thresholds=thresholds, load_sample_seconds=0.3)
    await stack.start_pool()
    follower = stack.follow("alice", ["home", "other"])
    await follower.caught_up()
    await stack.publish([update(id="first", feed="other")], "low")
    await until(lambda: follower.ids("other") == ["first"], what="low is served")

    stop = asyncio.Event()

    async def trickle() -> None:
        while not stop.is_set():
            await stack.publish([update(id="p1")], "high")
            await asyncio.sleep(0.05)

    trickling = asyncio.create_task(trickle())
    await comes_to(stack, "critical", of="announced")
    assert (await load_of(stack))["level"] == "elevated", "no client is refused for it"
    await until(lambda: follower.ids("home") == ["p1"], what="high goes on")
    # The workers look a few times a second at what they pull.
    await asyncio.sleep(1.0)
    await stack.publish([update(id="second", feed="other")], "low")
    await asyncio.sleep(1.5)
    assert follower.ids("other") == ["first"], "low is paused"
    stop.set()
    await trickling
    await until(lambda: "second" in follower.ids("other"), seconds=20, what="low goes on")


async def say_critical(nats: Connection) -> None:
    """Be one of two gateways, and critical."""
    while True:
        nats.send(subjects.CONTROL_LOAD, b'{"gateway": "g", "level": "critical"}')
        await asyncio.sleep(0.5)


async def publish_traced(stack: Stack) -> None:
    """Publish an update of high with a trace."""
    one = update(id="traced")
    await (await stack.nats()).publish(
        subjects.updates("high", "tests"),
        json.dumps(one).encode(),
        headers={"Nats-Msg-Id": one["updateId"], "traceparent": TRACE},
    )


async def test_a_silent_gateway_does_not_pause_for_ever(stack: Stack) -> None:
    """What a gateway said pauses low and stops tracing, and counts for a while."""
    await stack.start_gateway(load_sample_seconds=10.0)
    await stack.start_pool()
    follower = stack.follow("alice")
    await follower.caught_up()
    await stack.publish([update(id="first")], "low")
    await until(lambda: follower.ids("home") == ["first"], what="low is served")
    nats, traced = await stack.nats(), []
    nats.subscribe_direct(
        subjects.live_user("alice"),
        lambda _subject, _reply, headers, _payload: traced.append(b"traceparent" in headers),
    )
    await publish_traced(stack)
    await until(lambda: traced == [True], what="a live message carries its trace")
    nats.send(subjects.CONTROL_LOAD, b"nonsense")
    saying = asyncio.create_task(say_critical(nats))
    # The workers look a few times a second at what they pull.
    await asyncio.sleep(1.0)
    await stack.publish([update(id="second")], "low")
    await publish_traced(stack)
    await until(lambda: traced == [True, False], what="a live message without its trace")
    await asyncio.sleep(1.0)
    assert "second" not in follower.ids("home"), "low is paused"
    saying.cancel()
    limit = LOAD_ANNOUNCED_SECONDS_MAX + 10
    await until(lambda: "second" in follower.ids("home"), seconds=limit, what="low goes on")
