"""What an engine needs where a pooler such as PgBouncer stands between us and PostgreSQL.

Direct connections carry our settings in their first message, and keep prepared statements. A pooler refuses
or drops such settings, so `[ledger] pooler` says what there is:

- `session`: a server's connection is ours while we are connected. Settings are set after connecting.
- `transaction`: each transaction may be on another server's connection. Settings are set in each, and end
  with it. No statement has a name, and none is a transaction by itself: between preparing and executing it,
  the pooler may change the connection.
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
"""Another client may have left its own on the server's connection, by which no commit waits for replicas."""

_REFUSAL: Final = "unsupported startup parameter"
_CHOICE: Final = 'say pooler = "session" or "transaction", as PgBouncer\'s pool_mode'


def connect_arguments(pooler: str, name: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """Return asyncpg's arguments for connections with a name and, where they may carry them, settings."""
    if pooler == "none":
        return {"server_settings": {"application_name": name, **settings}}
    arguments: dict[str, Any] = {"server_settings": {"application_name": name}}
    if pooler == "transaction":  # without a cache, statements have no names
        arguments |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    return arguments


def with_settings(engine: AsyncEngine, pooler: str, settings: Mapping[str, str]) -> AsyncEngine:
    """Return the engine whose connections have these settings, by the way that the pooler leaves."""
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
            # The driver's own classes, which SQLAlchemy translates everywhere else.
            raise ConnectionError(f"settings of the session: {error}") from error


def _set_for_transactions(engine: AsyncEngine, settings: Mapping[str, str]) -> None:
    calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())

    @event.listens_for(engine.sync_engine, "begin")
    def set_all(connection: Connection) -> None:
        connection.exec_driver_sql(f"SELECT {calls}")
        connection.exec_driver_sql(_AS_CONFIGURED)


def is_pooled_by_transaction(engine: AsyncEngine) -> bool:
    """Tell whether statements have to stand in transactions, which have to be committed."""
    return engine.get_execution_options().get(_POOLER) == "transaction"


@contextmanager
def refusal_as_settings_error() -> Iterator[None]:
    """Raise SettingsError where a pooler refuses our settings, for it always will: that is no outage."""
    try:
        yield
    except LedgerUnavailable as error:
        if _REFUSAL not in str(error):
            raise
        raise SettingsError(f"[ledger] pooler: one is there, and refuses our settings; {_CHOICE}") from None


async def require_pooler_as_set(engine: AsyncEngine) -> None:
    """Raise SettingsError where a pooler does otherwise than `[ledger] pooler` says."""
    options = engine.get_execution_options()
    if options.get(_POOLER, "transaction") == "transaction":  # which SQLite, too, has nothing to tell of
        return
    alone = engine.execution_options(isolation_level="AUTOCOMMIT")
    settings: Mapping[str, str] = options[_SETTINGS]
    async with alone.connect() as connection:
        for name, value in settings.items():
            if await connection.scalar(text("SELECT current_setting(:name)"), {"name": name}) != value:
                raise SettingsError(f"[ledger] pooler: one is there, and drops our settings; {_CHOICE}")
        if options[_POOLER] == "session" and await _shares_its_server(connection, alone):
            raise SettingsError('[ledger] pooler: connections share a server\'s, so it is "transaction"')


async def _shares_its_server(connection: AsyncConnection, engine: AsyncEngine) -> bool:
    """Tell whether another connection is served by the same process while this one is open."""
    pool = engine.sync_engine.pool
    if not isinstance(pool, QueuePool) or pool.size() < 2:
        return False
    process = text("SELECT pg_backend_pid()")
    ours = await connection.scalar(process)
    async with engine.connect() as other:
        return bool(ours == await other.scalar(process))
