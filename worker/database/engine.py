"""Engines: how this process connects to PostgreSQL or SQLite, and with which settings."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
)
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shared.errors import SettingsError
from shared.settings import LedgerSettings
from worker.database.connecting import connect
from worker.database.pooler import (
    connect_arguments,
    is_pooled_by_transaction,
    with_settings,
)
from worker.database.replication import heed_warnings
from worker.database.url import SQLITE, read_postgres, read_url

_READ_ONLY: Final = "credits_read_only"

_SETTINGS: Final = {"jit": "off", "client_min_messages": "warning"}
"""Also for a role that is to hear no warnings: one says that a commit is not confirmed, see `replication`."""

_BY_INDEX: Final = {"enable_seqscan": "off"}
"""All but an audit asks by key: a plan from when a table was small must not scan it when it is large."""


def create_engine(settings: LedgerSettings, *, no_statement_timeout: bool = False) -> AsyncEngine:
    """Return an engine for `[ledger]`. Connects to nothing yet. Raises SettingsError for a bad URL.

    A patient one has no time limit on statements: for migrations and audits, which nobody's window bounds.
    """
    url = read_url(settings.database_url)
    return (
        _sqlite_engine(settings) if url.drivername == SQLITE else _postgres_engine(settings, url, no_statement_timeout)
    )


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
        connection.isolation_level = None  # transactions begin where `begin` below says, not where the driver guesses
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


def read_only(engine: AsyncEngine) -> AsyncEngine:
    """Return the engine for who only reads: on SQLite too, they hold nobody up and wait for nobody.

    On PostgreSQL each statement is its own transaction, for which the server need not be told twice more,
    unless a pooler may change the connection between statements.
    """
    if engine.dialect.name == "postgresql":
        return autocommit(engine)
    return engine.execution_options(**{_READ_ONLY: True})


def autocommit(engine: AsyncEngine) -> AsyncEngine:
    """Return the engine for statements that are transactions by themselves where the pooler lets them."""
    if is_pooled_by_transaction(engine):
        return engine
    return engine.execution_options(isolation_level="AUTOCOMMIT")
