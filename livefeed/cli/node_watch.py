"""Watches for the end of a cloud node, and does what `livefeed.node` decides about it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from livefeed.adapters import node_lock
from livefeed.adapters.metadata import Metadata
from livefeed.cli.node_cloud import Cloud
from livefeed.cli.node_events import Events, told_of
from livefeed.errors import LivefeedError
from livefeed.node import (
    Action,
    Complete,
    Heartbeat,
    Sight,
    State,
    Tell,
    completed,
    retry_seconds,
    step,
    untold,
)
from livefeed.node_settings import NodeSettings

LEAVING_POLL_SECONDS: Final = 0.5
"""How often it is looked at most while the process leaves: nobody waits for longer than needed."""

Found = TypeVar("Found")


class Watch:
    """One node's end: looks, decides, does, until cancelled.

    Args:
        node: The settings.
        lock_file: Locked by the process that is to leave.
        metadata: Asked for notices.
        cloud: Where the lifecycle action is.
        events: Told what happens.
    """

    def __init__(
        self,
        node: NodeSettings,
        lock_file: str,
        metadata: Metadata,
        cloud: Cloud,
        events: Events,
    ) -> None:
        self._node: Final = node
        self._lock_file: Final = lock_file
        self._metadata: Final = metadata
        self._cloud: Final = cloud
        self._events: Final = events
        self._state = State()
        self._seen = Sight()
        self._unanswered = 0
        self._calls: dict[type[Action], asyncio.Task[None]] = {}
        """Those to AWS that are under way: the next look does not wait for them."""

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._seen = await self._look()
            self._state, actions = step(
                self._state, self._seen, time.monotonic(), self._node.policy
            )
            for action in actions:
                self._do(action)
            await asyncio.sleep(self._pause_seconds())

    async def _look(self) -> Sight:
        faults: list[LivefeedError] = []
        terminating = await _asked(self._metadata.terminating(), faults, otherwise=False)
        taken_at = await _asked(self._metadata.spot_taken_at(), faults, otherwise=None)
        rebalance = await _asked(self._metadata.rebalance(), faults, otherwise=False)
        if faults:
            self._unanswered += 1
            self._events.fault("metadata", faults[0])
        else:
            self._unanswered = 0
            self._events.well("metadata")
        spot_seconds = None if taken_at is None else taken_at - time.time()
        return Sight(terminating, spot_seconds, rebalance, self._holder())

    def _holder(self) -> int | None:
        try:
            pid = node_lock.holder(self._lock_file)
        except LivefeedError as error:
            self._events.fault("process", error)
            # Who cannot be seen has not ended: what was there is believed to be there still.
            return self._seen.pid
        self._events.well("process")
        return pid

    def _do(self, action: Action) -> None:
        if isinstance(action, Heartbeat):
            self._call(Heartbeat, self._heartbeat)
        elif isinstance(action, Complete):
            self._call(Complete, self._complete)
        elif isinstance(action, Tell):
            self._tell(action.pid)
        else:
            event, fields = told_of(action)
            self._events.tell(event, **fields)

    def _tell(self, pid: int) -> None:
        try:
            sent = node_lock.tell_to_leave(self._lock_file, pid)
        except LivefeedError as error:
            self._state = untold(self._state)
            self._events.fault("leave", error)
            return
        self._events.well("leave")
        if sent:
            self._events.tell("leave", pid=pid)

    def _call(self, kind: type[Action], work: Callable[[], Awaitable[None]]) -> None:
        """Begin a call, unless the one before it is still under way."""
        before = self._calls.get(kind)
        if before is None or before.done():
            self._calls[kind] = asyncio.ensure_future(self._safely(work))

    async def _safely(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except LivefeedError as error:
            self._events.fault("lifecycle", error)
        else:
            self._events.well("lifecycle")

    async def _heartbeat(self) -> None:
        await (await self._cloud.hook()).heartbeat()
        self._events.tell("heartbeat")

    async def _complete(self) -> None:
        succeeded = False
        try:
            await (await self._cloud.hook()).complete()
            succeeded = True
        finally:
            self._state = completed(
                self._state, time.monotonic(), succeeded=succeeded, chance=random.random()
            )
        self._events.tell("completed")

    def _pause_seconds(self) -> float:
        if self._state.deadline is not None and not self._state.ended:
            return min(self._node.poll_seconds, LEAVING_POLL_SECONDS)
        if self._unanswered:
            return max(self._node.poll_seconds, retry_seconds(self._unanswered, random.random()))
        return self._node.poll_seconds


async def _asked(
    question: Awaitable[Found], faults: list[LivefeedError], *, otherwise: Found
) -> Found:
    try:
        return await question
    except LivefeedError as error:
        faults.append(error)
        return otherwise
