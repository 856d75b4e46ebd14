"""What clients hold of pages: counted, bounded, and taken from who does not read."""

import random
from dataclasses import dataclass, field
from typing import Any, cast

from gateway.held_pages import HeldPages
from gateway.turn import Asked, Turn
from gateway.update_frames import Piece
from livefeed.adapters.postgres.reads import Page, StoredUpdate
from livefeed.filters import ALL_TYPES, Types
from livefeed.limits import PAGES_HELD_SECONDS_MAX
from livefeed.position import Position

BYTES_MAX = 10_000
PAGE = Page("topic:home", "e", 1, 0, 1, more=False)
PAGE.updates.append(StoredUpdate(1, 0, 0, None, 1_000_000, b"{" + b"x" * 999 + b"}"))


@dataclass(eq=False)
class Reader:
    """A connection and its socket, as far as they matter here."""

    types: Types = ALL_TYPES
    pending_bytes: int = 0
    closed: bool = False
    cuts: list[Any] = field(default_factory=list)
    positions: dict[str, Position] = field(default_factory=lambda: {"topic:home": Position()})

    @property
    def socket(self) -> "Reader":
        """Its socket."""
        return self

    def cut(self, *why: Any) -> None:
        """It is closed."""
        self.cuts.append(why)
        self.pending_bytes = 0

    def turn(self) -> Turn:
        """A turn whose page came."""
        turn = Turn(cast("Any", self), {"topic:home": Asked(self.positions["topic:home"], 0)})
        assert turn.give("topic:home", Piece(PAGE, 0))
        self.pending_bytes += len(turn.pieces["topic:home"].updates(ALL_TYPES))
        return turn


def test_what_is_read_makes_room() -> None:
    """However much was given, only what waits counts."""
    held = HeldPages(BYTES_MAX)
    readers = [Reader() for _ in range(50)]
    for reader in readers:
        held.given(reader.turn(), 0.0)
    assert held.full(1.0)
    for reader in readers[5:]:
        reader.pending_bytes = 0
    assert not held.full(1.0)
    assert not any(reader.cuts for reader in readers)


def test_who_does_not_read_makes_room_in_the_end() -> None:
    """Full for a while: those who were given nothing since have to come back; others stay."""
    held = HeldPages(BYTES_MAX)
    silent, others = [Reader() for _ in range(9)], [Reader() for _ in range(9)]
    for reader in silent:
        held.given(reader.turn(), 0.0)
    later = PAGES_HELD_SECONDS_MAX + 1
    for reader in others:
        held.given(reader.turn(), later)
    assert held.full(later)
    assert all(reader.cuts for reader in silent)
    assert not any(reader.cuts for reader in others)
    assert not held.full(later)
    assert held.closed == len(silent)


def test_nothing_is_kept_of_who_is_gone() -> None:
    """Connections that leave in any order leave nothing behind."""
    held = HeldPages(BYTES_MAX)
    readers = [Reader() for _ in range(20)]
    for reader in readers:
        held.given(reader.turn(), 0.0)
    random.Random(1).shuffle(readers)
    for reader in readers:
        late = reader.turn()
        reader.positions.clear()
        held.forget(cast("Any", reader))
        held.given(late, 0.0)  # Its pages were under way when it left.
    assert not held.full(1.0)
    assert held._given_at == {}
