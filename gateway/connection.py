"""One client's connection: which feeds it follows, where it is in each channel, what it is sent.

All decisions of order are `livefeed.position`'s; this class carries them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.backlog import Backlog, CatchUps
from gateway.crowd import Crowd
from gateway.frames import Frame
from gateway.marks import Marks, Place
from gateway.socket import Socket
from gateway.turn import Turn
from gateway.update_frames import LiveFrames, Piece, pages_frame, timestamp
from livefeed import protocol
from livefeed.access import Principal
from livefeed.adapters.postgres.reads import Heads
from livefeed.channel import channels_of, feed_of
from livefeed.cursor import Cursor, client_epoch, resolve
from livefeed.errors import Refused
from livefeed.filters import ALL_TYPES, Types
from livefeed.identity import is_feed
from livefeed.limits import CONNECTION_FEEDS_MAX
from livefeed.messages import LiveChannel
from livefeed.pace import Recent
from livefeed.position import Position, Verdict

NONE_REFUSED: Mapping[str, str] = {}


class Subscriptions(Protocol):
    """What a connection tells of the feeds that it follows."""

    def follow(self, connection: Connection, feed: str) -> None:
        """Give live batches of a feed to the connection."""
        ...

    def unfollow(self, connection: Connection, feed: str) -> None:
        """Give it no more of them."""
        ...

    def gather(self, connection: Connection, channel: str, recent: Recent) -> Crowd | None:
        """Take it into the crowd that is where it is in a topic; None when there can be none."""
        ...

    def part(self, connection: Connection, crowd: Crowd) -> None:
        """Take it out of its crowd."""
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
        types: Types = ALL_TYPES,
    ) -> None:
        self.id = connection_id
        self.principal = principal
        self.epoch = epoch
        self.types = types
        """The types of updates that it is sent."""
        self.socket: Socket
        self.positions: dict[str, Position] = {}
        self._feeds: dict[str, Followed] = {}
        self._warned = False
        """Whether the client was told that its token ran out."""
        self._backlog = Backlog(self, catch_ups)
        self._subscriptions = subscriptions
        self._crowd: Crowd | None = None
        """With whom it is in one of its channels: that position is not its own."""

    @property
    def feeds(self) -> list[str]:
        """The feeds that it follows."""
        return list(self._feeds)

    @property
    def visible(self) -> bool:
        """Whether anybody looks; hidden it is sent the same, in few frames."""
        return self._backlog.pace.visible

    @visible.setter
    def visible(self, visible: bool) -> None:
        self.go_alone()
        self._backlog.visible(visible)

    def establish(self, feeds: Iterable[str], refused: Mapping[str, str] = NONE_REFUSED) -> None:
        """Greet the client and follow its first feeds; forbidden ones get an error."""
        allowed = [feed for feed in dict.fromkeys(feeds) if not self._fault_of(feed, refused)]
        allowed = allowed[:CONNECTION_FEEDS_MAX]
        frame = protocol.connection_established(
            connection_id=self.id,
            user_id=self.principal.user_id,
            feeds=allowed,
            timestamp=timestamp(),
            epoch=client_epoch(self.epoch, self.principal.user_id),
        )
        self._send(frame)
        try:
            self.subscribe(feeds, None, refused)
        except Refused as fault:
            self.error(fault.code, fault.detail)

    def subscribe(
        self,
        feeds: Iterable[str],
        cursor: protocol.CursorField | None,
        refused: Mapping[str, str] = NONE_REFUSED,
    ) -> None:
        """Follow feeds from a cursor, or from the beginning; those that may be followed.

        Args:
            feeds: The feeds.
            cursor: Where the client is.
            refused: What the authorizer says of some of them: error codes by feed.

        Raises:
            Refused: For the cursor, or for the first feed that may not be followed.
        """
        self.go_alone()
        positions, stale = self._positions(cursor)
        faults: list[tuple[str, str]] = []
        for feed in dict.fromkeys(feeds):
            fault = self._fault_of(feed, refused)
            if fault is not None:
                faults.append((fault, feed))
            elif feed not in self._feeds:
                if stale:
                    self._send(self._reset_frame([feed], "epoch_changed"))
                self._follow(feed, positions)
        self._backlog.go_on()
        if faults:
            # One answer, however many: a frame must not cost more than it says.
            code, feed = faults[0]
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            raise Refused(code, f"{feed[:64]}: {protocol.ERRORS[code]}{more}")

    def unsubscribe(self, feeds: Iterable[str]) -> None:
        """Follow these feeds no more."""
        self.go_alone()
        for feed in feeds:
            if self._feeds.pop(feed, None) is not None:
                self._subscriptions.unfollow(self, feed)
                for channel in channels_of(self.principal.user_id, feed):
                    self.positions.pop(channel, None)
                    self._backlog.drop(channel)

    def refresh(self, principal: Principal, refused: Mapping[str, str] = NONE_REFUSED) -> None:
        """Go on with a new token of the same user; what is not allowed is followed no more."""
        self.principal = principal
        self._warned = False
        faults = {feed: self._fault_of(feed, refused) for feed in self._feeds}
        forbidden = [feed for feed, fault in faults.items() if fault == "feed_forbidden"]
        self.unsubscribe(forbidden)
        if forbidden:
            names = ", ".join(forbidden)[:200]
            self.error("feed_forbidden", f"{names}: {protocol.ERRORS['feed_forbidden']}")

    def expired(self) -> None:
        """Tell the client, once for each token, that its token ran out: it may refresh it yet."""
        if not self._warned:
            self._warned = True
            self.error("token_expired", "the token ran out; refresh it, or be closed soon")

    def live(self, epoch: str, batch: LiveChannel, frames: LiveFrames) -> None:
        """Take a live batch of a channel in which it is in no crowd."""
        self.go_alone()
        position = self.positions.get(batch.channel)
        if position is None:
            return
        if epoch != self.epoch:
            self.reset(epoch)
            return
        start, end, socket = batch.start, batch.end, self.socket
        # Without room, or over the budget, the batch counts as lost: the log has it. The frame is
        # made first: when it cannot be, the position has not moved past it.
        complete, frame = False, None
        if batch.updates is not None and socket.has_room and position.continues(start, end):
            frame = frames(self.types)
            complete = frame is None or self._backlog.takes_live(batch.channel)
        verdict = position.live(start, end, complete=complete)
        if verdict is Verdict.SEND:
            # A floor that was not told stays to be told: by the next frame, or the head check.
            if frame is not None:
                position.floor = batch.floor
                socket.send(frame)
                if self._backlog.only(batch.channel):
                    recent = self._backlog.pace.recent
                    self._crowd = self._subscriptions.gather(self, batch.channel, recent)
        elif verdict is Verdict.CATCH_UP:
            self._backlog.add(batch.channel)
            self._backlog.go_on()

    def marks(self) -> Marks:
        """Where it is now."""
        places = {
            channel: Place(position, position.position, position.target)
            for channel, position in self.positions.items()
        }
        return Marks(self.epoch, places)

    def head(self, now: Heads, marks: Marks) -> None:
        """Compare with the heads of the log: the last push may have been lost.

        Args:
            now: The heads.
            marks: Where the connection was before they were read: it may be further by now.
        """
        if marks.epoch != self.epoch:
            return  # The answer is about another log than the one that is followed by now.
        if now.epoch != self.epoch:
            self.reset(now.epoch)
            return
        # Unsubscribed, begun again, come or gone meanwhile is for the next time.
        off = [
            (channel, place)
            for channel, place in marks.places.items()
            if self.positions.get(channel) is place.position
            and place.is_off(now.heads[channel], now.floors[channel])
        ]
        if off:
            self.go_alone()
        positions = self.positions.copy()
        for channel, place in off:
            position, head = self.positions[channel], now.heads[channel]
            if position is not positions[channel]:
                pass  # Its feed was begun again just now.
            elif place.is_ahead(head):
                self._restart(channel, "position_ahead")
            elif position.behind(head):
                self._backlog.add(channel)
            elif not position.catching_up and now.floors[channel] > position.floor:
                position.begin()  # Nothing new, but something is gone: the page says so.
                self._backlog.add(channel)
        self._backlog.go_on()

    def take(self, turn: Turn) -> None:
        """Take the pages of a turn that is over."""
        self.go_alone()
        self._backlog.over()
        for piece in turn.pieces.values():
            if turn.is_wanted(piece.page.channel):
                self._compare(piece)
        came = [piece for channel, piece in turn.pieces.items() if turn.is_wanted(channel)]
        self._send_pages([piece for piece in came if self._is_news(piece)])
        for piece in came:
            self._move(piece)
        for channel in turn.asked.keys() - turn.pieces.keys():
            if turn.is_wanted(channel):
                self._backlog.add_later(channel)
        self._backlog.go_on()

    def _compare(self, piece: Piece) -> None:
        """Begin again where a page is of another log than the position that it was asked for."""
        page = piece.page
        if page.epoch != self.epoch:
            self.reset(page.epoch)
        elif piece.after > page.head:
            self._restart(page.channel, "position_ahead")

    def _is_news(self, piece: Piece) -> bool:
        page = piece.page
        gone = page.floor > self.positions[page.channel].floor
        return bool(page.updates) or page.end > piece.after or gone

    def _send_pages(self, pieces: list[Piece]) -> None:
        if pieces:
            for piece in pieces:
                self.positions[piece.page.channel].floor = piece.page.floor
            self._backlog.sent()
            self.socket.send(pages_frame(pieces, self.types))

    def _move(self, piece: Piece) -> None:
        page = piece.page
        if self.positions[page.channel].page(page.end, more=page.more):
            self._announce(feed_of(page.channel))
        elif page.end > piece.after:
            self._backlog.add(page.channel)
        else:
            # The log is not yet where a push said that it is: asking at once would spin.
            self._backlog.add_later(page.channel)

    def go_on(self) -> None:
        """Ask for what it is behind in, as far as room and budget allow."""
        self._backlog.go_on()

    def room_changed(self) -> None:
        """The socket has room again: go on with what waited for it; or it has none."""
        if self.socket.has_room:
            self._backlog.go_on()
        else:
            self.go_alone()

    def go_alone(self) -> None:
        """Leave the crowd, if it is in one: where that is, and what it was sent, is its own now."""
        crowd = self._crowd
        if crowd is not None:
            self._crowd = None
            self._subscriptions.part(self, crowd)
            self.positions[crowd.channel] = crowd.position.copy()
            self._backlog.alone(crowd.recent.copy())

    def reset(self, epoch: str) -> None:
        """The log is another one: have the client drop its state, and start again from 0."""
        self.go_alone()
        self.epoch = epoch
        if self._feeds:
            self._send(self._reset_frame(self.feeds, "epoch_changed"))
        for feed, followed in self._feeds.items():
            followed.announced = False
            for channel in channels_of(self.principal.user_id, feed):
                self._begin(channel, 0)
        self._backlog.go_on()

    def error(self, code: str, message: str) -> None:
        """Tell the client what is wrong."""
        self._send(protocol.error(code, message, retryable=code in protocol.RETRYABLE))

    def leave(self) -> None:
        """The client is gone."""
        self.unsubscribe(self.feeds)
        self._backlog.leave()

    def _follow(self, feed: str, positions: Mapping[str, int]) -> None:
        self._feeds[feed] = Followed()
        self._subscriptions.follow(self, feed)
        for channel in channels_of(self.principal.user_id, feed):
            self._begin(channel, positions.get(channel, 0))

    def _begin(self, channel: str, start: int) -> None:
        position = Position(start)
        position.begin()
        self.positions[channel] = position
        self._backlog.add(channel)

    def _restart(self, channel: str, reason: str) -> None:
        """A position that the log cannot have: drop the feed's state and start again."""
        feed = feed_of(channel)
        self._feeds[feed].announced = False
        self._send(self._reset_frame([feed], reason))
        for name in channels_of(self.principal.user_id, feed):
            self._begin(name, 0)

    def _announce(self, feed: str) -> None:
        followed = self._feeds[feed]
        channels = channels_of(self.principal.user_id, feed)
        if not followed.announced and not any(
            self.positions[name].catching_up for name in channels
        ):
            followed.announced = True
            self._send(protocol.caught_up([feed]))

    def _fault_of(self, feed: str, refused: Mapping[str, str]) -> str | None:
        """Why a feed may not be followed, or None."""
        if not is_feed(feed):
            return "feed_invalid"
        if not self.principal.may_follow(feed):
            return "feed_forbidden"
        if len(self._feeds) >= CONNECTION_FEEDS_MAX and feed not in self._feeds:
            return "too_many_feeds"
        return refused.get(feed)

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
        self.socket.send(Frame(frame))
