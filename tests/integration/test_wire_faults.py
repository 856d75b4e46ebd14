"""Clients that break the rules of WebSockets or of HTTP: each gets its answer, no other suffers.

The faults and their answers are data in tests/wire_faults.py, and tables in docs/protocol.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import psutil
import pytest

from tests.servers import Stack, until
from tests.wire_faults import (
    ALLOWED_ORIGIN,
    FIN,
    FRAMES,
    HANDSHAKES,
    PING,
    TEXT,
    RawClient,
    frame,
    frame_answer,
    handshake_answer,
)

MIB = 1024 * 1024
WIRES = ("guarded", "stock")


class Bystander:
    """A connection that asks the gateway for pongs while others attack it."""

    def __init__(self) -> None:
        self.latencies: list[float] = []

    async def run(self, url: str, token: str) -> None:
        client = RawClient(url, token)
        await client.open()
        try:
            while True:
                began = time.perf_counter()
                await client.send(frame(FIN | PING, b"x"))
                while (await client.frame())[0] != PING + 1:
                    pass
                self.latencies.append(time.perf_counter() - began)
                await asyncio.sleep(0.01)
        finally:
            client.abort()


@contextlib.asynccontextmanager
async def bystander(stack: Stack) -> AsyncIterator[Bystander]:
    """Another connection, which has to be served all the time."""
    one = Bystander()
    task = asyncio.create_task(one.run(stack.url, stack.token("bystander")))
    await until(lambda: len(one.latencies) > 10, what="the bystander is served")
    yield one
    served = len(one.latencies)
    await until(lambda: len(one.latencies) > served, what="the bystander is served still")
    task.cancel()
    worst = sorted(one.latencies)
    print(f"bystander: p99 {worst[int(len(worst) * 0.99)] * 1e3:.1f} ms, max {worst[-1] * 1e3:.1f}")


@pytest.mark.parametrize("wire", WIRES)
async def test_each_fault_of_frames_has_its_answer(stack: Stack, wire: str) -> None:
    """What breaks RFC 6455 is closed with the code that docs/protocol.md says, and logs nothing."""
    gateway = await stack.start_gateway(gateway_wire=wire)
    token = stack.token("mallory")
    faults = [fault for fault in FRAMES if fault.stock or wire == "guarded"]
    answers = {}
    async with bystander(stack):
        for fault in faults:
            answers[fault.name] = {
                await frame_answer(stack.url, token, fault, send) for send in fault.sends
            }
    assert answers == {fault.name: {fault.answer} for fault in faults}
    if wire == "guarded":
        assert "Traceback" not in gateway.output()


@pytest.mark.parametrize("wire", WIRES)
async def test_each_fault_of_a_handshake_has_its_answer(stack: Stack, wire: str) -> None:
    """A wrong handshake gets the status that docs/protocol.md says; none is waited for long."""
    gateway = await stack.start_gateway(gateway_wire=wire, allowed_origins=[ALLOWED_ORIGIN])
    token = stack.token("mallory")
    faults = [fault for fault in HANDSHAKES if fault.stock or wire == "guarded"]
    async with bystander(stack):
        answers = await asyncio.gather(
            *(handshake_answer(stack.url, token, fault) for fault in faults)
        )
    found = dict(zip((fault.name for fault in faults), answers, strict=True))
    assert found == {fault.name: fault.answer for fault in faults}
    assert "Traceback" not in gateway.output()


@pytest.mark.parametrize("behind", [2, 10])
async def test_what_comes_with_the_handshake_is_not_lost(stack: Stack, behind: int) -> None:
    """Frames behind the head, in the same piece or cut anywhere, are read after the answer."""
    await stack.start_gateway()
    client = RawClient(stack.url, stack.token("alice"))
    await client.connect()
    ping = frame(FIN | PING, b"early")
    await client.send(client.head().encode() + ping[:behind])
    await client.send(ping[behind:])
    assert b" 101 " in await client.reader.readuntil(b"\r\n\r\n")
    async with asyncio.timeout(5):
        while (await client.frame()) != (PING + 1, b"early"):
            pass
    client.abort()


async def test_floods_fill_no_memory_and_stall_nobody(stack: Stack) -> None:
    """Pings whose pongs nobody reads, and empty fragments, are cut after a few hundred KiB."""
    gateway = await stack.start_gateway()
    process = psutil.Process(gateway.pid)
    token = stack.token("mallory")
    floods = [frame(FIN | PING, b"x" * 125) * 40_000, frame(TEXT) + frame(0) * 800_000]
    async with bystander(stack) as other:
        before = process.memory_info().rss
        for flood in floods * 4:
            client = RawClient(stack.url, token)
            await client.open()
            async with asyncio.timeout(20):
                await client.send(flood)
            client.abort()
    assert process.memory_info().rss - before < 20 * MIB
    assert max(other.latencies) < 2, "seconds: without guards it was twelve"


async def test_connections_that_end_leave_no_memory(stack: Stack) -> None:
    """What the collector is kept from looking at comes apart by itself when a client goes."""
    gateway = await stack.start_gateway(connections_per_user_max=1_000)
    process = psutil.Process(gateway.pid)
    token = stack.token("alice")

    async def come_and_go() -> None:
        clients = [RawClient(stack.url, token) for _ in range(100)]
        await asyncio.gather(*(client.open() for client in clients))
        for client in clients:
            client.abort()

    for _ in range(5):
        await come_and_go()
    before = process.memory_info().rss
    for _ in range(15):
        await come_and_go()
    # 1,500 connections that stayed would be 20 MiB.
    assert process.memory_info().rss - before < 6 * MIB
