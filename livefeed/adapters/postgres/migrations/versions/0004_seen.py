"""How far each device of a user has shown each channel: `seen` markers, for the unread count."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "feed_seen",
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("channel", sa.Text, nullable=False, comment="its name in the log"),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("epoch", sa.Text, nullable=False, comment="the log's"),
        sa.Column("position", sa.BigInteger, nullable=False, comment="shown up to here"),
        sa.Column(
            "seen_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.now(),
            comment="when the position was last raised",
        ),
        sa.PrimaryKeyConstraint("user_id", "channel", "device"),
    )
    op.create_index("feed_seen_seen_at", "feed_seen", ["seen_at"])
