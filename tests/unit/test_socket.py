"""The writers of a connection: who makes them send without reading is told to come back."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.events import EventStream
from gateway.frames import WAITING_EXTENSION, Frame, waiting_bytes
from gateway.heartbeat import Heartbeat
from gateway.socket import DirectSocket, OutboxSocket
from livefeed.limits import CLOSING_SECONDS_MAX, OUTBOX_BYTES_LIMIT, OUTBOX_BYTES_MAX
from livefeed.over_http import HEARTBEAT, Events, Reached
from livefeed.protocol import CloseCode

MIB = 1024 * 1024
COME_BACK = (int(CloseCode.TOO_SLOW), "come back")
FRAME = Frame(b"x" * MIB)


class Unread:
    """A client that reads nothing, behind either kind of writer."""

    def __init__(self) -> None:
        self.paused = self.ended = False
        self.on_change: Callable[[], None] | None = None
        self.bytes = 0
        self.closes: list[tuple[int, str | None]] = []
        self.reads = asyncio.Event()

    # As a `FrameWriter`.

    @property
    def write(self) -> Callable[[bytes], None]:
        return self._write

    def _write(self, data: bytes) -> None:
        assert not self.closes, "nothing is written behind a close frame"
        self.bytes += len(data)
        if not self.paused and self.bytes >= OUTBOX_BYTES_MAX:
            self.paused = True
            self._tell()

    def waiting(self) -> int:
        return self.bytes

    # As a `Sink`, where `close` is awaited.

    async def send_text(self, data: str) -> None:
        await self.reads.wait()
        self.bytes += len(data)

    def close(self, code: int, reason: str | None) -> Awaitable[None]:
        self.closes.append((code, reason))
        self.ended = True
        self._tell()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change()


def direct(client: Unread) -> DirectSocket:
    """Over the frame extension."""
    return DirectSocket(client, on_room=lambda: None)  # type: ignore[arg-type]


async def test_the_limit_closes_a_direct_socket() -> None:
    """It has no room from 1 MiB on, and is closed at 16; nothing is written after that."""
    client = Unread()
    socket = direct(client)
    for _ in range(OUTBOX_BYTES_LIMIT // MIB - 1):
        socket.send(FRAME)
        assert not socket.has_room
        assert not client.closes
        assert socket.pending_bytes == client.bytes
    socket.send(FRAME)
    assert client.closes == [COME_BACK]
    assert socket.closed
    assert socket.pending_bytes == 0
    socket.send(FRAME)
    assert len(client.closes) == 1


async def test_a_direct_socket_that_is_read_is_not_closed() -> None:
    """However much it sends in all."""
    client = Unread()
    socket = direct(client)
    for _ in range(3 * OUTBOX_BYTES_LIMIT // MIB):
        socket.send(FRAME)
        client.bytes, client.paused = 0, False
        client._tell()
        assert socket.has_room
    assert client.closes == []


async def test_the_limit_cuts_an_outbox() -> None:
    """What waits in it is thrown away; the close frame comes when the client reads."""
    client = Unread()
    socket = OutboxSocket(client, on_room=lambda: None)  # type: ignore[arg-type]
    for number in range(OUTBOX_BYTES_LIMIT // MIB - 1):
        socket.send(FRAME)
        await asyncio.sleep(0)
        assert not socket.has_room
        assert socket.pending_bytes == (number + 1) * MIB
    socket.send(FRAME)
    # One of them is being written.
    assert socket.pending_bytes == MIB
    socket.send(FRAME)
    assert socket.pending_bytes == MIB
    client.reads.set()
    await socket.ended()
    assert client.closes == [COME_BACK]
    assert client.bytes == MIB
    socket.end()


async def test_an_outbox_of_one_who_never_reads_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the seconds that a closed connection has."""
    monkeypatch.setattr("gateway.socket.CLOSING_SECONDS_MAX", CLOSING_SECONDS_MAX / 30)
    client = Unread()
    socket = OutboxSocket(client, on_room=lambda: None)  # type: ignore[arg-type]
    for _ in range(OUTBOX_BYTES_LIMIT // MIB):
        socket.send(FRAME)
        await asyncio.sleep(0)
    await asyncio.wait_for(socket.ended(), 2)
    assert socket.closed
    assert client.closes == []
    socket.end()


async def test_what_waits_behind_an_outbox_counts() -> None:
    """With its frames, as long as it is open; where nobody tells, only its frames count."""
    behind = 5 * MIB
    client = Unread()
    scope = {"extensions": {WAITING_EXTENSION: {"bytes": lambda: behind}}}
    told = OutboxSocket(client, on_room=lambda: None, waiting=waiting_bytes(scope))  # type: ignore[arg-type]
    plain = OutboxSocket(client, on_room=lambda: None, waiting=waiting_bytes({}))  # type: ignore[arg-type]
    for socket in (told, plain):
        socket.send(FRAME)
    assert told.pending_bytes == 6 * MIB
    assert plain.pending_bytes == MIB
    client.reads.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert plain.pending_bytes == 0
    assert told.pending_bytes == behind
    for socket in (told, plain):
        socket.end()
        assert socket.pending_bytes == 0


async def test_a_comment_waits_behind_nothing() -> None:
    """While a frame waits to be written none is due; one that is late is not made up for."""
    sent: list[bytes] = []
    room = asyncio.Event()

    async def send(message: dict[str, object]) -> None:
        await room.wait()
        sent.append(message.get("body", b""))  # type: ignore[arg-type]

    stream = EventStream(send, Events(Reached("home", None)))  # type: ignore[arg-type]
    heartbeat = Heartbeat(0.25)
    heartbeat.join(stream)
    writing = [asyncio.create_task(stream.send_text('{"type":"caught_up","feeds":["home"]}'))]
    writing.append(asyncio.create_task(stream.comments()))
    await asyncio.sleep(1)
    room.set()
    await writing[0]
    assert HEARTBEAT not in sent
    await asyncio.sleep(0.6)
    assert sent.count(HEARTBEAT) in {1, 2}
    heartbeat.leave(stream)
    writing[1].cancel()
