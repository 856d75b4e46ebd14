"""What each connection has: an event and a queue for one waiter, in a tenth of the memory of
asyncio's, and an allowance of bytes.
"""

from __future__ import annotations

import asyncio
from typing import Any

from livefeed.admission import TokenBucket
from livefeed.limits import INBOUND_BURST_BYTES, INBOUND_BYTES_PER_SECOND


class Gate:
    """Open or closed; one task at a time may wait for it to open."""

    __slots__ = ("_opened", "_waiter")

    def __init__(self) -> None:
        self._opened = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Open it."""
        self._opened = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        """Close it."""
        self._opened = False

    def is_set(self) -> bool:
        """Whether it is open."""
        return self._opened

    async def wait(self) -> None:
        """Return when it is open."""
        while not self._opened:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None


class Inbox:
    """A queue that one task reads."""

    __slots__ = ("_gate", "_items")

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._gate = Gate()

    def __len__(self) -> int:
        return len(self._items)

    def put_nowait(self, item: Any) -> None:
        """Put an item at its end."""
        self._items.append(item)
        self._gate.set()

    async def get(self) -> Any:
        """Take the first item, and wait for one when it is empty."""
        await self._gate.wait()
        item = self._items.pop(0)
        if not self._items:
            self._gate.clear()
        return item


def allowance(loop: asyncio.AbstractEventLoop) -> TokenBucket:
    """What one connection may send, whatever it carries."""
    return TokenBucket(INBOUND_BYTES_PER_SECOND, INBOUND_BURST_BYTES, loop.time())
