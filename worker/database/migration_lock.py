"""The lock under which tables are migrated, and the time limit on every lock that a migration waits for.

A migration holds an advisory lock, so several may be started at once. Another process may hold it for long or
forever: so its process number is reported at once, and the wait is limited.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import LedgerUnavailable

WAIT_SECONDS: Final = 60
"""How long `migrate` waits for a lock by default."""

MIGRATION_LOCK: Final = 4_707_713_206_834_229_325
"""The number of PostgreSQL's advisory lock: an arbitrary one that nobody else uses."""

_NOT_AVAILABLE: Final = "55P03"

_HOLDER: Final = text(
    "SELECT l.pid, a.usename, a.application_name, a.client_addr::text FROM pg_locks l"
    " LEFT JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND l.classid::bigint = :high AND l.objid::bigint = :low"
).bindparams(high=MIGRATION_LOCK >> 32, low=MIGRATION_LOCK & 0xFFFFFFFF)

Notify = Callable[[str], None]
_log = structlog.get_logger()


def log_wait(message: str) -> None:
    """Log that a migration waits for another process."""
    _log.warning("waiting to migrate", reason=message)


async def acquire_migration_lock(connection: AsyncConnection, wait_seconds: int, notify: Notify) -> None:
    """Acquire the lock until the transaction ends, and limit how long its statements wait for any other lock.

    Reports the process that holds the lock before waiting for it. Raises LedgerUnavailable if it is not free in
    time.
    """
    # lock_timeout = 0 would mean no limit, so for a wait of 0 it is set to its least, a millisecond.
    await connection.execute(text(f"SET LOCAL lock_timeout = {max(wait_seconds * 1_000, 1)}"))
    if await connection.scalar(text(f"SELECT pg_try_advisory_xact_lock({MIGRATION_LOCK})")):
        return
    holder = await _holder(connection)
    if wait_seconds:
        notify(f"somebody else migrates: {holder} holds the lock; waiting for up to {wait_seconds} s")
    with lock_timeouts_as_unavailable(f"{holder} holds the lock of migrations", wait_seconds):
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))


@contextmanager
def lock_timeouts_as_unavailable(reason: str, wait_seconds: int) -> Iterator[None]:
    """Raise LedgerUnavailable, with a reason, if the wait for a lock timed out."""
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _NOT_AVAILABLE:
            raise
        raise LedgerUnavailable(f"{reason}; gave up after {wait_seconds} s, nothing was changed") from None


async def _holder(connection: AsyncConnection) -> str:
    row = (await connection.execute(_HOLDER)).first()
    if row is None:  # the lock was released meanwhile
        return "another process"
    process, user, application, address = row
    description = f"process {process} of the database"
    if not user:  # only a superuser is shown the users of other roles' processes
        return description
    facts = [f"user {user}", application, f"from {address}" if address else "on a Unix socket"]
    return f"{description} ({', '.join(filter(None, facts))})"
