"""What upkeep needs: ended follows are found without a look at all others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Index the follows that ended."""
    op.create_index(
        "feed_follow_ended",
        "feed_follow",
        ["ended"],
        postgresql_where=sa.text("ended is not null"),
    )
