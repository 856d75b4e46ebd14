"""Clients of the load generator against servers that hang up: what one loses is no other's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from benchmarks.load_generator import Client, open_client
from benchmarks.load_process import NEW_EVENT_LOOP

AT_ONCE = 60
TIMES_EACH = 60


@pytest.fixture
def resetting_port() -> Iterator[int]:
    """A server that resets each connection as soon as it is there, as one that was killed does."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=1_000)

    def reset_all() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listening.accept()
                linger = struct.pack("ii", 1, 0)
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                accepted.close()

    thread = threading.Thread(target=reset_all, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(5)


async def come_and_be_reset(port: int) -> Counter[str]:
    """How connects ended."""
    ends: Counter[str] = Counter()

    async def again_and_again() -> None:
        for _ in range(TIMES_EACH):
            client = Client(
                lambda _client, _payload: None, host="127.0.0.1", port=port, path="/", token=""
            )
            try:
                await open_client(client, "127.0.0.1", port, None, seconds=10)
            except OSError:
                ends["refused"] += 1
            except RuntimeError as error:
                ends[str(error)] += 1

    await asyncio.gather(*(again_and_again() for _ in range(AT_ONCE)))
    return ends


def test_a_descriptor_is_closed_once(resetting_port: int) -> None:
    """Closed twice, it would be another connection's by then."""
    with asyncio.Runner(loop_factory=NEW_EVENT_LOOP) as runner:
        ends = runner.run(come_and_be_reset(resetting_port))
    assert ends == Counter(refused=AT_ONCE * TIMES_EACH)
