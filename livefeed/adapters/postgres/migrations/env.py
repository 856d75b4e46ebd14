"""Alembic's entry: `livefeed.adapters.postgres.schema` runs it with a connection."""

from __future__ import annotations

from alembic import context

from livefeed.adapters.postgres.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
