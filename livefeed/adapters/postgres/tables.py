"""The tables of the keyed log, for migrations and for `alembic check`."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    func,
    text,
)

metadata = MetaData()

# As `identity.is_id` has it: applications write this table themselves, and one row that no update
# can be for would refuse the whole audience.
ARE_IDS = " and ".join(
    rf"length({column}) between 1 and 128 and {column} !~ '[\u0001-\u001f\u007f-\u009f]'"
    for column in ("actor", "follower")
)

feed_epoch = Table(
    "feed_epoch",
    metadata,
    Column("id", SmallInteger, primary_key=True, comment="always 1"),
    Column("epoch", Text, nullable=False, comment="identity of this incarnation of the log"),
    Column("timeline", Integer, nullable=False, comment="the server's timeline when it was given"),
    Column("since", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

feed_channel = Table(
    "feed_channel",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True, comment="user:<id>/<feed> or topic:<feed>"),
    Column("seq", BigInteger, nullable=False, server_default=text("0"), comment="the head"),
    Column("floor", BigInteger, nullable=False, server_default=text("0")),
    Column(
        "forgotten_at",
        DateTime(timezone=True),
        comment="when the newest of what fell below the floor had been persisted",
    ),
)

feed_entry = Table(
    "feed_entry",
    metadata,
    Column("channel_id", BigInteger, ForeignKey("feed_channel.id"), nullable=False),
    Column("item", BigInteger, nullable=False, comment="64-bit hash of the content id"),
    Column("facet", SmallInteger, nullable=False, comment="0 content, 1 engagement"),
    Column("seq", BigInteger, nullable=False),
    Column("explicit", SmallInteger, nullable=False, comment="order key, first part"),
    Column("version", BigInteger, nullable=False, comment="order key, second part"),
    Column("ref", LargeBinary, nullable=False, comment="order key, third part; the body's key"),
    Column("kind", SmallInteger, nullable=False, comment="place in update.KINDS"),
    Column("rank", Double, comment="the publisher's content.rank"),
    Column(
        "born", BigInteger, nullable=False, comment="microseconds since 1970, see entry.born_of"
    ),
    PrimaryKeyConstraint("channel_id", "item", "facet"),
    Index("feed_entry_channel_id_seq", "channel_id", "seq"),
)

feed_body = Table(
    "feed_body",
    metadata,
    Column("ref", LargeBinary, primary_key=True, comment="hash of (update id, content id)"),
    Column("update_id", Text, nullable=False),
    Column("body", LargeBinary, nullable=False, comment="JSON as clients read it"),
    Column("published_at", DateTime(timezone=True), nullable=False),
    Column("accepted_at", DateTime(timezone=True), nullable=False),
    Column("persisted_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("trace", Text, comment="the publisher's traceparent"),
)

feed_follow = Table(
    "feed_follow",
    metadata,
    Column("actor", Text, nullable=False, comment="who is followed"),
    Column("follower", Text(collation="C"), nullable=False, comment="the user id of who follows"),
    Column("since", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("ended", DateTime(timezone=True), comment="removals still reach an ended follow"),
    PrimaryKeyConstraint("actor", "follower"),
    CheckConstraint(ARE_IDS, name="feed_follow_ids"),
    Index("feed_follow_ended", "ended", postgresql_where=text("ended is not null")),
)

feed_mute = Table(
    "feed_mute",
    metadata,
    Column("user_id", Text, nullable=False),
    Column("feed", Text, nullable=False),
    PrimaryKeyConstraint("user_id", "feed"),
)

# Unlogged: after a crash of the server both are empty, and every gateway reports again.
feed_gateway = Table(
    "feed_gateway",
    metadata,
    Column("gateway", Text, primary_key=True, comment="a gateway process's id"),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    prefixes=["UNLOGGED"],
)

feed_presence = Table(
    "feed_presence",
    metadata,
    Column("user_id", Text, nullable=False),
    Column("gateway", Text, nullable=False, comment="counts while feed_gateway has seen it lately"),
    Column("feeds", ARRAY(Text), nullable=False, comment="on the screen of a visible device"),
    PrimaryKeyConstraint("user_id", "gateway"),
    Index("feed_presence_gateway", "gateway"),
    prefixes=["UNLOGGED"],
)

feed_seen = Table(
    "feed_seen",
    metadata,
    Column("user_id", Text, nullable=False),
    Column("channel", Text, nullable=False, comment="its name in the log"),
    Column("device", Text, nullable=False),
    Column("epoch", Text, nullable=False, comment="the log's"),
    Column("position", BigInteger, nullable=False, comment="shown up to here"),
    Column(
        "seen_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.now(),
        comment="when the position was last raised",
    ),
    PrimaryKeyConstraint("user_id", "channel", "device"),
    Index("feed_seen_seen_at", "seen_at"),
)

# Unlogged: a cache. Its values are compressed already, and stored as they are.
feed_page = Table(
    "feed_page",
    metadata,
    Column("key", LargeBinary, primary_key=True, comment="hash of the cache's key"),
    Column("value", LargeBinary, nullable=False, comment="as cache.encode made it"),
    Column("made_at", BigInteger, nullable=False, comment="microseconds since 1970"),
    Column("ends_at", DateTime(timezone=True), nullable=False),
    Index("feed_page_ends_at", "ends_at"),
    prefixes=["UNLOGGED"],
)

feed_revocation = Table(
    "feed_revocation",
    metadata,
    Column("kind", Text, nullable=False, comment="user or token"),
    Column("name", Text, nullable=False, comment="the user's id, or the token's jti"),
    Column("revoked_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("until", DateTime(timezone=True), nullable=False, comment="then it is over"),
    PrimaryKeyConstraint("kind", "name"),
    CheckConstraint("kind in ('user', 'token')", name="feed_revocation_kind"),
)
