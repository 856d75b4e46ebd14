"""The tables of the keyed log, for migrations and for `alembic check`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
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
