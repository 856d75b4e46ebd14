"""Bring a database's schema to this version, and tell whether it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from livefeed.adapters.postgres.sessions import with_driver
from livefeed.adapters.postgres.tables import metadata
from livefeed.errors import Unavailable

Result = TypeVar("Result")

MIGRATION_LOCK = 0x6C697665  # "live": one migration at a time in the fleet.


async def migrate(url: str) -> list[str]:
    """Apply the migrations that are missing; returns their names.

    Raises:
        Unavailable: When the database does not answer.
    """
    return await _with_connection(url, _upgrade)


async def revision(url: str) -> str | None:
    """The revision that a database has; None for an empty one."""
    return await _with_connection(
        url, lambda connection: MigrationContext.configure(connection).get_current_revision()
    )


async def drift(url: str) -> list[str]:
    """Where a migrated database differs from the tables in the code; for tests."""

    def compare(connection: Connection) -> list[str]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return [str(difference) for difference in compare_metadata(context, metadata)]

    return await _with_connection(url, compare)


def latest_revision() -> str:
    """The revision that this version wants."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None  # there is a first migration
    return head


async def _with_connection(url: str, work: Callable[[Connection], Result]) -> Result:
    engine = _engine(url)
    try:
        async with asyncio.timeout(60), engine.connect() as connection:
            result = await connection.run_sync(work)
            await connection.commit()
            return result
    except (OSError, TimeoutError, DBAPIError) as error:
        raise Unavailable("primary", f"{type(error).__name__}: {error}") from error
    finally:
        await engine.dispose()


def _engine(url: str) -> AsyncEngine:
    return create_async_engine(with_driver(url), poolclass=NullPool, connect_args={"timeout": 5})


def _upgrade(connection: Connection) -> list[str]:
    # DDL waits at most this long for running statements, instead of blocking all that come after.
    connection.execute(text("set lock_timeout = '5s'"))
    connection.execute(text("select pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
    try:
        before = MigrationContext.configure(connection).get_current_revision()
        connection.commit()
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
        script = ScriptDirectory.from_config(config)
        applied = script.iterate_revisions("head", before) if before != "head" else []
        return [entry.revision for entry in applied][::-1]
    finally:
        connection.execute(text("select pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
        connection.commit()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
