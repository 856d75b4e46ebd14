"""The least that a fan-out can cost: a loop that writes one frame to every socket.

Both sides are loads in processes of their own (`load_process`). The server is uvicorn with the
gateway's protocols, so that only what the gateway does beside the write is the difference.
`measure` starts them.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

from benchmarks.clients import SOURCES
from benchmarks.load_generator import Client, connect_many, raise_file_limit
from benchmarks.load_process import Link, LoadProcess
from benchmarks.measure import usage_of
from gateway.frames import EXTENSION, Frame
from gateway.server import make_server
from livefeed.adapters.embedded import free_port

FRAME_BYTES_BESIDE: Final = 390
"""Of a frame beside the update that it carries: its other fields, and the update's public ones."""
ARRIVE_SECONDS_MAX: Final = 120.0


@dataclass(frozen=True, slots=True)
class Writes:
    """Write a frame of so many bytes to every socket, again and again."""

    count: int
    per_second: float
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """Wait until every client has got so many frames since it came."""

    frames_each: int
    seconds: float


async def measure(writes: Writes, *, warm_up: int, connections: int, servers: int = 1) -> float:
    """CPU of bare loops in µs for each frame that a client has read.

    Args:
        writes: What each server does; its first few rounds are not counted.
        warm_up: How many these are.
        connections: Of all servers together.
        servers: How many loops, each in a process of its own.
    """
    ports = [free_port() for _ in range(servers)]
    counts = [len(range(index, connections, servers)) for index in range(servers)]
    async with AsyncExitStack() as processes:

        async def start(load: Any, *arguments: Any) -> LoadProcess:
            process = await processes.enter_async_context(LoadProcess(load, *arguments))
            await process.receive(timeout_seconds=ARRIVE_SECONDS_MAX)
            return process

        serving = [await start(serve, port) for port in ports]
        counting = [await start(count, *one) for one in zip(ports, counts, strict=True)]
        await _round(serving, counting, replace(writes, count=warm_up), frames_before=0)
        before = _cpu_seconds(serving)
        await _round(serving, counting, writes, frames_before=warm_up)
        spent = _cpu_seconds(serving) - before
    return spent / (writes.count * connections) * 1e6


def _cpu_seconds(processes: Iterable[LoadProcess]) -> float:
    return usage_of([process.pid for process in processes]).cpu_seconds


async def _round(
    serving: list[LoadProcess], counting: list[LoadProcess], writes: Writes, *, frames_before: int
) -> None:
    """Write so often, and wait until every client has read all of it."""
    for server in serving:
        server.send(writes)
    for server in serving:
        await server.receive()
    for clients in counting:
        clients.send(Arrived(frames_before + writes.count, ARRIVE_SECONDS_MAX))
    for clients in counting:
        await clients.receive(timeout_seconds=ARRIVE_SECONDS_MAX + 10)


async def serve(link: Link, port: int) -> None:
    """The load: answers each Writes when it is done."""
    raise_file_limit()
    writes: list[Callable[[bytes], None]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            writes.append(scope["extensions"].pop(EXTENSION)["writer"].write)
            while (await receive())["type"] != "websocket.disconnect":
                pass

    listening = socket.create_server(("127.0.0.1", port), backlog=4096)
    listening.setblocking(False)
    server = make_server(app, guarded=True)
    serving = asyncio.create_task(server.serve([listening]))
    link.send(port)
    try:
        while True:
            command: Writes = await link.receive()
            gc.collect()
            gc.freeze()
            await _write(writes, command)
            link.send(command.count)
    finally:
        serving.cancel()


async def _write(writes: list[Callable[[bytes], None]], command: Writes) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    for number in range(command.count):
        await asyncio.sleep(start + number / command.per_second - loop.time())
        wire = Frame(b"x" * command.payload_bytes).wire
        for write in writes:
            write(wire)


async def count(link: Link, port: int, connections: int) -> None:
    """The load: connects, and answers each Arrived with the number of frames that came so far."""
    raise_file_limit()
    frames = wanted = 0
    all_here = asyncio.Event()

    def on_frame(_client: Client, _payload: bytes) -> None:
        nonlocal frames
        frames += 1
        if frames >= wanted:
            all_here.set()

    connected = await connect_many(
        connections,
        source_addresses=SOURCES,
        port=port,
        path_for=lambda _: "/",
        token_for=lambda _: "",
        on_frame=on_frame,
    )
    if connected.failures:
        raise ConnectionError(f"{len(connected.failures)} clients have no connection")
    link.send(connections)
    while True:
        command: Arrived = await link.receive()
        wanted = command.frames_each * connections
        all_here.clear()
        if frames < wanted:
            async with asyncio.timeout(command.seconds):
                await all_here.wait()
        link.send(frames)
