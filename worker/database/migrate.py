"""Migrates the tables to this version of the code, and checks whether they are."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import SettingsError
from worker.database.audit_log import LEDGER, PROCESS, Action, Actor, record
from worker.database.engine import read_only
from worker.database.faults import outages_as_unavailable
from worker.database.migration_lock import (
    WAIT_SECONDS,
    Notify,
    acquire_migration_lock,
    lock_timeouts_as_unavailable,
    log_wait,
)
from worker.database.pooler import refusal_as_settings_error, require_pooler_as_set
from worker.database.replication import commit
from worker.database.schema import REVISION


async def migrate(
    engine: AsyncEngine, *, by: Actor = PROCESS, wait_seconds: int = WAIT_SECONDS, notify: Notify = log_wait
) -> tuple[str | None, str]:
    """Migrate the tables, keeping their rows. Returns the revisions before and after.

    Of several concurrent callers one migrates, and the others wait for it, up to `wait_seconds`. Raises
    LedgerUnavailable, or SettingsError if the tables are of a later version.
    """
    with refusal_as_settings_error(), outages_as_unavailable():
        async with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                await acquire_migration_lock(connection, wait_seconds, notify)
            with lock_timeouts_as_unavailable("somebody holds a lock on our tables", wait_seconds):
                before = await connection.run_sync(_revision)
                await connection.run_sync(_upgrade, before)
                if before != head_revision():
                    revisions = {"from": before, "to": head_revision()}
                    await record(connection, by, Action.MIGRATE, LEDGER, "migrated", revisions)
            await commit(connection)
    return before, head_revision()


async def require_migrated(engine: AsyncEngine) -> None:
    """Raise SettingsError if the tables are not migrated, or the pooler is not the one that `[ledger] pooler` names.

    Raises LedgerUnavailable.
    """
    with refusal_as_settings_error(), outages_as_unavailable():
        await require_pooler_as_set(engine)
    if await pending_migration(engine):
        raise SettingsError("the database's tables are not this version's: run `python -m worker migrate`")


async def pending_migration(engine: AsyncEngine) -> bool:
    """Return whether the tables still have to be migrated. Raises LedgerUnavailable."""
    with outages_as_unavailable():
        async with read_only(engine).connect() as connection:
            return await connection.run_sync(_revision) != head_revision()


def head_revision() -> str:
    """Return the revision of the tables that this version of the code needs."""
    return REVISION


def _revision(connection: Connection) -> str | None:
    """Read the revision without Alembic, whose import takes longer than most commands."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection, before: str | None) -> None:
    from alembic import command  # noqa: PLC0415  (see `_revision`)
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    migrations = str(Path(__file__).parent / "migrations").replace("%", "%%")  # a single % begins a reference
    config.set_main_option("script_location", migrations)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if before is not None and before not in known:
        raise SettingsError(f"the database's tables are of a later version: revision {before}")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
