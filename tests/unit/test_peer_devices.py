"""The peers' clients: what they read of a stream, however it is cut, and where they go on."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers import PEERS, mqtt
from benchmarks.peers.centrifugo import CentrifugoDialect
from benchmarks.peers.device import Device
from benchmarks.peers.message import FAULTS, Inbox, decode, encode
from benchmarks.peers.mosquitto import MqttDialect
from benchmarks.peers.nats import NatsDialect
from benchmarks.peers.nchan import NchanDialect
from benchmarks.peers.peer import CONFIGURATIONS, Missing
from benchmarks.peers.socketio import SocketIoDialect

cuts = st.lists(st.integers(0, 2**20), max_size=12)
payloads = st.lists(st.binary(max_size=300), max_size=6)


def parts(data: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in pairwise(ends)]


class Connection:
    """A device's connection: what it sent, and what it read."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.sent: list[bytes] = []
        self.read: list[bytes] = []
        self.path = device.upgrade().path
        assert not device.ready
        device.opened(self.sent.append)

    def feed(self, *frames: bytes) -> None:
        for frame in frames:
            self.read += self.device.take(frame, self.sent.append)

    def asked(self) -> dict[str, Any]:
        """The JSON in what was sent last."""
        last = self.sent[-1]
        found: dict[str, Any] = json.loads(last[last.index(b"{") :])
        return found


# The message and the inbox.


@pytest.mark.parametrize("number", [0, 7, 123_456])
def test_a_message_is_as_long_as_it_is_asked_to_be(number: int) -> None:
    payload = encode(number, "item", receiver="user-1", due=17, recorded=True, size=340)
    assert len(payload) == 340
    message = decode(payload)
    assert (message.number, message.receiver, message.due) == (number, "user-1", 17)
    assert message.recorded
    assert len(encode(number, "item", receiver="user-1", due=17, recorded=True, size=10)) > 10


def take(inbox: Inbox, *numbers: int, receiver: str = "alice") -> None:
    for number in numbers:
        payload = encode(number, "item", receiver=receiver, due=0, recorded=False, size=100)
        inbox.take(decode(payload))


def found(**counts: int) -> dict[str, int]:
    return dict.fromkeys(FAULTS, 0) | counts


@pytest.mark.parametrize(
    ("came", "wanted"),
    [
        ([1, 2, 3], {}),
        ([3, 1, 2], {}),
        ([1, 3], {"lost": 1}),
        ([], {"lost": 3}),
        ([1, 2, 2, 3], {"doubled": 1}),
        ([1, 2, 3, 9], {"foreign": 1}),
    ],
)
def test_an_inbox_counts_what_is_lost_doubled_and_foreign(
    came: list[int], wanted: dict[str, int]
) -> None:
    inbox = Inbox("alice")
    take(inbox, *came)
    assert inbox.judge({1, 2, 3}) == found(**wanted)


def test_anothers_message_is_foreign() -> None:
    inbox = Inbox("alice")
    take(inbox, 1, 2)
    take(inbox, 3, receiver="bob")
    assert inbox.judge({1, 2, 3}) == found(lost=1, foreign=1)


def test_an_inbox_judges_what_came_since_the_last_time() -> None:
    inbox = Inbox("alice")
    take(inbox, 1)
    assert inbox.judge({1, 2}) == found(lost=1)
    take(inbox, 2, 3, 1)
    assert inbox.judge({3}) == found(doubled=1), "2 came late, and was counted as lost already"
    take(inbox, 5)
    assert inbox.judge({4}, unknown={5}) == found(lost=1)


# NATS.


def nats_message(payload: bytes, *, sid: int = 1, headers: bytes = b"") -> bytes:
    if not headers:
        return b"MSG feed.a %d %d\r\n%b\r\n" % (sid, len(payload), payload)
    sizes = (sid, len(headers), len(headers) + len(payload))
    return b"HMSG feed.a %d %d %d\r\n" % sizes + headers + payload + b"\r\n"


