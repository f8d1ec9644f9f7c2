"""The database: how to connect to it, make its tables, and tell its faults apart."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.errors import LedgerUnavailable, SettingsError
from shared.settings import LedgerSettings

_TRANSIENT_SQLSTATES: Final = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available: the same transaction may succeed when repeated."""

_DRIVERS: Final = ("postgresql+asyncpg", "sqlite+aiosqlite")

_READ_ONLY: Final = "credits_read_only"

_MIGRATION_LOCK: Final = 4_707_713_206_834_229_325
"""PostgreSQL's advisory lock under which tables are migrated: any number that nobody else uses."""


def create_engine(settings: LedgerSettings, *, patient: bool = False) -> AsyncEngine:
    """Return an engine for `[ledger]`. Connects to nothing yet. Raises SettingsError for a bad URL.

    A patient one has no time limit on statements: for migrations and audits, which nobody's window bounds.
    """
    try:
        url = make_url(settings.database_url)
        if url.drivername not in _DRIVERS:
            raise SettingsError(f"[ledger] database_url: must start with {' or '.join(_DRIVERS)}")
        if url.drivername == "sqlite+aiosqlite":
            return _sqlite_engine(settings)
        return create_async_engine(
            url,
            hide_parameters=True,
            # An audit writes down what it reads: with two connections.
            pool_size=max(settings.pool_connections_max, 2 if patient else 1),
            max_overflow=0,
            pool_timeout=settings.statement_seconds_max,
            connect_args={
                "timeout": settings.statement_seconds_max,
                "command_timeout": None if patient else settings.statement_seconds_max,
                "server_settings": {"application_name": "credits", "jit": "off"},
            },
        )
    except (ArgumentError, NoSuchModuleError) as error:
        raise SettingsError(f"[ledger] database_url: {error}") from None
    except ValueError:  # its message would quote a part of the URL, which may be of the password
        raise SettingsError("[ledger] database_url: is no URL; is the port a number?") from None


def _sqlite_engine(settings: LedgerSettings) -> AsyncEngine:
    if path := make_url(settings.database_url).database:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            # Tried here, because a thread of the driver outlives a failed connection, and prints a trace.
            sqlite3.connect(path).close()
        except (OSError, sqlite3.Error) as error:
            raise SettingsError(f"[ledger] database_url: {path}: {error}") from None
    engine = create_async_engine(
        settings.database_url,
        hide_parameters=True,
        connect_args={"timeout": settings.statement_seconds_max},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def durable(connection: Any, _record: object) -> None:
        connection.isolation_level = (
            None  # transactions begin where `begin` below says, not where the driver guesses
        )
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        # SQLite's lock is the whole file: taking it first means that what a transaction reads stays true.
        # Who only reads takes none, and sees the file as it was at the first statement.
        read_only = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def utc(moment: datetime) -> datetime:
    """Return a stored moment with its time zone: SQLite, which is given UTC, keeps none."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def is_transient(error: DBAPIError) -> bool:
    """Tell whether the same transaction, repeated at once, may succeed."""
    return getattr(error.orig, "sqlstate", None) in _TRANSIENT_SQLSTATES


def is_outage(error: Exception) -> bool:
    """Tell whether the database, and not the statement, is at fault."""
    if isinstance(error, DBAPIError):
        sqlstate = getattr(error.orig, "sqlstate", None) or ""
        lost = error.connection_invalidated or isinstance(error, (InterfaceError, OperationalError))
        # 08 connection, 28 login, 3D no such database, 53 resources (too many connections, disk full),
        # 57 shutdown, 58 system error
        return lost or sqlstate[:2] in {"08", "28", "3D", "53", "57", "58"}
    return isinstance(error, (OSError, TimeoutError, PoolTimeout))


@contextmanager
def outages_as_unavailable() -> Iterator[None]:
    """Raise LedgerUnavailable for an outage of the database; leave other exceptions as they are."""
    try:
        yield
    except Exception as error:
        if is_outage(error):
            reason = error.orig if isinstance(error, DBAPIError) and error.orig else error
            first_line = next(iter(str(reason).splitlines()), "")
            raise LedgerUnavailable(f"the database: {first_line or type(reason).__name__}") from error
        raise


@asynccontextmanager
async def snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Read one state of the books, whatever is posted meanwhile, and without holding that up."""
    async with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        else:
            await connection.execution_options(**{_READ_ONLY: True})
        yield connection


async def migrate(engine: AsyncEngine) -> tuple[str | None, str]:
    """Bring the tables to this version, keeping what is in them. Returns the revisions before and after.

    Several may call it at once: one does it and the others wait. Raises LedgerUnavailable, or SettingsError
    when the tables are a later version's.
    """
    with outages_as_unavailable():
        async with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            before = await connection.run_sync(_revision)
            if before is not None and before not in _known_revisions():
                raise SettingsError(f"the database's tables are of a later version: revision {before}")
            await connection.run_sync(_upgrade)
    return before, head_revision()


async def require_migrated(engine: AsyncEngine) -> None:
    """Raise SettingsError unless the tables are this version's. Raises LedgerUnavailable."""
    if await pending_migration(engine):
        raise SettingsError("the database's tables are not this version's: run `python -m worker migrate`")


async def pending_migration(engine: AsyncEngine) -> bool:
    """Tell whether the tables still have to be brought to this version. Raises LedgerUnavailable."""
    with outages_as_unavailable():
        async with engine.connect() as connection:
            return await connection.run_sync(_revision) != head_revision()


def head_revision() -> str:
    """Return the revision that this version of the code works with."""
    return str(ScriptDirectory.from_config(_alembic_config()).get_current_head())


def _known_revisions() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(_alembic_config()).walk_revisions()}


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection) -> None:
    config = _alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
