"""What the database's replicas hold: nothing else is told to anyone.

Where `synchronous_standby_names` is set, a commit is confirmed once the replicas have it. But a time limit,
or somebody's pg_cancel_backend, ends the wait and not the commit: from then on every transaction sees it,
though perhaps no replica has it, and it is lost with the primary. So whoever answers from what it has read
commits a transaction of its own before, which waits like any other. Replicas receive commits in their order:
once they have this one, they have all that was visible before it.
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
    # Which a server does that restarts its processes because one has crashed, and else an administrator.
    " to_hex((extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()) * 1000000)::bigint),"
    " (SELECT oid FROM pg_database WHERE datname = current_database()), pg_relation_filenode('ledger'))"
)
"""Names the copy of the books that a server has, unless it is a replica; see `State`."""

# The least that makes a commit wait. A replica can't write it, and has itself what it shows.
_CONFIRM: Final = text(
    "SELECT CASE WHEN NOT pg_is_in_recovery() AND current_setting('synchronous_standby_names') <> ''"
    " THEN pg_logical_emit_message(true, 'credits', '') END"
)
_WAITING: Final = "SyncRepWaitForLSN"
"""The function of PostgreSQL that warns when its wait is canceled, in words of any language."""

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
"""A base backup, which is sent by one process and its log by another, is no replica. An account without the
rights of pg_read_all_stats is not shown what a process does: it counts that one."""


class State(NamedTuple):
    """What a server is among its replicas."""

    copy: str = ""
    """Names the copy of the books that the server has; empty on SQLite.

    It is another after a promotion or a restore to a moment, which begin a timeline; after the server was
    started, perhaps on an older snapshot of its disk; after it has recovered from a crash of one of its
    processes, which with synchronous_commit = off loses the last commits, and resets its statistics; and
    after a database or its tables were made, as by pg_restore.
    """

    is_replicated: bool = False
    """Whether its commits wait for replicas."""


async def read_state(connection: AsyncConnection) -> State:
    """Return the state of a connection's server. Raises LedgerUnavailable for a replica, which can't post."""
    if connection.dialect.name != "postgresql":
        return State()
    row = (await connection.execute(_STATE)).one()
    if row.is_replica:
        raise LedgerUnavailable("the database: the server is a replica")
    return State(row.copy, row.is_replicated)


async def find_weaknesses(connection: AsyncConnection) -> list[str]:
    """Return by which settings of a connection's server wins may be lost that were told as paid."""
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


def heed_warnings(engine: AsyncEngine) -> None:
    """Note on each connection when PostgreSQL warns that replicas may lack what it has just committed."""

    @event.listens_for(engine.sync_engine, "connect")
    def listen(connection: Any, record: Any) -> None:
        def note(_connection: object, warning: asyncpg.PostgresLogMessage) -> None:
            if warning.server_source_function == _WAITING:
                record.info[_UNCONFIRMED] = True

        connection.driver_connection.add_log_listener(note)


def note_losses(engine: AsyncEngine, note: Callable[[], None]) -> None:
    """Have `note` called when a connection to PostgreSQL that is made from now on ends, also between uses.

    A server that is replaced, fails over or recovers from a crash ends its connections. One that freezes does
    not, and a pooler may keep its clients' connections.
    """
    if engine.dialect.name != "postgresql":
        return

    @event.listens_for(engine.sync_engine, "connect")
    def listen(connection: Any, _record: Any) -> None:
        connection.driver_connection.add_termination_listener(lambda _connection: note())


def require_confirmed(connection: AsyncConnection) -> None:
    """Raise LedgerUnavailable if replicas may lack what has just been committed on a connection."""
    sync_connection = connection.sync_connection
    if sync_connection is not None and sync_connection.info.pop(_UNCONFIRMED, False):
        raise LedgerUnavailable("the database: the wait for its replicas was canceled")


async def commit(connection: AsyncConnection) -> None:
    """Commit. Raises LedgerUnavailable where it is not known that the replicas have it."""
    await connection.commit()
    require_confirmed(connection)


async def confirm(connection: AsyncConnection) -> None:
    """Commit, and return when the replicas hold all that this connection has seen.

    Raises what the database raises when they don't within its time limit, or LedgerUnavailable.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(_CONFIRM)
        await commit(connection)