@given(payloads, cuts)
def test_nats_any_cut_gives_the_same_messages(messages: list[bytes], places: list[int]) -> None:
    data = b"".join(
        [b"INFO {}\r\nPONG\r\n", *map(nats_message, messages), b"PING\r\n", nats_message(b"last")]
    )
    connection = Connection(NatsDialect(1, durable=False).device("a", "a"))
    connection.feed(*parts(data, places))
    assert connection.read == [*messages, b"last"]
    assert connection.device.ready
    assert connection.sent[-1] == b"PONG\r\n"


def republished(payload: bytes, sequence: int, last: int) -> bytes:
    text = f"NATS/1.0\r\nNats-Sequence: {sequence}\r\nNats-Last-Sequence: {last}\r\n\r\n"
    return nats_message(payload, headers=text.encode())


def missed(payload: bytes, sequence: int) -> bytes:
    headers = f"NATS/1.0\r\nNats-Sequence: {sequence}\r\n\r\n".encode()
    return nats_message(payload, sid=2, headers=headers)


def end_of_batch(pending: int = 0) -> bytes:
    headers = f"NATS/1.0 204 EOB\r\nNats-Num-Pending: {pending}\r\n\r\n".encode()
    return nats_message(b"", sid=2, headers=headers)


NOTHING = nats_message(b"", sid=2, headers=b"NATS/1.0 404 Message Not Found\r\n\r\n")


def test_nats_what_comes_live_meanwhile_waits_for_what_was_missed() -> None:
    connection = Connection(NatsDialect(1, durable=True).device("a", "a"))
    assert connection.asked()["seq"] == 1
    # 30 is both in the stream's answer and live, 40 live alone.
    connection.feed(republished(b"30", 30, 20), missed(b"10", 10), end_of_batch(pending=2))
    assert (connection.asked()["seq"], connection.device.ready) == (11, False)
    connection.feed(missed(b"20", 20), republished(b"40", 40, 30), missed(b"30", 30))
    connection.feed(end_of_batch())
    assert connection.read == [b"10", b"20", b"30", b"40"]
    assert connection.device.ready
    assert sum(b"DIRECT.GET" in sent for sent in connection.sent) == 2, "one question at a time"


def test_nats_a_gap_is_seen_and_filled() -> None:
    connection = Connection(NatsDialect(1, durable=True).device("a", "a"))
    connection.feed(NOTHING, republished(b"5", 5, 0), republished(b"9", 9, 7))
    assert connection.read == [b"5"]
    assert connection.asked()["seq"] == 6
    connection.feed(missed(b"7", 7), missed(b"9", 9), end_of_batch())
    assert connection.read == [b"5", b"7", b"9"]


def test_nats_it_goes_on_where_it_was() -> None:
    device = NatsDialect(1, durable=True).device("a", "a")
    Connection(device).feed(NOTHING, republished(b"5", 5, 0))
    assert Connection(device).asked()["seq"] == 6


# The others.


def server_publish(payload: bytes, packet_id: int) -> bytes:
    return mqtt.publish("topic", payload, packet_id)


@given(payloads, cuts)
def test_mqtt_any_cut_gives_the_same_messages(messages: list[bytes], places: list[int]) -> None:
    data = bytes([mqtt.CONNACK << 4, 2, 0, 0, mqtt.SUBACK << 4, 3, 0, 1, 1]) + b"".join(
        server_publish(payload, number) for number, payload in enumerate(messages, 1)
    )
    connection = Connection(MqttDialect(1, durable=True).device("a", "topic"))
    greeting = len(connection.sent)
    connection.feed(*parts(data, places))
    assert connection.read == messages
    assert connection.device.ready
    acknowledged = [mqtt.acknowledge(number) for number in range(1, len(messages) + 1)]
    assert connection.sent[greeting:] == acknowledged


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 16_383, 16_384, 300_000])
def test_mqtt_a_packet_says_its_length(size: int) -> None:
    payload = bytes(size)
    (packet,) = mqtt.PacketParser().feed(mqtt.publish("a", payload, 0))
    assert mqtt.published(packet) == (0, payload)


