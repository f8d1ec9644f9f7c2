"""Makes sure that the database's replicas have what we reply, before we reply it.

With `synchronous_standby_names` set, a commit is confirmed once the replicas have it. But a time limit or a
pg_cancel_backend ends the wait and not the commit: from then on every transaction sees it, although perhaps no
replica has it, and it would be lost with the primary. So a reader commits a small transaction of its own before
it replies, and that commit waits like any other. Replicas receive commits in order: once they have this one,
they have everything that was visible before it.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.errors import LedgerUnavailable

COPY: Final = (
    "concat_ws('-', left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),"
    " to_hex((extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint),"
    # Reset when the server restarts its processes because one has crashed, or by an administrator.
    " to_hex((extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()) * 1000000)::bigint),"
    " (SELECT oid FROM pg_database WHERE datname = current_database()), pg_relation_filenode('ledger'))"
)
"""SQL for the name of a server's copy of the ledger, unless the server is a replica; see `State`."""

# The smallest write that makes a commit wait. A replica can't write it, and need not: it has what it shows.
_CONFIRM: Final = text(
    "SELECT CASE WHEN NOT pg_is_in_recovery() AND current_setting('synchronous_standby_names') <> ''"
    " THEN pg_logical_emit_message(true, 'credits', '') END"
)
_WAITING: Final = "SyncRepWaitForLSN"
"""The function of PostgreSQL that warns if its wait is canceled. The warning's text depends on the language."""

_UNCONFIRMED: Final = "credits_unconfirmed"

_STATE: Final = text(
    "SELECT pg_is_in_recovery() AS is_replica,"
    " current_setting('synchronous_standby_names') <> '' AS is_replicated,"
    f" CASE WHEN NOT pg_is_in_recovery() THEN {COPY} END AS copy"
)

_DURABILITY: Final = text(
    "SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit,"
    " current_setting('synchronous_standby_names') AS standby_names,"
    " (SELECT count(*) FROM pg_stat_replication"
    " WHERE state IS DISTINCT FROM 'backup'"
    " AND application_name IS DISTINCT FROM 'pg_basebackup') AS receivers"
)
"""Receivers are replicas and archivers, not base backups, whose files and log are sent by a process each. An
account without the rights of pg_read_all_stats is not shown the state of the one that sends the files, and may
count it."""


class State(NamedTuple):
    """The state of a primary: its copy of the ledger, and whether that is replicated."""

    copy: str = ""
    """The name of the server's copy of the ledger; empty on SQLite.

    The name changes whenever the copy may lack commits: after a promotion or a restore to a point in time, which
    begin a timeline; after a start of the server, perhaps from an older snapshot of its disk; after a recovery
    from the crash of one of its processes, which resets its statistics, and with synchronous_commit = off loses
    the last commits; and after the database or its tables were created, as by pg_restore.
    """

    is_replicated: bool = False
    """Whether commits wait for replicas."""


async def read_state(connection: AsyncConnection) -> State:
    """Return the state of a connection's server. Raises LedgerUnavailable for a replica, which can't post."""
    if connection.dialect.name != "postgresql":
        return State()
    row = (await connection.execute(_STATE)).one()
    if row.is_replica:
        raise LedgerUnavailable("the database: the server is a replica")
    return State(row.copy, row.is_replicated)


async def find_weaknesses(connection: AsyncConnection) -> list[str]:
    """Return the weaknesses of a connection's server: settings by which wins may be lost after the reply."""
    if connection.dialect.name != "postgresql":
        return []
    row = (await connection.execute(_DURABILITY)).one()
    found = []
    if row.fsync == "off":
        found.append("fsync is off: what was committed is lost when the server's machine fails")
    if row.synchronous_commit == "off":
        found.append("synchronous_commit is off: the last commits are lost when the server fails")
    elif row.synchronous_commit == "local" and row.standby_names:
        found.append("synchronous_commit is local: no commit waits for a replica")
    if row.receivers and not row.standby_names:
        found.append(
            "synchronous_standby_names is empty and there is a replica or an archiver: the last commits are"
            " lost when a replica takes over"
        )
    return found


def watch_unconfirmed_commits(engine: AsyncEngine) -> None:
    """Mark a connection when PostgreSQL warns on it that replicas may lack its last commit."""

    @event.listens_for(engine.sync_engine, "connect")
    def listen(connection: Any, record: Any) -> None:
        def on_warning(_connection: object, warning: asyncpg.PostgresLogMessage) -> None:
            if warning.server_source_function == _WAITING:
                record.info[_UNCONFIRMED] = True

        connection.driver_connection.add_log_listener(on_warning)


def note_losses(engine: AsyncEngine, callback: Callable[[], None]) -> None:
    """Call `callback` whenever a connection to PostgreSQL that is made from now on ends, in use or idle.

    A server that is replaced, fails over or recovers from a crash ends its connections. One that freezes does
    not, and a pooler may keep its clients' connections.
    """
    if engine.dialect.name != "postgresql":
        return

    @event.listens_for(engine.sync_engine, "connect")
    def listen(connection: Any, _record: Any) -> None:
        connection.driver_connection.add_termination_listener(lambda _connection: callback())


def require_confirmed(connection: AsyncConnection) -> None:
    """Raise LedgerUnavailable if replicas may lack the last commit of a connection."""
    sync_connection = connection.sync_connection
    if sync_connection is not None and sync_connection.info.pop(_UNCONFIRMED, False):
        raise LedgerUnavailable("the database: the wait for its replicas was canceled")


async def commit(connection: AsyncConnection) -> None:
    """Commit. Raises LedgerUnavailable if the wait for the replicas was canceled, so that they may lack it."""
    await connection.commit()
    require_confirmed(connection)


async def confirm(connection: AsyncConnection) -> None:
    """Commit, and return when the replicas have everything that this connection has read.

    Raises the database's error if that takes longer than its time limit, or LedgerUnavailable.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(_CONFIRM)
        await commit(connection)
