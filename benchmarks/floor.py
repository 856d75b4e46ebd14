"""The least that a fan-out can cost: a loop that writes one frame to every socket.

Both sides are loads in processes of their own (`load_process`). The server is uvicorn with the
gateway's protocols, so that only what the gateway does beside the write is the difference.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.clients import SOURCES
from benchmarks.load_generator import Client, connect_many, raise_file_limit
from benchmarks.load_process import Link
from gateway.frames import EXTENSION, Frame
from gateway.server import make_server


@dataclass(frozen=True, slots=True)
class Writes:
    """Write a frame of so many bytes to every socket, again and again."""

    count: int
    per_second: float
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """Wait until so many frames have come."""

    frames: int
    seconds: float


async def serve(link: Link, port: int) -> None:
    """The load: answers each Writes with the number of frames written."""
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
            link.send(await _write(writes, command))
    finally:
        serving.cancel()


async def _write(writes: list[Callable[[bytes], None]], command: Writes) -> int:
    loop = asyncio.get_running_loop()
    start = loop.time()
    for number in range(command.count):
        await asyncio.sleep(start + number / command.per_second - loop.time())
        wire = Frame(b"x" * command.payload_bytes).wire
        for write in writes:
            write(wire)
    return command.count * len(writes)


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
        wanted = command.frames
        all_here.clear()
        if frames < wanted:
            async with asyncio.timeout(command.seconds):
                await all_here.wait()
        link.send(frames)
