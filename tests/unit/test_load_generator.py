"""The load generator's parser and recorder: a wrong one would make every figure a lie."""

from __future__ import annotations

import base64
import hashlib
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load_generator import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    FrameParser,
    ProtocolBroken,
    encode_client_frame,
    handshake_request,
    read_handshake,
)
from benchmarks.measure import LatencyRecorder, usage_of

SIZES = (0, 1, 125, 126, 127, 65_535, 65_536, 200_000)
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"sec-websocket-accept:s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def server_frame(opcode: int, payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        size = bytes([length])
    elif length < 1 << 16:
        size = b"\x7e" + length.to_bytes(2, "big")
    else:
        size = b"\x7f" + length.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + size + payload


def parts(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(places)]


def read(chunks: list[bytes]) -> list[tuple[int, bytes]]:
    parser = FrameParser()
    return [frame for chunk in chunks for frame in parser.feed(chunk)]


frames_lists = st.lists(
    st.tuples(
        st.sampled_from((TEXT, CLOSE, PING, PONG)),
        st.sampled_from(SIZES).map(lambda size: random.Random(size).randbytes(size)),
    ),
    max_size=6,
)


@given(frames_lists, st.lists(st.integers(0, 2**20), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_frames(
    frames: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    data = b"".join(server_frame(*frame) for frame in frames)
    assert read(parts(data, cuts)) == frames


def test_one_byte_at_a_time_gives_the_same_frames() -> None:
    frames = [(TEXT, bytes(size % 251 for size in range(length))) for length in (0, 125, 126, 300)]
    data = b"".join(server_frame(*frame) for frame in frames)
    assert read([data[place : place + 1] for place in range(len(data))]) == frames


def test_a_frame_comes_out_with_its_last_byte_and_not_before() -> None:
    parser = FrameParser()
    data = server_frame(TEXT, bytes(70_000))
    assert [parser.feed(data[place : place + 1_000]) for place in range(0, 70_000, 1_000)] == [
        [] for _ in range(70)
    ]
    assert parser.feed(data[70_000:]) == [(TEXT, bytes(70_000))]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x01\x01a", id="first fragment"),
        pytest.param(b"\x80\x01a", id="last fragment"),
        pytest.param(b"\x82\x01a", id="binary"),
        pytest.param(b"\xc1\x01a", id="compressed"),
        pytest.param(b"\x81\x81\0\0\0\0a", id="masked"),
        pytest.param(b"\x81\x01aHTTP/1.1", id="garbage after a frame"),
    ],
)
def test_what_a_livefeed_server_never_sends_is_an_error(data: bytes) -> None:
    with pytest.raises(ProtocolBroken):
        FrameParser().feed(data)


@pytest.mark.parametrize("size", SIZES)
def test_a_clients_frame_says_its_size_and_is_masked_with_zeros(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    frame = encode_client_frame(TEXT, payload)
    unmasked = server_frame(TEXT, payload)
    head = len(unmasked) - size
    assert frame[1] & 0x80, "a server refuses an unmasked frame"
    assert bytes([frame[0], frame[1] & 0x7F]) + frame[2:head] == unmasked[:head]
    assert frame[head:] == bytes(4) + payload


def test_the_handshake_is_read_when_its_head_is_complete_and_not_before() -> None:
    for length in range(len(ACCEPTED)):
        assert read_handshake(ACCEPTED[:length], KEY) is None


def test_what_follows_the_handshake_in_the_same_chunk_is_kept() -> None:
    first = server_frame(TEXT, b"hello")
    assert read_handshake(ACCEPTED + first, KEY) == ("", first)


def test_the_request_carries_the_token_and_the_subprotocol() -> None:
    request = handshake_request(
        host="127.0.0.2", port=80, path="/v1/ws?feeds=home", token="t", key=KEY
    )
    assert request.startswith(b"GET /v1/ws?feeds=home HTTP/1.1\r\nHost: 127.0.0.2:80\r\n")
    assert b"\r\nAuthorization: Bearer t\r\n" in request
    assert b"\r\nSec-WebSocket-Protocol: livefeed.v1\r\n" in request
    assert request.endswith(b"\r\n\r\n")


def test_a_refusal_says_why() -> None:
    answer = read_handshake(b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\n\r\n{}", KEY)
    assert answer == ("HTTP/1.1 503 Busy: {}", b"")
    wrong = base64.b64encode(hashlib.sha1(b"another").digest())
    other = ACCEPTED.replace(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", wrong)
    assert read_handshake(other, KEY) == ("the server's accept key is not the one for ours", b"")
    assert read_handshake(b"HTTP/1.1 200 OK\r\n" + bytes(16_384), KEY) is not None


def test_a_percentile_is_within_two_percent() -> None:
    source = random.Random(7)
    latencies = sorted(source.lognormvariate(-4, 1) for _ in range(20_000))
    recorder = LatencyRecorder()
    for latency in latencies:
        recorder.record(latency)
    for percent in (50, 95, 99, 99.9):
        exact = latencies[int(len(latencies) * percent / 100) - 1]
        assert recorder.percentile(percent) == pytest.approx(exact, rel=0.021)
    assert recorder.percentile(100) <= latencies[-1]
    assert recorder.total == pytest.approx(sum(latencies))


def test_merged_recorders_are_one_that_heard_everything() -> None:
    one, other, both = LatencyRecorder(), LatencyRecorder(), LatencyRecorder()
    for number in range(1_000):
        latency = number / 1_000
        (one if number % 3 else other).record(latency)
        both.record(latency)
    one.merge(other)
    assert one.bins == both.bins
    assert (one.count, one.maximum) == (both.count, both.maximum)


@pytest.mark.parametrize("seconds", [-0.001, 0.0, 1e-6, 1e9])
def test_a_latency_out_of_range_is_counted_at_the_edge(seconds: float) -> None:
    recorder = LatencyRecorder()
    recorder.record(seconds)
    assert (recorder.count, sum(recorder.bins)) == (1, 1)
    assert recorder.percentile(50) == max(seconds, 0.0)


def test_nothing_recorded_is_zero() -> None:
    assert LatencyRecorder().percentile(99) == 0.0


def test_a_process_that_is_gone_uses_nothing() -> None:
    usage = usage_of([2**22 + 1])
    assert (usage.cpu_seconds, usage.rss_bytes) == (0.0, 0)
