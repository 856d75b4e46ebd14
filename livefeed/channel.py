"""Channels: the names of keyed logs, in the log and as a client sees them.

Pure. In the log: `user:<id>/<feed>` or `topic:<feed>`. To a client, who is one user, the same two
are `me/<feed>` and `all/<feed>`: a client's name can never point at somebody else's channel.
"""

from __future__ import annotations

from livefeed.identity import is_feed


def user_channel(user_id: str, feed: str) -> str:
    """The log of one user's own entries in a feed."""
    return f"user:{user_id}/{feed}"


def topic_channel(feed: str) -> str:
    """The log of the entries for everyone on a feed."""
    return f"topic:{feed}"


def owner_of(channel: str) -> str:
    """What decides a channel's partition: `user:<id>` or `topic:<feed>`."""
    # A user id may contain "/", a feed may not.
    return channel.rpartition("/")[0] if channel.startswith("user:") else channel


def feed_of(channel: str) -> str:
    """The feed of a channel."""
    return channel.rpartition("/")[2] if channel.startswith("user:") else channel[len("topic:") :]


def client_name(channel: str) -> str:
    """What a channel is called in frames and cursors."""
    if channel.startswith("user:"):
        return "me/" + channel.rpartition("/")[2]
    return "all/" + channel[len("topic:") :]


def feed_of_client_name(name: str) -> str:
    """The feed of a channel as a client names it."""
    return name.partition("/")[2]


def from_client_name(name: str, user_id: str) -> str | None:
    """The channel that a client's name means for a user, or None if it is not a name."""
    scope, slash, feed = name.partition("/")
    if not slash or not is_feed(feed):
        return None
    if scope == "me":
        return user_channel(user_id, feed)
    return topic_channel(feed) if scope == "all" else None


def channels_of(user_id: str, feed: str) -> tuple[str, str]:
    """The two channels that make up a user's view of a feed."""
    return user_channel(user_id, feed), topic_channel(feed)
