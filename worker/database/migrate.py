"""Brings the tables to this version, and tells whether they are."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import SettingsError
from worker.database.audit_log import LEDGER, PROCESS, Action, Actor, record
from worker.database.engine import read_only
from worker.database.faults import outages_as_unavailable
from worker.database.migration_lock import (
    WAIT_SECONDS,
    Tell,
    lock_timeouts_as_unavailable,
    log_wait,
    take_migration_lock,
)
from worker.database.pooler import refusal_as_settings_error, require_pooler_as_set
from worker.database.replication import commit
from worker.database.schema import REVISION


async def migrate(
    engine: AsyncEngine, *, by: Actor = PROCESS, wait_seconds: int = WAIT_SECONDS, tell: Tell = log_wait
) -> tuple[str | None, str]:
    """Bring the tables to this version, keeping what is in them. Returns the revisions before and after.

    Several may call it at once: one does it and the others wait, for so long. Raises LedgerUnavailable, or
    SettingsError when the tables are a later version's.
    """
    with refusal_as_settings_error(), outages_as_unavailable():
        async with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                await take_migration_lock(connection, wait_seconds, tell)
            with lock_timeouts_as_unavailable("somebody holds a lock on our tables", wait_seconds):
                before = await connection.run_sync(_revision)
                await connection.run_sync(_upgrade, before)
                if before != head_revision():
                    revisions = {"from": before, "to": head_revision()}
                    await record(connection, by, Action.MIGRATE, LEDGER, "migrated", revisions)
            await commit(connection)
    return before, head_revision()


async def require_migrated(engine: AsyncEngine) -> None:
    """Raise SettingsError unless tables and pooler are as they must be. Raises LedgerUnavailable."""
    with refusal_as_settings_error(), outages_as_unavailable():
        await require_pooler_as_set(engine)
    if await pending_migration(engine):
        raise SettingsError("the database's tables are not this version's: run `python -m worker migrate`")


async def pending_migration(engine: AsyncEngine) -> bool:
    """Tell whether the tables still have to be brought to this version. Raises LedgerUnavailable."""
    with outages_as_unavailable():
        async with read_only(engine).connect() as connection:
            return await connection.run_sync(_revision) != head_revision()


def head_revision() -> str:
    """Return the revision that this version of the code works with."""
    return REVISION


def _revision(connection: Connection) -> str | None:
    """Read it without Alembic: to import that takes longer than most commands take to answer."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection, before: str | None) -> None:
    from alembic import command  # noqa: PLC0415  (see `_revision`)
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    migrations = str(Path(__file__).parent / "migrations").replace("%", "%%")  # which begins a reference
    config.set_main_option("script_location", migrations)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if before is not None and before not in known:
        raise SettingsError(f"the database's tables are of a later version: revision {before}")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
