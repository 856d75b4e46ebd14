"""Follow the feeds of a livefeed server."""

from livefeed_client.connection import LiveFeed, LiveFeedClosed, Timing
from livefeed_client.snapshot import Snapshot, SnapshotRefused, fetch_snapshot
from livefeed_client.state import Change, Cursor, FeedState, Item, Remove, Upsert

__all__ = [
    "Change",
    "Cursor",
    "FeedState",
    "Item",
    "LiveFeed",
    "LiveFeedClosed",
    "Remove",
    "Snapshot",
    "SnapshotRefused",
    "Timing",
    "Upsert",
    "fetch_snapshot",
]