def test_nchan_it_says_the_last_id_that_it_saw() -> None:
    device = NchanDialect(1, durable=True).device("a", "a")
    first = Connection(device)
    assert "last_event_id" not in first.path
    first.feed(b'id: 17:0\ncontent-type: text\n\n{"a":"\\n\\n"}', b'id: 17:1\n\n{"b":1}')
    assert first.read == [b'{"a":"\\n\\n"}', b'{"b":1}']
    assert Connection(device).path.endswith("&last_event_id=17:1")


def test_socketio_it_recovers_its_session_after_the_last_message() -> None:
    device = SocketIoDialect(1, recovery=True).device("a", "room-a")
    first = Connection(device)
    first.feed(b'0{"sid":"x"}')
    assert first.asked() == {"room": "room-a"}
    first.feed(b'40{"sid":"x","pid":"private"}', b'42["message",{"n":",\\"x"},"offset-1"]', b"2")
    assert device.ready
    assert first.read == [b'{"n":",\\"x"}']
    assert first.sent[-1] == b"3"
    again = Connection(device)
    again.feed(b'0{"sid":"y"}')
    assert again.asked() == {"room": "room-a", "pid": "private", "offset": "offset-1"}


def test_socketio_without_recovery_the_message_is_all_that_there_is() -> None:
    connection = Connection(SocketIoDialect(1, recovery=False).device("a", "room-a"))
    connection.feed(b'0{"sid":"x"}', b'40{"sid":"x"}', b'42["message",{"n":1}]')
    assert connection.read == [b'{"n":1}']


def test_centrifugo_it_recovers_from_its_offset() -> None:
    device = CentrifugoDialect(1, durable=True).device("a", "news")
    first = Connection(device)
    first.feed(b'{"id":1,"connect":{"client":"c","ping":25,"pong":true}}')
    assert first.asked() == {"id": 2, "subscribe": {"channel": "news"}}
    first.feed(
        b'{"id":2,"subscribe":{"recoverable":true,"epoch":"e","offset":4}}',
        b"{}",
        b'{"push":{"channel":"news","pub":{"data":{"n":5},"offset":5}}}\n'
        b'{"push":{"channel":"news","pub":{"data":{"n":6},"offset":6}}}',
    )
    assert first.read == [b'{"n":5}', b'{"n":6}']
    assert first.sent[-1] == b"{}"
    again = Connection(device)
    again.feed(b'{"id":1,"connect":{"client":"d"}}')
    asked = {"channel": "news", "recover": True, "epoch": "e", "offset": 6}
    assert again.asked()["subscribe"] == asked
    again.feed(
        b'{"id":2,"subscribe":{"recovered":true,"epoch":"e","offset":7,'
        b'"publications":[{"data":{"n":7},"offset":7}]}}'
    )
    assert again.read == [b'{"n":7}']
    assert device.ready


# Configurations.


@pytest.mark.parametrize("durable", [False, True])
def test_centrifugo_its_configuration_is_whole(tmp_path: Any, durable: bool) -> None:
    """Its binary is on few computers: what can be seen without it is what it would be given."""
    peer = PEERS["centrifugo"](tmp_path, durable=durable)
    name = "centrifugo-durable.json" if durable else "centrifugo.json"
    text = peer.configure(name, port=8000, redis_port=6379).read_text()  # type: ignore[attr-defined]
    assert "@" not in text
    configuration = json.loads(text)
    assert configuration["http_server"]["port"] == 8000
    assert configuration["engine"]["type"] == ("redis" if durable else "memory")
    assert ("channel" in configuration) is durable


async def test_centrifugo_is_missing_without_its_binary(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.peers.peer.PROGRAM_PATH", str(tmp_path))
    for name, mend in (("centrifugo", "on PATH"), ("mosquitto", "`apt install mosquitto`")):
        with pytest.raises(Missing, match=mend):
            await PEERS[name](tmp_path, durable=False).prepare()


def test_every_placeholder_of_a_configuration_has_a_value() -> None:
    known = {"folder", "files", "port", "websocket_port", "redis_port", "module"}
    known |= {"appendfsync", "sync_interval"}
    for path in CONFIGURATIONS.iterdir():
        words = path.read_text().split("@")[1::2]
        assert set(words) <= known, path.name
