"""A frame on the wire is what RFC 6455 says."""

import pytest
from websockets.frames import Frame as Reference
from websockets.frames import Opcode

from gateway.frames import Frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 300_000])
def test_a_frame_is_as_the_library_makes_it(size: int) -> None:
    """Each form of the length, unmasked, in one piece."""
    payload = b"x" * size
    frame = Frame(payload)
    assert frame.wire == Reference(Opcode.TEXT, payload).serialize(mask=False)
    assert (frame.payload, frame.payload_bytes) == (payload, size)
