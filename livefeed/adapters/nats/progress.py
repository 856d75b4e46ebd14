"""How far the functions are: what prioritize has handled, and which partitions deliver has not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.purge import handled
from livefeed.adapters.nats.stored import held_by
from livefeed.errors import Unavailable
from livefeed.limits import PARTITIONS
from livefeed.reconcile import Handled
from livefeed.subjects import LANES, Lane, lanes
from livefeed.topology import LANE_STREAM, UPDATES, prioritize_consumer

PAUSE_SECONDS: Final = 0.25
REQUEST_SECONDS_MAX: Final = 5.0


async def settled(
    connection: Connection, *, wait_seconds: float, clock: Callable[[], float]
) -> Handled:
    """Wait until deliver has handled what prioritize had published, and say how far both are.

    Raises:
        Unavailable: When JetStream does not answer.
    """
    deadline = clock() + wait_seconds
    floors = await _prioritized(connection)
    # Whatever was prioritized by then has its lane messages in the stream by now.
    last = (await held_by(connection, LANE_STREAM)).last
    busy = await _busy(connection, last)
    while busy and clock() < deadline:
        await asyncio.sleep(PAUSE_SECONDS)
        busy = await _busy(connection, last)
    return Handled(floors, frozenset(busy))


async def _prioritized(connection: Connection) -> dict[Lane, int]:
    floors = {frozenset(one.filters): one.floor for one in await handled(connection, UPDATES)}
    return {
        priority: floors.get(frozenset(prioritize_consumer(priority).filters), 0)
        for priority in LANES
    }


async def _busy(connection: Connection, last: int) -> set[int]:
    """The partitions that have a message at or before `last` which is not handled."""
    done = {
        subject: one.floor
        for one in await handled(connection, LANE_STREAM)
        for subject in one.filters
    }
    return {
        partition
        for partition in range(PARTITIONS)
        for lane in LANES
        if (floor := done.get(lanes(lane, partition), 0)) < last
        and await _waits(connection, lanes(lane, partition), floor + 1, last)
    }


async def _waits(connection: Connection, subject: str, first: int, last: int) -> bool:
    # Asked of the stream itself: a consumer hears of a message a moment after its publisher does.
    jetstream = connection.jetstream(timeout=REQUEST_SECONDS_MAX)
    try:
        message = await jetstream.get_msg(LANE_STREAM, seq=first, subject=subject, next=True)
    except NotFoundError:
        return False
    except (NatsError, TimeoutError) as error:
        raise Unavailable("nats", f"JetStream does not answer: {error}") from error
    return (message.seq or 0) <= last
