"""What waits of `seen` markers."""

from gateway import seen
from gateway.seen import SeenMarkers
from livefeed.adapters.postgres.seen import Marker, Seen


def marker(device: str) -> Marker:
    return Marker("alice", "user:alice/home", device)


def test_of_each_marker_the_furthest_waits() -> None:
    """Late and repeated ones change nothing; another log begins anew."""
    markers = SeenMarkers()
    for one in (Seen("e1", 3), Seen("e1", 5), Seen("e1", 4)):
        markers.note(marker("phone"), one)
    assert markers.take(9) == {marker("phone"): Seen("e1", 5)}
    markers.note(marker("phone"), Seen("e1", 5))
    markers.note(marker("phone"), Seen("e2", 1))
    assert markers.take(9) == {marker("phone"): Seen("e2", 1)}
    assert len(markers) == 0


def test_what_could_not_be_written_waits_again() -> None:
    """Unless something newer came meanwhile."""
    markers = SeenMarkers()
    for device in ("phone", "laptop"):
        markers.note(marker(device), Seen("e", 1))
    taken = markers.take(9)
    markers.note(marker("phone"), Seen("e", 2))
    markers.give_back(taken)
    assert markers.take(9) == {marker("phone"): Seen("e", 2), marker("laptop"): Seen("e", 1)}


def test_what_waits_is_bounded() -> None:
    """New markers are dropped; those that wait still rise."""
    markers = SeenMarkers()
    for number in range(seen.SEEN_WAITING_MAX + 5):
        markers.note(marker(f"d{number}"), Seen("e", 1))
    markers.note(marker("d0"), Seen("e", 2))
    assert (len(markers), markers.dropped) == (seen.SEEN_WAITING_MAX, 5)
    assert markers.take(1) == {marker("d0"): Seen("e", 2)}
