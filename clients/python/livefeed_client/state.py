"""What a client holds of its feeds: frames are folded into items.

Pure. An item stands under (channel, content id) and has two facets, content and engagement, that
change independently. In each facet the entry with the highest seq is the truth, so a frame that
comes twice, or again after a reconnect, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

CONTENT: Final = 0
ENGAGEMENT: Final = 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a client is: the log's epoch, and the position in each channel."""

    epoch: str
    positions: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        positions = ",".join(f"{name}={seq}" for name, seq in sorted(self.positions.items()))
        return f"{self.epoch}:{positions}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read `str(cursor)`, which is also how the server writes one over HTTP.

        Raises:
            ValueError: When the text is no cursor.
        """
        epoch, colon, rest = text.partition(":")
        if not colon:
            raise ValueError("expected <epoch>:<channel>=<position>,…")
        pairs = (part.partition("=") for part in rest.split(",") if part)
        return cls(epoch, {name: int(digits) for name, _, digits in pairs})

    def of(self, feeds: Iterable[str]) -> Cursor:
        """The same, of these feeds only."""
        wanted = set(feeds)
        return Cursor(
            self.epoch,
            {name: seq for name, seq in self.positions.items() if feed_of(name) in wanted},
        )

    def to_frame(self) -> dict[str, Any]:
        """The cursor as a field of a frame."""
        return {"epoch": self.epoch, "positions": dict(self.positions)}


@dataclass(frozen=True, slots=True)
class Item:
    """One item as it is shown; all but `engagement` is of its newest content."""

    channel: str
    """`me/<feed>` or `all/<feed>`; the same id in both is two items."""
    id: str
    rank: float
    seq: int
    content: Mapping[str, Any]
    engagement: Mapping[str, Any] | None
    update_id: str
    timestamp: str
    version: int | None

    @property
    def place(self) -> tuple[float, str, str]:
        """The sort key of the feed's order: highest rank first, then the id."""
        return -self.rank, self.id, self.channel


@dataclass(frozen=True, slots=True)
class Upsert:
    """An item is new, or looks different now."""

    item: Item


@dataclass(frozen=True, slots=True)
class Remove:
    """An item is shown no more."""

    channel: str
    id: str


Change = Upsert | Remove


def feed_of(channel: str) -> str:
    """The feed of a channel."""
    return channel.partition("/")[2]


class FeedState:
    """The items and positions of all feeds of one connection after another.

    The server's floors bound it: what falls below the floor of its channel is dropped here too.
    """

    def __init__(self, cursor: Cursor | None = None) -> None:
        self._epoch = cursor.epoch if cursor else ""
        positions = cursor.positions if cursor else {}
        self._channels = {name: _Channel(name, seq) for name, seq in positions.items()}
        self._dropped: set[str] = set()

    @property
    def cursor(self) -> Cursor:
        """What to send to continue from here."""
        positions = {name: channel.position for name, channel in self._channels.items()}
        return Cursor(self._epoch, {name: seq for name, seq in positions.items() if seq})

    def items(self, feed: str) -> list[Item]:
        """The feed's visible items in feed order."""
        channels = (self._channels.get(f"{scope}/{feed}") for scope in ("me", "all"))
        shown = (item for channel in channels if channel for item in channel.visible())
        return sorted(shown, key=lambda item: item.place)

    def apply(self, frame: Mapping[str, Any]) -> list[Change]:
        """Fold one frame; frames that say nothing about items change nothing.

        Raises:
            KeyError: When the frame lacks a field that its type has.
        """
        before = _Before()
        match frame.get("type"):
            case "feed_updates":
                self._take_updates(frame, before)
            case "connection_established":
                # Nothing is under way any more from before.
                self._dropped.clear()
                self._take_epoch(frame["epoch"], before)
            case "reset":
                self._forget(frame["feeds"], before)
                self._take_epoch(frame["epoch"], before)
        return before.changes(self._channels)

    def drop(self, feeds: Iterable[str]) -> list[Change]:
        """Forget feeds that are followed no more, with their positions.

        Until the next `connection_established` their frames are ignored: such as were under way
        would leave a position without the items before it.
        """
        names = set(feeds)
        self._dropped |= names
        before = _Before()
        self._forget(names, before)
        return before.changes(self._channels)

    def _take_updates(self, frame: Mapping[str, Any], before: _Before) -> None:
        for name, floor in frame["floor"].items():
            if (channel := self._channel(name)) is not None:
                channel.raise_floor(floor, before)
        for update in frame["updates"]:
            if (channel := self._channel(update["channel"])) is not None:
                channel.put(update, before)
        for name, seq in frame["cursor"].items():
            if (channel := self._channel(name)) is not None:
                channel.position = max(channel.position, seq)

    def _take_epoch(self, epoch: str, before: _Before) -> None:
        # Seqs of two epochs cannot be compared, so nothing of another one may stay.
        if self._epoch and epoch != self._epoch:
            self._forget({feed_of(name) for name in self._channels}, before)
        self._epoch = epoch

    def _forget(self, feeds: Iterable[str], before: _Before) -> None:
        names = set(feeds)
        for name in [name for name in self._channels if feed_of(name) in names]:
            for item in self._channels.pop(name).visible():
                before.note(name, item.id, item)

    def _channel(self, name: str) -> _Channel | None:
        channel = self._channels.get(name)
        if channel is None and feed_of(name) not in self._dropped:
            channel = self._channels[name] = _Channel(name)
        return channel


