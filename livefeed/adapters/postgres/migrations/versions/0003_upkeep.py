"""What upkeep needs: an index of ended follows, and how Postgres stores and vacuums the log.

Storage as a week of traffic showed it (`bench week`, docs/operations/database.md):

- `feed_channel` leaves half of each page free: 99.98 % of its updates are HOT instead of 93 %. Its
  table is a quarter larger for it, and small anyway.
- `feed_entry` and `feed_body` are vacuumed at 2 % of dead rows instead of 20 %: 5 % less room and
  WAL in a small log, and in a large one no vacuum has a fifth of the table before it.
- No fill factor for `feed_entry`: its updates move seq, which is indexed, so none is ever HOT, and
  room that is left free is lost (its table is 15 % larger with 85).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Index the follows that ended, and set how tables are stored and vacuumed."""
    op.create_index(
        "feed_follow_ended",
        "feed_follow",
        ["ended"],
        postgresql_where=sa.text("ended is not null"),
    )
    op.execute(
        "alter table feed_channel set (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05)"
    )
    for table in ("feed_entry", "feed_body"):
        op.execute(
            f"alter table {table} set (autovacuum_vacuum_scale_factor = 0.02,"
            " autovacuum_vacuum_insert_scale_factor = 0.1)"
        )
