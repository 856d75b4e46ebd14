"""Pages of a feed source, kept for those gateways that do not have them.

- Unlogged: after a crash of the server it is empty, and a cache may be. Pages are large; in the
  write-ahead log they would go to every replica and into every backup.
- A value is compressed already: `external` keeps it as it is, outside of the row.
- No fill factor: an update moves `ends_at`, which is indexed, so none is HOT.
- All of it is new within hours, so it is vacuumed at 5 % of dead rows, its values too.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "feed_page",
        sa.Column("key", sa.LargeBinary, primary_key=True, comment="hash of the cache's key"),
        sa.Column("value", sa.LargeBinary, nullable=False, comment="as cache.encode made it"),
        sa.Column("made_at", sa.BigInteger, nullable=False, comment="microseconds since 1970"),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        prefixes=["UNLOGGED"],
    )
    op.create_index("feed_page_ends_at", "feed_page", ["ends_at"])
    op.execute("alter table feed_page alter column value set storage external")
    op.execute(
        "alter table feed_page set (autovacuum_vacuum_scale_factor = 0.05,"
        " toast.autovacuum_vacuum_scale_factor = 0.05)"
    )
