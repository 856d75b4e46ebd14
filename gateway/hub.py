"""The hub: who wants which live batches; one core-NATS subscription for each user and topic."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable

import msgspec

from gateway.connection import Connection
from gateway.crowd import Crowd, give_up
from gateway.update_frames import LiveFrames, live_frame
from livefeed import subjects
from livefeed.adapters.nats.connection import Connection as Nats
from livefeed.adapters.nats.connection import DirectSubscription
from livefeed.channel import feed_of, topic_channel
from livefeed.filters import Types
from livefeed.limits import SETTLE_SECONDS_MAX, SETTLE_SILENT_SECONDS
from livefeed.messages import LiveChannel, decode_live_message
from livefeed.pace import Recent

logger = logging.getLogger(__name__)


class Hub:
    """The registry of connections by user and topic."""

    def __init__(self, nats: Nats, clock: Callable[[], float] = time.monotonic) -> None:
        self._nats = nats
        self._clock = clock
        nats.when_regained(self._heard_again)
        self._subscriptions: dict[str, DirectSubscription] = {}
        self._followers: dict[str, dict[Connection, int]] = {}
        """By subject: connections, and for how many feeds each; without those in a crowd."""
        self._crowds: dict[str, dict[Types, Crowd]] = {}
        """By subject, which is a topic's: by filter."""
        self._sent = 0
        self._settled = 0
        """Subscriptions that were sent, and how many of them the server knows."""
        self._settling = asyncio.Lock()
        self._silent_until = 0.0
        """The server did not answer: until then nobody else waits for it; 0 when it did."""
        self.batches = 0
        self.foreign = 0
        """Messages on our subjects that are no live batches."""

    def follow(self, connection: Connection, feed: str) -> None:
        """Give live batches of a feed to the connection."""
        for subject in _subjects(connection, feed):
            group = self._followers.setdefault(subject, {})
            group[connection] = group.get(connection, 0) + 1
            if subject not in self._subscriptions:
                self._subscriptions[subject] = self._nats.subscribe_direct(subject, self._on_live)
                self._sent += 1

    def unfollow(self, connection: Connection, feed: str) -> None:
        """Give it no more of them."""
        for subject in _subjects(connection, feed):
            group = self._followers[subject]
            group[connection] -= 1
            if group[connection] == 0:
                del group[connection]
            if not group and subject not in self._crowds:
                del self._followers[subject]
                self._nats.unsubscribe_now(self._subscriptions.pop(subject))

    def gather(self, connection: Connection, channel: str, recent: Recent) -> Crowd | None:
        """Take it into the crowd that is where it is in a topic; None when there can be none.

        Args:
            connection: It was sent nothing but live batches of this channel in the last second.
            channel: A topic's; of a user's there is none, because nobody else is there.
            recent: The frames that it was sent.
        """
        write, feed = connection.socket.write, feed_of(channel)
        if write is None or not connection.socket.has_room or channel != topic_channel(feed):
            return None
        subject, position = subjects.live_topic(feed), connection.positions[channel]
        crowds = self._crowds.setdefault(subject, {})
        crowd = crowds.get(connection.types)
        if crowd is None:
            crowd = crowds[connection.types] = Crowd(
                channel,
                connection.epoch,
                connection.types,
                position.copy(),
                recent.copy(),
                self._clock,
            )
        elif not crowd.fits(connection.epoch, position):
            return None
        crowd.join(connection, write)
        connection.positions[channel] = crowd.position
        del self._followers[subject][connection]
        return crowd

    def part(self, connection: Connection, crowd: Crowd) -> None:
        """Take it out of its crowd."""
        crowd.leave(connection)
        subject = subjects.live_topic(feed_of(crowd.channel))
        self._followers[subject][connection] = 1
        if not crowd:
            del self._crowds[subject][crowd.types]
            if not self._crowds[subject]:
                del self._crowds[subject]

    async def settle(self) -> None:
        """Return when the server knows every subscription: later commits are pushed here.

        Without a server nothing is pushed at all: heads are compared when it is back. Of one that
        does not answer, pushes may be missed until it does: one call waits for it, those that
        follow do not, and heads are compared as ever.
        """
        if not self._nats.is_connected:
            return
        wanted = self._sent
        async with self._settling:
            if self._settled >= wanted or self._clock() < self._silent_until:
                return
            sent = self._sent
            try:
                await self._nats.flush(SETTLE_SECONDS_MAX)
            except Exception as error:  # noqa: BLE001  # the log is here all the same
                if not self._silent_until:
                    logger.warning("pushes may be missed until NATS answers: %s", error)
                self._silent_until = self._clock() + SETTLE_SILENT_SECONDS
            else:
                self._settled, self._silent_until = sent, 0.0

    async def _heard_again(self) -> None:
        self._silent_until = 0.0

    def _on_live(self, subject: bytes, _reply: bytes, _headers: bytes, payload: bytes) -> None:
        try:
            message = decode_live_message(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.foreign += 1
            logger.warning("a message on %s is no live batch", subject.decode())
            return
        self.batches += 1
        epoch, name = message.epoch, subject.decode()
        for batch in message.channels:
            # Each made when the first connection wants it, once for all with the same filter.
            frames = functools.cache(functools.partial(live_frame, batch))
            for crowd in tuple(self._crowds.get(name, {}).values()):
                if not _taken(crowd, epoch, batch, frames):
                    for connection in crowd.members():
                        connection.go_alone()
            for connection in tuple(self._followers.get(name, ())):
                try:
                    connection.live(epoch, batch, frames)
                except Exception as error:  # noqa: BLE001  # it must not become the others' trouble
                    give_up(connection, error)


def _taken(crowd: Crowd, epoch: str, batch: LiveChannel, frames: LiveFrames) -> bool:
    try:
        return crowd.live(epoch, batch, frames)
    except Exception:
        logger.exception("a live batch could not be given to a crowd")
        return False


def _subjects(connection: Connection, feed: str) -> tuple[str, str]:
    return subjects.live_user(connection.principal.user_id), subjects.live_topic(feed)
