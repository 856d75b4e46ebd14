"""The other gateways: how many connections each has, and giving them some of ours."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection
from typing import Final

from gateway.connection import Connection
from gateway.drain import send_away
from livefeed import subjects
from livefeed.adapters.nats.connection import Connection as Nats
from livefeed.control import GatewayCount, decode, encode
from livefeed.limits import FLEET_GATEWAYS_MAX, FLEET_SECONDS, FLEET_SILENT_SECONDS_MAX
from livefeed.shedding import ShedPolicy, shed

logger = logging.getLogger(__name__)


class Fleet:
    """Says how many connections this gateway has, hears the others, and sheds.

    Args:
        nats: While it is away nobody is heard, and nothing is shed.
        gateway: This gateway's id.
        connections: Those of this gateway.
        policy: When it sheds.
    """

    def __init__(
        self, nats: Nats, gateway: str, connections: Collection[Connection], policy: ShedPolicy
    ) -> None:
        self._nats: Final = nats
        self._gateway: Final = gateway
        self._connections: Final = connections
        self._policy: Final = policy
        self._heard: dict[str, tuple[float, int]] = {}
        self._shedding = False
        self.draining = False
        """Whether the others are told not to count this one."""
        self.shed = 0
        """Clients that were sent to other gateways."""

    async def run(self) -> None:
        """Announce, and shed what is too much, until cancelled."""
        self._nats.subscribe_direct(subjects.CONTROL_GATEWAYS, self._on_count)
        while True:
            await asyncio.sleep(FLEET_SECONDS)
            try:
                self._step()
            except Exception:
                logger.exception("a step of the fleet failed")

    def _step(self) -> None:
        self._announce()
        if not self.draining:
            self._shed(self._others())

    def _announce(self) -> None:
        count = GatewayCount(self._gateway, len(self._connections), self.draining)
        self._nats.send(subjects.CONTROL_GATEWAYS, encode(count))

    def _others(self) -> list[int]:
        """What each of the others has that was heard lately."""
        since = asyncio.get_running_loop().time() - FLEET_SILENT_SECONDS_MAX
        self._heard = {name: one for name, one in self._heard.items() if one[0] >= since}
        return [connections for _, connections in self._heard.values()]

    def _shed(self, others: list[int]) -> None:
        own = list(self._connections)
        found = shed(len(own), others, self._policy, going_on=self._shedding)
        if found.going_on and not self._shedding:
            logger.info("sheds: %d connections, the other gateways have %s", len(own), others[:20])
        self._shedding = found.going_on
        for connection in random.sample(own, found.count):
            send_away(connection, "shed")
        self.shed += found.count

    def _on_count(self, _subject: bytes, _reply: bytes, _headers: bytes, payload: bytes) -> None:
        count = decode(payload, GatewayCount)
        if count is None or count.gateway == self._gateway:
            return
        if count.draining:
            self._heard.pop(count.gateway, None)
        elif count.gateway in self._heard or len(self._heard) < FLEET_GATEWAYS_MAX:
            now = asyncio.get_running_loop().time()
            self._heard[count.gateway] = (now, count.connections)
