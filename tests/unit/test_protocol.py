"""Frames."""

import json

import pytest

from livefeed import protocol
from livefeed.errors import FrameRefused
from livefeed.limits import INBOUND_FRAME_BYTES_MAX


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"subscribe","feeds":["home"]}',
        '{"type":"subscribe","feeds":["home"],"cursor":{"epoch":"e","positions":{"me/home":4}}}',
        '{"type":"unsubscribe","feeds":["home"]}',
        '{"type":"seen","cursor":{"epoch":"e","positions":{}},"device":"phone"}',
        '{"type":"visibility","state":"hidden"}',
        '{"type":"refresh","token":"x.y.z"}',
    ],
)
def test_the_clients_frames_are_read(text: str) -> None:
    """Every frame of the protocol has its type."""
    assert type(protocol.decode_frame(text)).__name__.lower() == json.loads(text)["type"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[]",
        "7",
        "null",
        "{}",
        '{"type":"subscribe"}',
        '{"type":"subscribe","feeds":[]}',
        '{"type":"subscribe","feeds":"home"}',
        '{"type":"subscribe","feeds":["home"],"more":1}',
        '{"type":"subscribe","feeds":["home"]} x',
        '{"type":"subscribe","feeds":["home"],"cursor":"e"}',
        '{"type":"subscribe","feeds":["home"],"cursor":{"epoch":"e","positions":{"me/home":-1}}}',
        '{"type":"subscribe","feeds":["home"],"cursor":{"epoch":"e","positions":{"me/home":1.5}}}',
        '{"type":"subscribe","feeds":["home"],"cursor":{"epoch":"e","positions":{"a":"1"}}}',
        '{"type":"visibility","state":"asleep"}',
        '{"type":"unknown"}',
        '{"type":"visibility","state":NaN}',
        "[" * 10_000,
        '{"type":"visibility","state":"\ud800"}',
    ],
)
def test_other_text_is_refused(text: str) -> None:
    """With an error code, never another exception."""
    with pytest.raises(FrameRefused) as refused:
        protocol.decode_frame(text)
    assert refused.value.code == "frame_invalid"


def test_a_large_frame_is_refused_unread() -> None:
    """The bound counts bytes, not characters."""
    with pytest.raises(FrameRefused) as refused:
        protocol.decode_frame("ä" * (INBOUND_FRAME_BYTES_MAX // 2 + 1))
    assert refused.value.code == "frame_too_large"


def test_feed_updates_is_json() -> None:
    """A frame that is put together from ready-made parts is what the protocol says."""
    frame = protocol.feed_updates(
        batch_id='a"b',
        timestamp="2026-11-23T08:00:00Z",
        updates=[b'{"seq":1}', b'{"seq":2}'],
        cursor={"me/home": 2},
        floor={"me/home": 0},
        replay=True,
        more=False,
    )
    assert json.loads(frame) == {
        "type": "feed_updates",
        "batchId": 'a"b',
        "timestamp": "2026-11-23T08:00:00Z",
        "updates": [{"seq": 1}, {"seq": 2}],
        "cursor": {"me/home": 2},
        "floor": {"me/home": 0},
        "replay": True,
        "more": False,
    }


def test_the_close_codes_say_whether_to_come_back() -> None:
    """1012 and 4000–4499 come back, 4500–4999 do not: a client needs no table."""
    assert {code for code in protocol.CloseCode if code == 1012 or 4000 <= code < 5000} == set(
        protocol.CloseCode
    )
