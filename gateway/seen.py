"""`seen` markers: gathered for a moment, and written together.

They are hints for unread counts, so they may cost no client anything: what cannot be written now is
written later, and what is too much is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from gateway.connection import Connection
from gateway.warn import warn
from livefeed.adapters.postgres.pool import Pool
from livefeed.adapters.postgres.seen import Marker, Seen, mark_seen
from livefeed.cursor import Cursor, resolve
from livefeed.errors import FrameRefused
from livefeed.identity import is_id
from livefeed.limits import SEEN_ROWS_MAX, SEEN_SECONDS, SEEN_WAITING_MAX
from livefeed.protocol import Seen as SeenFrame

logger = logging.getLogger(__name__)


class SeenMarkers:
    """What waits to be written: of each marker the furthest."""

    def __init__(self) -> None:
        self._waiting: dict[Marker, Seen] = {}
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def note(self, marker: Marker, seen: Seen) -> None:
        """A device has shown everything up to a position."""
        held = self._waiting.get(marker)
        if held is None and len(self._waiting) >= SEEN_WAITING_MAX:
            self.dropped += 1
        elif held is None or held.epoch != seen.epoch or held.position < seen.position:
            self._waiting[marker] = seen

    def take(self, most: int) -> dict[Marker, Seen]:
        """Some of them, which wait no more."""
        taken = list(self._waiting)[:most]
        return {marker: self._waiting.pop(marker) for marker in taken}

    def give_back(self, markers: dict[Marker, Seen]) -> None:
        """These could not be written; what came meanwhile is newer."""
        for marker, seen in markers.items():
            if marker not in self._waiting:
                self.note(marker, seen)


class SeenReport:
    """Writes markers each second."""

    def __init__(self, pool: Pool) -> None:
        self._markers: Final = SeenMarkers()
        self._pool: Final = pool
        self._failing = False

    def note(self, connection: Connection, frame: SeenFrame) -> None:
        """A client says what it has shown.

        Raises:
            FrameRefused: The device's name is none: Postgres would refuse others' markers with it.
            CursorRefused: The cursor is not one, or another user's.
        """
        if not is_id(frame.device):
            raise FrameRefused("frame_invalid", "device has characters of control")
        user_id = connection.principal.user_id
        cursor = Cursor(frame.cursor.epoch, frame.cursor.positions)
        positions = resolve(cursor, epoch=connection.epoch, user_id=user_id)
        if positions == "epoch_changed":
            return  # What was shown is of another log.
        for channel, position in positions.items():
            place = connection.positions.get(channel)
            # Nobody has shown more than was sent: a marker never falls, so it must not lie.
            reached = 0 if place is None else min(position, place.position)
            if reached > 0:
                marker = Marker(user_id, channel, frame.device)
                self._markers.note(marker, Seen(connection.epoch, reached))

    async def run(self) -> None:
        """Write until cancelled, and once more at the end."""
        try:
            while True:
                await asyncio.sleep(SEEN_SECONDS)
                await self._try()
        finally:
            await self._leave()

    async def _try(self) -> None:
        try:
            for _ in range(0, len(self._markers), SEEN_ROWS_MAX):
                await self._write_some()
        except Exception as error:  # noqa: BLE001  # whatever it is, the clients do not need it
            if not self._failing:
                warn(logger, "seen markers cannot be written; they will be later", error)
            self._failing = True
        else:
            self._failing = False

    async def _write_some(self) -> None:
        markers = self._markers.take(SEEN_ROWS_MAX)
        try:
            await mark_seen(self._pool, markers)
        except BaseException:
            self._markers.give_back(markers)
            raise

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(SEEN_SECONDS):
                while len(self._markers):
                    await self._write_some()
        except Exception as error:  # noqa: BLE001  # they are hints
            warn(logger, f"{len(self._markers)} seen markers are lost", error)
