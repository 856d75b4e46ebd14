"""Which tokens are revoked, until when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; a row is for a user or a token, and there are few."""
    op.create_table(
        "feed_revocation",
        sa.Column("kind", sa.Text(), nullable=False, comment="user or token"),
        sa.Column("name", sa.Text(), nullable=False, comment="the user's id, or the token's jti"),
        sa.Column(
            "revoked_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.now(),
        ),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False, comment="then it is over"),
        sa.PrimaryKeyConstraint("kind", "name"),
        sa.CheckConstraint("kind in ('user', 'token')", name="feed_revocation_kind"),
    )
