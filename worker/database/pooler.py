"""Adapts an engine to a pooler such as PgBouncer between us and PostgreSQL.

A direct connection sends our settings of the session in its first message, and keeps prepared statements. A
pooler refuses or drops such settings, so `[ledger] pooler` has the pooler's mode:

- `session`: a connection to the server is ours as long as we are connected. Settings are set after connecting.
- `transaction`: each transaction may be on another connection to the server. Settings are set in each, and end
  with it. No statement is prepared under a name, and none is a transaction by itself: between preparing and
  executing it, the pooler may change the connection.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, QueuePool, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.errors import LedgerUnavailable, SettingsError

_POOLER: Final = "credits_pooler"
_SETTINGS: Final = "credits_settings"
_AS_CONFIGURED: Final = "SET LOCAL synchronous_commit TO DEFAULT"
"""Another client of the pooler may have left a value on the connection with which commits don't wait for replicas."""

_REFUSAL: Final = "unsupported startup parameter"
_CHOICE: Final = 'say pooler = "session" or "transaction", as PgBouncer\'s pool_mode'


def connect_arguments(pooler: str, name: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """Return asyncpg's arguments for connections with an application name and, without a pooler, with settings."""
    if pooler == "none":
        return {"server_settings": {"application_name": name, **settings}}
    arguments: dict[str, Any] = {"server_settings": {"application_name": name}}
    if pooler == "transaction":  # without a cache, statements have no names
        arguments |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    return arguments


def with_settings(engine: AsyncEngine, pooler: str, settings: Mapping[str, str]) -> AsyncEngine:
    """Return the engine with these settings on its connections, set in the way that the pooler allows."""
    if pooler == "session":
        _set_for_sessions(engine, settings)
    elif pooler == "transaction":
        _set_for_transactions(engine, settings)
    return engine.execution_options(**{_POOLER: pooler, _SETTINGS: settings})


def _set_for_sessions(engine: AsyncEngine, settings: Mapping[str, str]) -> None:
    statements = ";".join(f"SET {name} = '{value}'" for name, value in settings.items())

    @event.listens_for(engine.sync_engine, "connect")
    def set_all(connection: Any, _record: object) -> None:
        try:
            connection.run_async(lambda driver: driver.execute(statements))
        except Exception as error:
            # asyncpg's own exceptions, which SQLAlchemy translates everywhere but in this event.
            raise ConnectionError(f"settings of the session: {error}") from error


def _set_for_transactions(engine: AsyncEngine, settings: Mapping[str, str]) -> None:
    calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())

    @event.listens_for(engine.sync_engine, "begin")
    def set_all(connection: Connection) -> None:
        connection.exec_driver_sql(f"SELECT {calls}")
        connection.exec_driver_sql(_AS_CONFIGURED)


def is_pooled_by_transaction(engine: AsyncEngine) -> bool:
    """Return whether every statement has to be in a transaction that is committed."""
    return engine.get_execution_options().get(_POOLER) == "transaction"


@contextmanager
def refusal_as_settings_error() -> Iterator[None]:
    """Raise SettingsError if a pooler refuses our settings: it always will, so this is no outage."""
    try:
        yield
    except LedgerUnavailable as error:
        if _REFUSAL not in str(error):
            raise
        raise SettingsError(f"[ledger] pooler: one is there, and refuses our settings; {_CHOICE}") from None


async def require_pooler_as_set(engine: AsyncEngine) -> None:
    """Raise SettingsError if the pooler, or its mode, is another than `[ledger] pooler` names."""
    options = engine.get_execution_options()
    if options.get(_POOLER, "transaction") == "transaction":  # in this mode, and on SQLite, nothing can be wrong
        return
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    settings: Mapping[str, str] = options[_SETTINGS]
    async with autocommit.connect() as connection:
        for name, value in settings.items():
            if await connection.scalar(text("SELECT current_setting(:name)"), {"name": name}) != value:
                raise SettingsError(f"[ledger] pooler: one is there, and drops our settings; {_CHOICE}")
        if options[_POOLER] == "session" and await _shares_server_process(connection, autocommit):
            raise SettingsError('[ledger] pooler: connections share a server\'s, so it is "transaction"')


async def _shares_server_process(connection: AsyncConnection, engine: AsyncEngine) -> bool:
    """Return whether the same server process serves another connection while this one is open."""
    pool = engine.sync_engine.pool
    if not isinstance(pool, QueuePool) or pool.size() < 2:
        return False
    process_id = text("SELECT pg_backend_pid()")
    ours = await connection.scalar(process_id)
    async with engine.connect() as other:
        return bool(ours == await other.scalar(process_id))
