"""Postgres: the keyed log. Nothing else imports asyncpg, SQLAlchemy or Alembic.

The statements that run all day are SQL text on asyncpg; SQLAlchemy and Alembic own the schema
(decision 0003).
"""
