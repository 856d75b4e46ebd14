"""Who is asked whether it is there, and what counts as an answer."""

from typing import Any

import pytest
from uvicorn.server import ServerState

from gateway.heartbeat import Heartbeat
from gateway.wire import WebSocketWire
from livefeed.websocket import CLOSE, PING, frame
from tests.servers import until


class Member:
    """Counts how often it is asked."""

    def __init__(self, *, fails: bool = False) -> None:
        self.beats = 0
        self.fails = fails

    def beat(self) -> None:
        """Count."""
        self.beats += 1
        if self.fails:
            raise RuntimeError("its own trouble")


async def test_everybody_is_asked_once_a_round() -> None:
    """Also after one of them has failed; who left is asked no more."""
    heartbeat = Heartbeat(0.5)
    members = [Member(fails=number == 0) for number in range(8)]
    gone = Member()
    for member in (*members, gone):
        heartbeat.join(member)
    heartbeat.leave(gone)
    await until(lambda: min(member.beats for member in members) >= 3, what="three rounds")
    assert max(member.beats for member in members) <= 4
    assert gone.beats == 0
    for member in members:
        heartbeat.leave(member)


class Transport:
    """What a wire asks of its transport."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.waiting = 0
        self.reads = True

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.sent.append(data)

    def get_write_buffer_size(self) -> int:
        """What the client has not read."""
        return self.waiting

    def is_reading(self) -> bool:
        """Whether we read."""
        return self.reads

    def resume_reading(self) -> None:
        """Read again."""

    def abort(self) -> None:
        """Cut."""


async def beating(transport: Transport) -> Any:
    """A wire that was asked once, and has heard nothing since."""
    wire = WebSocketWire(None, ServerState(), Heartbeat(20))  # type: ignore[arg-type]
    wire._transport = transport  # type: ignore[assignment]
    wire.write = transport.write
    wire._is_open = True
    wire.beat()
    assert transport.sent == [frame(PING, b"")]
    return wire


async def test_silence_is_the_end() -> None:
    """Nothing between two pings."""
    transport = Transport()
    wire = await beating(transport)
    wire.beat()
    assert transport.sent[-1][0] == 0x80 | CLOSE
    assert wire.ended
    wire._last_moment.cancel()


@pytest.mark.parametrize("sign", ["a frame", "it reads", "we do not read"])
async def test_a_sign_of_life_is_enough(sign: str) -> None:
    """Any bytes, or fewer that wait; and where we do not read, its silence says nothing."""
    transport = Transport()
    transport.waiting = 1_000
    wire = await beating(transport)
    if sign == "a frame":
        wire.data_received(b"\x8a\x80\x00\x00\x00\x00")
    elif sign == "it reads":
        transport.waiting = 999
    else:
        transport.reads = False
    wire.beat()
    assert transport.sent[-1] == frame(PING, b"")
    assert not wire.ended


async def test_who_reads_nothing_is_not_spared() -> None:
    """What waits stays, and we do not read because it does not."""
    transport = Transport()
    transport.waiting, transport.reads = 1_000, False
    wire = await beating(transport)
    wire.pause_writing()
    wire.beat()
    assert wire.ended
    wire._last_moment.cancel()
