"""The keyed log: epoch, channels, entries, bodies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the four tables and give this log its first epoch."""
    op.create_table(
        "feed_epoch",
        sa.Column("id", sa.SmallInteger, primary_key=True, comment="always 1"),
        sa.Column(
            "epoch", sa.Text, nullable=False, comment="identity of this incarnation of the log"
        ),
        sa.Column(
            "timeline",
            sa.Integer,
            nullable=False,
            comment="the server's timeline when it was given",
        ),
        sa.Column(
            "since", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
        ),
    )
    op.create_table(
        "feed_channel",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column(
            "name", sa.Text, nullable=False, unique=True, comment="user:<id>/<feed> or topic:<feed>"
        ),
        sa.Column(
            "seq", sa.BigInteger, nullable=False, server_default=sa.text("0"), comment="the head"
        ),
        sa.Column("floor", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    )
    _create_entries()
    op.create_table(
        "feed_body",
        sa.Column(
            "ref", sa.LargeBinary, primary_key=True, comment="hash of (update id, content id)"
        ),
        sa.Column("update_id", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False, comment="JSON as clients read it"),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "persisted_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
        ),
        sa.Column("trace", sa.Text, comment="the publisher's traceparent"),
    )
    op.execute(
        "insert into feed_epoch (id, epoch, timeline) values (1, "
        "replace(gen_random_uuid()::text, '-', ''), "
        "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int)"
    )


def _create_entries() -> None:
    op.create_table(
        "feed_entry",
        sa.Column("channel_id", sa.BigInteger, sa.ForeignKey("feed_channel.id"), nullable=False),
        sa.Column("item", sa.BigInteger, nullable=False, comment="64-bit hash of the content id"),
        sa.Column("facet", sa.SmallInteger, nullable=False, comment="0 content, 1 engagement"),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("explicit", sa.SmallInteger, nullable=False, comment="order key, first part"),
        sa.Column("version", sa.BigInteger, nullable=False, comment="order key, second part"),
        sa.Column(
            "ref", sa.LargeBinary, nullable=False, comment="order key, third part; the body's key"
        ),
        sa.Column("kind", sa.SmallInteger, nullable=False, comment="place in update.KINDS"),
        sa.Column("rank", sa.Double, comment="the publisher's content.rank"),
        sa.Column(
            "born",
            sa.BigInteger,
            nullable=False,
            comment="microseconds since 1970, see entry.born_of",
        ),
        sa.PrimaryKeyConstraint("channel_id", "item", "facet"),
    )
    op.create_index("feed_entry_channel_id_seq", "feed_entry", ["channel_id", "seq"])
