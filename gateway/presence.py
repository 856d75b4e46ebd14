"""Presence: who is connected through this gateway, and which feeds they look at.

It only decides how soon updates come, so nothing here may cost a client anything: what cannot be
reported now is reported later.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from gateway.warn import warn
from livefeed.adapters.postgres.presence import Feeds, PresenceTable
from livefeed.limits import (
    PRESENCE_LEAVE_SECONDS_MAX,
    PRESENCE_REPORT_SECONDS,
    PRESENCE_ROWS_MAX,
    PRESENCE_SEEN_SECONDS,
)

logger = logging.getLogger(__name__)


class Device(Protocol):
    """One connection of a user, as presence looks at it."""

    visible: bool

    @property
    def feeds(self) -> list[str]:
        """The feeds that it follows."""
        ...


Changes = dict[str, Feeds | None]
"""By user: the feeds on the screen, or None when no device is connected any more."""


class Presence:
    """What has to be reported: what the devices of a user add up to, where it is not reported yet.

    Pure. It is told of whatever may matter, and looks at the devices when the report is due: what
    came and went meanwhile is no change.
    """

    def __init__(self) -> None:
        self._devices: dict[str, list[Device]] = {}
        self._reported: dict[str, Feeds] = {}
        self._unsure: set[str] = set()
        """Users of whom a report is under way, or of unknown outcome."""
        self._dirty: set[str] = set()

    def joined(self, user: str, device: Device) -> None:
        """A device has connected."""
        self._devices.setdefault(user, []).append(device)
        self._dirty.add(user)

    def changed(self, user: str) -> None:
        """A device of the user may follow other feeds now, or be looked at, or no more."""
        self._dirty.add(user)

    def left(self, user: str, device: Device) -> None:
        """A device is gone."""
        devices = self._devices[user]
        devices.remove(device)
        if not devices:
            del self._devices[user]
        if devices or user in self._reported or user in self._unsure:
            self._dirty.add(user)
        else:
            # Nobody has heard of this user: while nothing can be reported, they must not pile up.
            self._dirty.discard(user)

    def again(self) -> None:
        """What was reported is lost: everything is to be reported."""
        self._dirty.update(self._devices)
        self._reported.clear()

    @property
    def waiting(self) -> int:
        """Users that are to be looked at."""
        return len(self._dirty)

    def take(self, most: int) -> Changes:
        """Look at some users; what has changed of them is reported now, then `done` or `failed`."""
        looked_at = [self._dirty.pop() for _ in range(min(most, len(self._dirty)))]
        changes: Changes = {}
        for user in looked_at:
            feeds = self._feeds(user)
            if feeds != self._reported.get(user) or user in self._unsure:
                changes[user] = feeds
        self._unsure.update(changes)
        return changes

    def done(self, changes: Changes) -> None:
        """These were reported."""
        self._unsure.difference_update(changes)
        for user, feeds in changes.items():
            if feeds is None:
                self._reported.pop(user, None)
            else:
                self._reported[user] = feeds

    def failed(self, changes: Changes) -> None:
        """These were reported perhaps: they are to be reported, whatever they are by then."""
        self._dirty.update(changes)

    def _feeds(self, user: str) -> Feeds | None:
        devices = self._devices.get(user)
        if devices is None:
            return None
        return tuple(sorted({feed for one in devices if one.visible for feed in one.feeds}))


class PresenceReport:
    """Writes what has changed each second, and now and then that the gateway is there."""

    def __init__(self, presence: Presence, table: PresenceTable) -> None:
        self._presence: Final = presence
        self._table: Final = table
        self._seen_due_at = 0.0
        self._failing = False

    async def run(self) -> None:
        """Report until cancelled, then take back what was reported."""
        try:
            while True:
                await asyncio.sleep(PRESENCE_REPORT_SECONDS)
                await self._try()
        finally:
            await self._leave()

    async def _try(self) -> None:
        try:
            await self._report()
        except Exception as error:  # noqa: BLE001  # whatever it is, the clients do not need it
            # The server may have crashed, and come back with empty tables.
            self._seen_due_at = 0.0
            if not self._failing:
                warn(logger, "presence cannot be reported; it will be later", error)
            self._failing = True
        else:
            if self._failing:
                logger.info("presence is reported again")
            self._failing = False

    async def _report(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._seen_due_at:
            if not await self._table.seen():
                self._presence.again()
            self._seen_due_at = now + PRESENCE_SEEN_SECONDS
        # As many as there are now: what changes meanwhile gathers for the next report.
        for _ in range(0, self._presence.waiting, PRESENCE_ROWS_MAX):
            await self._report_some()
            await asyncio.sleep(0)  # A round that finds nothing to write has not waited.

    async def _report_some(self) -> None:
        changes = self._presence.take(PRESENCE_ROWS_MAX)
        try:
            await self._write(changes)
        except BaseException:
            self._presence.failed(changes)
            raise
        self._presence.done(changes)

    async def _write(self, changes: Changes) -> None:
        here = {user: feeds for user, feeds in changes.items() if feeds is not None}
        if here:
            await self._table.put(here)
        if len(here) < len(changes):
            await self._table.take_back(changes.keys() - here.keys())

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(PRESENCE_LEAVE_SECONDS_MAX):
                await self._table.leave()
        except Exception as error:  # noqa: BLE001  # it counts no more in a while, whatever it is
            warn(logger, "what this gateway reported of presence stays for a while", error)