@dataclass(frozen=True, slots=True)
class _Entry:
    """The newest update of one facet of one item."""

    seq: int
    rank: float
    removed: bool
    content: Mapping[str, Any]
    update_id: str
    timestamp: str
    version: int | None


class _Channel:
    """The entries of one channel above its floor."""

    __slots__ = ("facets", "floor", "name", "position")

    def __init__(self, name: str, position: int = 0) -> None:
        self.name = name
        self.position = position
        self.floor = 0
        self.facets: tuple[dict[str, _Entry], dict[str, _Entry]] = ({}, {})

    def raise_floor(self, floor: int, before: _Before) -> None:
        """Drop everything at or below the floor, tombstones too."""
        if floor <= self.floor:
            return
        self.floor = floor
        for facet in self.facets:
            for item_id in [key for key, entry in facet.items() if 0 < entry.seq <= floor]:
                before.note(self.name, item_id, self.item(item_id))
                del facet[item_id]

    def put(self, update: Mapping[str, Any], before: _Before) -> None:
        """Keep an update if it is newer than what is held and above the floor."""
        seq, item_id = update["seq"], update["content"]["id"]
        kind = update["updateType"]
        facet = self.facets[ENGAGEMENT if kind == "engagement_update" else CONTENT]
        held = facet.get(item_id)
        # 0 is of a feed source, not of the log: no floor is about it.
        if 0 < seq <= self.floor or (held is not None and seq <= held.seq):
            return
        before.note(self.name, item_id, self.item(item_id))
        removed = kind == "content_removal"
        facet[item_id] = _Entry(
            seq=seq,
            # Without content there is none.
            rank=update["rank"] or 0.0,
            removed=removed,
            content={} if removed else update["content"],
            update_id=update["updateId"],
            timestamp=update["timestamp"],
            version=update.get("version"),
        )

    def item(self, item_id: str) -> Item | None:
        """An item as it is shown, or None when its content is missing or removed."""
        entry = self.facets[CONTENT].get(item_id)
        if entry is None or entry.removed:
            return None
        engagement = self.facets[ENGAGEMENT].get(item_id)
        return Item(
            channel=self.name,
            id=item_id,
            rank=entry.rank,
            seq=entry.seq,
            content=entry.content,
            engagement=None if engagement is None else engagement.content,
            update_id=entry.update_id,
            timestamp=entry.timestamp,
            version=entry.version,
        )

    def visible(self) -> list[Item]:
        """Every item that is shown, in no order."""
        items = map(self.item, self.facets[CONTENT])
        return [item for item in items if item is not None]


class _Before:
    """How the items that a frame touches looked before it."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, str], Item | None] = {}

    def note(self, channel: str, item_id: str, item: Item | None) -> None:
        """Remember an item, unless it was touched already."""
        self._items.setdefault((channel, item_id), item)

    def changes(self, channels: Mapping[str, _Channel]) -> list[Change]:
        """What looks different now, in the order of the frame."""
        found: list[Change] = []
        for (name, item_id), old in self._items.items():
            channel = channels.get(name)
            new = None if channel is None else channel.item(item_id)
            if new is None and old is not None:
                found.append(Remove(name, item_id))
            elif new is not None and new != old:
                found.append(Upsert(new))
        return found
