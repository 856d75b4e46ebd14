"""One client's connection: which feeds it follows, where it is in each channel, what it is sent.

All decisions of order are `livefeed.position`'s; this class carries them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from gateway.socket import Socket
from livefeed import protocol
from livefeed.access import Principal
from livefeed.adapters.postgres.reads import Heads, Page
from livefeed.channel import channels_of, client_name, feed_of
from livefeed.cursor import Cursor, client_epoch, resolve
from livefeed.errors import CursorRefused
from livefeed.identity import is_feed
from livefeed.limits import CONNECTION_FEEDS_MAX
from livefeed.messages import LiveChannel, public_update
from livefeed.position import Position, Verdict


class CatchUps(Protocol):
    """What a connection asks when it is behind."""

    def request(self, connection: Connection, channel: str) -> None:
        """Have `connection.page` called with the next page of a channel."""
        ...


class Subscriptions(Protocol):
    """What a connection tells of the feeds that it follows."""

    def follow(self, connection: Connection, feed: str) -> None:
        """Give live batches of a feed to the connection."""
        ...

    def unfollow(self, connection: Connection, feed: str) -> None:
        """Give it no more of them."""
        ...


@dataclass(slots=True)
class Followed:
    """A feed that a connection follows."""

    announced: bool = False
    """Whether the client was told that it is caught up."""


class Connection:
    """A connection after its token was verified."""

    def __init__(
        self,
        connection_id: str,
        principal: Principal,
        *,
        epoch: str,
        catch_ups: CatchUps,
        subscriptions: Subscriptions,
    ) -> None:
        self.id = connection_id
        self.principal = principal
        self.epoch = epoch
        self.socket: Socket
        self.positions: dict[str, Position] = {}
        self._floors: dict[str, int] = {}
        self._feeds: dict[str, Followed] = {}
        self._behind: set[str] = set()
        """Channels whose next page waits for room in the outbox."""
        self._catch_ups = catch_ups
        self._subscriptions = subscriptions

    @property
    def feeds(self) -> list[str]:
        """The feeds that it follows."""
        return list(self._feeds)

    def establish(self, feeds: Iterable[str]) -> None:
        """Greet the client and follow its first feeds; forbidden ones get an error."""
        allowed = [feed for feed in dict.fromkeys(feeds) if self._may_follow(feed) is None]
        allowed = allowed[:CONNECTION_FEEDS_MAX]
        frame = protocol.connection_established(
            connection_id=self.id,
            user_id=self.principal.user_id,
            feeds=allowed,
            timestamp=timestamp(),
            epoch=client_epoch(self.epoch, self.principal.user_id),
        )
        self._send(frame)
        self.subscribe(feeds, None)

    def subscribe(self, feeds: Iterable[str], cursor: protocol.CursorField | None) -> None:
        """Follow feeds from a cursor, or from the beginning."""
        try:
            positions, stale = self._positions(cursor)
        except CursorRefused as refused:
            self.error(refused.code, refused.detail)
            return
        for feed in dict.fromkeys(feeds):
            fault = self._may_follow(feed)
            if fault is not None:
                self.error(fault, f"{feed[:64]}: {protocol.ERRORS[fault]}")
            elif feed not in self._feeds:
                if stale:
                    self._send(self._reset_frame([feed], "epoch_changed"))
                self._follow(feed, positions)

    def unsubscribe(self, feeds: Iterable[str]) -> None:
        """Follow these feeds no more."""
        for feed in feeds:
            if self._feeds.pop(feed, None) is not None:
                self._subscriptions.unfollow(self, feed)
                for channel in channels_of(self.principal.user_id, feed):
                    self.positions.pop(channel, None)
                    self._floors.pop(channel, None)
                    self._behind.discard(channel)

    def refresh(self, principal: Principal) -> None:
        """Go on with a new token of the same user; what it does not allow is followed no more."""
        self.principal = principal
        forbidden = [feed for feed in self._feeds if not principal.may_follow(feed)]
        self.unsubscribe(forbidden)
        for feed in forbidden:
            self.error("feed_forbidden", f"{feed}: {protocol.ERRORS['feed_forbidden']}")

    def live(self, epoch: str, batch: LiveChannel, frame: Callable[[], str]) -> None:
        """Take a live batch of a channel; `frame` makes its frame, once for all connections."""
        position = self.positions.get(batch.channel)
        if position is None:
            return
        if epoch != self.epoch:
            self.reset(epoch)
            return
        # Without room in the outbox the batch counts as lost: the log has it.
        complete = batch.updates is not None and self.socket.has_room
        verdict = position.live(batch.start, batch.end, complete=complete)
        if verdict is Verdict.SEND:
            self._floors[batch.channel] = batch.floor
            self.socket.send(frame())
        elif verdict is Verdict.CATCH_UP:
            self._ask(batch.channel)

    def marks(self) -> dict[str, int]:
        """Where it is in each channel now."""
        return {channel: position.position for channel, position in self.positions.items()}

    def head(self, now: Heads, marks: Mapping[str, int]) -> None:
        """Compare with the heads of the log: the last push may have been lost.

        Args:
            now: The heads.
            marks: Where the connection was before they were read: it may be further by now.
        """
        if now.epoch != self.epoch:
            self.reset(now.epoch)
            return
        for channel, position in list(self.positions.items()):
            if channel not in marks:
                continue
            if position.catching_up:
                position.behind(now.heads[channel])
            elif marks[channel] > now.heads[channel]:
                self._restart(channel, "position_ahead")
            elif position.behind(now.heads[channel]):
                self._ask(channel)
            elif now.floors[channel] > self._floors.get(channel, 0):
                # Nothing new, but something is gone: the page says so.
                position.begin()
                self._ask(channel)

    def page(self, page: Page, *, after: int) -> None:
        """Take a page of the log that was read after a position."""
        position = self.positions.get(page.channel)
        if position is None or position.position != after:
            return  # Unsubscribed or reset meanwhile; a new request is under way.
        if page.epoch != self.epoch:
            self.reset(page.epoch)
            return
        if after > page.head:
            self._restart(page.channel, "position_ahead")
            return
        if page.updates or page.end > after or page.floor > self._floors.get(page.channel, 0):
            self._floors[page.channel] = page.floor
            self._send(_page_frame(page, after))
        if position.page(page.end, more=page.more):
            self._announce(feed_of(page.channel))
        else:
            self._ask(page.channel)

    def has_room(self) -> None:
        """The outbox has room again: go on with what waited for it."""
        behind, self._behind = self._behind, set()
        for channel in behind:
            self._ask(channel)

    def reset(self, epoch: str) -> None:
        """The log is another one: have the client drop its state, and start again from 0."""
        self.epoch = epoch
        self._floors.clear()
        if self._feeds:
            self._send(self._reset_frame(self.feeds, "epoch_changed"))
        for feed, followed in self._feeds.items():
            followed.announced = False
            for channel in channels_of(self.principal.user_id, feed):
                self._begin(channel, 0)

    def error(self, code: str, message: str) -> None:
        """Tell the client what is wrong."""
        self._send(protocol.error(code, message, retryable=code == "unavailable"))

    def leave(self) -> None:
        """The client is gone."""
        self.unsubscribe(self.feeds)

    def _follow(self, feed: str, positions: Mapping[str, int]) -> None:
        self._feeds[feed] = Followed()
        self._subscriptions.follow(self, feed)
        for channel in channels_of(self.principal.user_id, feed):
            self._begin(channel, positions.get(channel, 0))

    def _begin(self, channel: str, start: int) -> None:
        position = Position(start)
        position.begin()
        self.positions[channel] = position
        self._ask(channel)

    def _restart(self, channel: str, reason: str) -> None:
        """A position that the log cannot have: drop the feed's state and start again."""
        feed = feed_of(channel)
        self._feeds[feed].announced = False
        self._send(self._reset_frame([feed], reason))
        for name in channels_of(self.principal.user_id, feed):
            self._floors.pop(name, None)
            self._begin(name, 0)

    def _ask(self, channel: str) -> None:
        if self.socket.has_room:
            self._catch_ups.request(self, channel)
        else:
            self._behind.add(channel)

    def _announce(self, feed: str) -> None:
        followed = self._feeds[feed]
        channels = channels_of(self.principal.user_id, feed)
        if not followed.announced and not any(
            self.positions[name].catching_up for name in channels
        ):
            followed.announced = True
            self._send(protocol.caught_up([feed]))

    def _may_follow(self, feed: str) -> str | None:
        """Why a feed may not be followed, or None."""
        if not is_feed(feed):
            return "feed_invalid"
        if not self.principal.may_follow(feed):
            return "feed_forbidden"
        if len(self._feeds) >= CONNECTION_FEEDS_MAX and feed not in self._feeds:
            return "too_many_feeds"
        return None

    def _positions(self, cursor: protocol.CursorField | None) -> tuple[Mapping[str, int], bool]:
        """Positions to start from, and whether the cursor is of another log."""
        if cursor is None:
            return {}, False
        resolved = resolve(
            Cursor(cursor.epoch, cursor.positions),
            epoch=self.epoch,
            user_id=self.principal.user_id,
        )
        return ({}, True) if resolved == "epoch_changed" else (resolved, False)

    def _reset_frame(self, feeds: list[str], reason: str) -> bytes:
        return protocol.reset(feeds, reason, client_epoch(self.epoch, self.principal.user_id))

    def _send(self, frame: bytes) -> None:
        self.socket.send(frame.decode())


def timestamp() -> str:
    """Now, as frames show it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def live_frame(batch: LiveChannel) -> str:
    """The frame of a live batch: the same for every connection."""
    name = client_name(batch.channel)
    frame = protocol.feed_updates(
        batch_id=f"{name}:{batch.start}-{batch.end}",
        timestamp=timestamp(),
        updates=[bytes(update) for update in batch.updates or []],
        cursor={name: batch.end},
        floor={name: batch.floor},
        replay=False,
        more=False,
    )
    return frame.decode()


def _page_frame(page: Page, after: int) -> bytes:
    name = client_name(page.channel)
    return protocol.feed_updates(
        batch_id=f"{name}:{after}-{page.end}",
        timestamp=timestamp(),
        updates=[
            public_update(page.channel, one.seq, rank=one.rank, born=one.born, body=one.body)
            for one in page.updates
        ],
        cursor={name: page.end},
        floor={name: page.floor},
        replay=True,
        more=page.more,
    )
