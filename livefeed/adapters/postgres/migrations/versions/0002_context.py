"""What prioritize asks about recipients: follows, mutes, presence; and what a channel forgot."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the four tables, and the column for the age of what fell below a floor."""
    op.add_column(
        "feed_channel",
        sa.Column(
            "forgotten_at",
            sa.DateTime(timezone=True),
            comment="when the newest of what fell below the floor had been persisted",
        ),
    )
    op.create_table(
        "feed_follow",
        sa.Column("actor", sa.Text, nullable=False, comment="who is followed"),
        sa.Column(
            "follower",
            sa.Text(collation="C"),
            nullable=False,
            comment="the user id of who follows",
        ),
        sa.Column(
            "since", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
        ),
        sa.Column(
            "ended", sa.DateTime(timezone=True), comment="removals still reach an ended follow"
        ),
        sa.PrimaryKeyConstraint("actor", "follower"),
        # As `identity.is_id` has it: applications write this table themselves.
        sa.CheckConstraint(
            r"length(actor) between 1 and 128 and actor !~ '[\u0001-\u001f\u007f-\u009f]'"
            r" and length(follower) between 1 and 128"
            r" and follower !~ '[\u0001-\u001f\u007f-\u009f]'",
            name="feed_follow_ids",
        ),
    )
    op.create_table(
        "feed_mute",
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("feed", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "feed"),
    )
    _create_presence()


def _create_presence() -> None:
    op.create_table(
        "feed_gateway",
        sa.Column("gateway", sa.Text, primary_key=True, comment="a gateway process's id"),
        sa.Column(
            "seen_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
        ),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "feed_presence",
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column(
            "gateway",
            sa.Text,
            nullable=False,
            comment="counts while feed_gateway has seen it lately",
        ),
        sa.Column(
            "feeds",
            sa.ARRAY(sa.Text),
            nullable=False,
            comment="on the screen of a visible device",
        ),
        sa.PrimaryKeyConstraint("user_id", "gateway"),
        prefixes=["UNLOGGED"],
    )
    op.create_index("feed_presence_gateway", "feed_presence", ["gateway"])
