"""The database: how to connect to it, make its tables, and tell its faults apart."""

import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shared.errors import LedgerRefused, LedgerUnavailable, SettingsError
from shared.settings import LedgerSettings
from worker.database.audit_log import LEDGER, PROCESS, Action, Actor, record
from worker.database.connecting import connect
from worker.database.migration_lock import (
    WAIT_SECONDS,
    Tell,
    lock_timeouts_as_unavailable,
    log_wait,
    take_migration_lock,
)
from worker.database.pooler import (
    connect_arguments,
    is_pooled_by_transaction,
    refusal_as_settings_error,
    require_pooler_as_set,
    with_settings,
)
from worker.database.replication import commit, heed_warnings
from worker.database.schema import REVISION
from worker.database.url import SQLITE, read_postgres, read_url

_TRANSIENT_SQLSTATES: Final = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available: the same transaction may succeed when repeated."""

_OUTAGE_CLASSES: Final = frozenset({"08", "28", "3D", "53", "57", "58"})
"""Connection, login, no such database, resources (connections, disk), shutdown or time limit, system."""

_LOGIN_CLASS: Final = "28"

_OUTAGE_SQLSTATES: Final = frozenset({"25006", "25P03", "42501", "42P01", "42703", "XX001", "XX002"})
"""A standby, which only reads; a process that was stopped within its transaction; grants, tables or columns
that a restore has yet to bring back, because our statements never change; data or an index that is damaged,
which a person must mend before anything can be paid."""

_OUTAGE_SQLITE_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)
"""A damaged file is an outage here too. A missing table is not: SQLite has one code for all wrong statements,
those among them that only a batch of this size makes wrong."""

_REFUSAL_SQLSTATES: Final = frozenset({"42501", "3D000"})
"""We may not do what we ask; there is no database of that name."""

_PROTOCOL_SQLSTATE: Final = "08P01"
_REFUSAL_OF_POOLER: Final = "SASL authentication failed"
"""PgBouncer says so of a wrong password, with a code that says something else."""
_NO_TEXT_SQLSTATE: Final = "22021"
"""A character that is none to PostgreSQL: NUL."""

_READ_ONLY: Final = "credits_read_only"

_SETTINGS: Final = {"jit": "off", "client_min_messages": "warning"}
"""Also for a role that is to hear no warnings: one says that a commit is not confirmed, see `replication`."""

_BY_INDEX: Final = {"enable_seqscan": "off"}
"""All but an audit asks by key: a plan from when a table was small must not scan it when it is large."""


def create_engine(settings: LedgerSettings, *, patient: bool = False) -> AsyncEngine:
    """Return an engine for `[ledger]`. Connects to nothing yet. Raises SettingsError for a bad URL.

    A patient one has no time limit on statements: for migrations and audits, which nobody's window bounds.
    """
    url = read_url(settings.database_url)
    return _sqlite_engine(settings) if url.drivername == SQLITE else _postgres_engine(settings, url, patient)


def _postgres_engine(settings: LedgerSettings, url: URL, patient: bool) -> AsyncEngine:  # noqa: FBT001
    postgres = read_postgres(url)
    in_force = _SETTINGS if patient else _SETTINGS | _BY_INDEX
    connecting = {
        "timeout": settings.statement_seconds_max,
        "command_timeout": None if patient else settings.statement_seconds_max,
        **connect_arguments(settings.pooler, postgres.application_name or "credits", in_force),
        **postgres.arguments,
        "async_creator_fn": connect,
    }
    try:
        engine = create_async_engine(
            postgres.url,
            hide_parameters=True,
            # An audit writes down what it reads: with two connections.
            pool_size=max(settings.pool_connections_max, 2 if patient else 1),
            max_overflow=0,
            pool_timeout=settings.statement_seconds_max,
            connect_args=connecting,
        )
    except (ArgumentError, ValueError):  # hosts and ports of several servers
        raise SettingsError("[ledger] database_url: each host is HOST:PORT, and they don't fit") from None
    heed_warnings(engine)
    return with_settings(engine, settings.pooler, in_force)


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
    # Not supported is what SQLAlchemy calls a prepared statement that somebody's ALTER TABLE has outdated.
    return _sqlstate(error) in _TRANSIENT_SQLSTATES or isinstance(error, NotSupportedError)


def is_no_text(error: Exception) -> bool:
    """Tell whether the database was given a text that it can't hold, so that no row has it."""
    return isinstance(error, DBAPIError) and _sqlstate(error) == _NO_TEXT_SQLSTATE


def is_refusal(error: Exception) -> bool:
    """Tell whether the certificate, our account, what that asks or the name of the database is refused."""
    if isinstance(error, DBAPIError):
        code = _sqlstate(error)
        is_of_pooler = code == _PROTOCOL_SQLSTATE and _REFUSAL_OF_POOLER in str(error.orig)
        return code.startswith(_LOGIN_CLASS) or code in _REFUSAL_SQLSTATES or is_of_pooler
    return isinstance(error, ssl.SSLCertVerificationError)


def is_outage(error: Exception) -> bool:
    """Tell whether the database is at fault, and neither a statement nor what it was given."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, (OSError, TimeoutError, PoolTimeoutError, MemoryError))
    if error.connection_invalidated:
        return True
    sqlite_code = getattr(error.orig, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return sqlite_code & 0xFF in _OUTAGE_SQLITE_CODES  # the bits above only say more about it
    if sqlstate := _sqlstate(error):
        return sqlstate[:2] in _OUTAGE_CLASSES or sqlstate in _OUTAGE_SQLSTATES
    # The database has said nothing: the driver could not ask it.
    return isinstance(error, (InterfaceError, InternalError, OperationalError))


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


@contextmanager
def outages_as_unavailable() -> Iterator[None]:
    """Raise LedgerUnavailable for an outage of the database; leave other exceptions as they are."""
    try:
        yield
    except Exception as error:
        if is_outage(error):
            reason = error.orig if isinstance(error, DBAPIError) and error.orig else error
            first_line = next(iter(str(reason).splitlines()), "")
            fault = LedgerRefused if is_refusal(error) else LedgerUnavailable
            raise fault(f"the database: {first_line or type(reason).__name__}") from error
        raise


def for_reading(engine: AsyncEngine) -> AsyncEngine:
    """Return the engine for who only reads: on SQLite too, they hold nobody up and wait for nobody.

    On PostgreSQL each statement is its own transaction, for which the server need not be told twice more,
    unless a pooler may change the connection between statements.
    """
    if engine.dialect.name == "postgresql":
        return single_statements(engine)
    return engine.execution_options(**{_READ_ONLY: True})


def single_statements(engine: AsyncEngine) -> AsyncEngine:
    """Return the engine for statements that are transactions by themselves where the pooler lets them."""
    if is_pooled_by_transaction(engine):
        return engine
    return engine.execution_options(isolation_level="AUTOCOMMIT")


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
        async with for_reading(engine).connect() as connection:
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
