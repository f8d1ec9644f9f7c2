"""Creates the engines by which a process connects to PostgreSQL or SQLite, with their settings."""

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
from worker.database.replication import watch_unconfirmed_commits
from worker.database.url import SQLITE, read_postgres, read_url

_READ_ONLY: Final = "credits_read_only"

_SETTINGS: Final = {"jit": "off", "client_min_messages": "warning"}
"""Warnings are on, also for roles that have them off: one reports an unconfirmed commit (see `replication`)."""

_INDEX_SCANS: Final = {"enable_seqscan": "off"}
"""All but audits look rows up by key: a plan that was made for a small table must not scan it once it is large."""


def create_engine(settings: LedgerSettings, *, no_statement_timeout: bool = False) -> AsyncEngine:
    """Return an engine for `[ledger]`. Connects to nothing yet. Raises SettingsError for a bad URL.

    `no_statement_timeout` is for migrations and audits, which take as long as the ledger is large and answer
    no request.
    """
    url = read_url(settings.database_url)
    if url.drivername == SQLITE:
        return _sqlite_engine(settings)
    return _postgres_engine(settings, url, no_statement_timeout=no_statement_timeout)


def _postgres_engine(settings: LedgerSettings, url: URL, *, no_statement_timeout: bool) -> AsyncEngine:
    postgres = read_postgres(url)
    server_settings = _SETTINGS if no_statement_timeout else _SETTINGS | _INDEX_SCANS
    arguments = {
        "timeout": settings.statement_seconds_max,
        "command_timeout": None if no_statement_timeout else settings.statement_seconds_max,
        **connect_arguments(settings.pooler, postgres.application_name or "credits", server_settings),
        **postgres.arguments,
        "async_creator_fn": connect,
    }
    try:
        engine = create_async_engine(
            postgres.url,
            hide_parameters=True,
            # An audit needs two connections: one to read, and one to write its point.
            pool_size=max(settings.pool_connections_max, 2 if no_statement_timeout else 1),
            max_overflow=0,
            pool_timeout=settings.statement_seconds_max,
            connect_args=arguments,
        )
    except (ArgumentError, ValueError):  # hosts and ports of several servers
        raise SettingsError("[ledger] database_url: each host is HOST:PORT, and they don't fit") from None
    watch_unconfirmed_commits(engine)
    return with_settings(engine, settings.pooler, server_settings)


def _sqlite_engine(settings: LedgerSettings) -> AsyncEngine:
    if path := make_url(settings.database_url).database:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            # Tried here first: if the driver fails to connect, its thread stays and prints a traceback.
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
        connection.isolation_level = None  # only `begin` below begins transactions, never the driver by itself
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        # SQLite locks the whole file: a transaction that takes the lock first reads nothing that others change
        # before it commits. One that only reads takes no lock, and sees the file as of its first statement.
        read_only = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def utc(moment: datetime) -> datetime:
    """Return a stored moment in UTC: SQLite, to which moments are written in UTC, stores no time zone."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def read_only(engine: AsyncEngine) -> AsyncEngine:
    """Return the engine for transactions that only read: on SQLite too, they block nothing and wait for nothing.

    On PostgreSQL each statement is a transaction by itself, which saves the round trips of BEGIN and COMMIT,
    unless a pooler may change the connection between statements.
    """
    if engine.dialect.name == "postgresql":
        return autocommit(engine)
    return engine.execution_options(**{_READ_ONLY: True})


def autocommit(engine: AsyncEngine) -> AsyncEngine:
    """Return the engine in which each statement is a transaction by itself, unless the pooler rules that out."""
    if is_pooled_by_transaction(engine):
        return engine
    return engine.execution_options(isolation_level="AUTOCOMMIT")
