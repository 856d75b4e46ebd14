"""Alembic's scripts: expand and contract only."""
