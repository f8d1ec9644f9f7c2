"""The lock under which tables are migrated, and how long anything is waited for meanwhile.

Whoever migrates holds an advisory lock, so that several may try at once. Somebody may hold it for long, or
forever: that is said at once, with the number of the process, and the wait has an end.
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
"""How long `migrate` waits for a lock unless it is told otherwise."""

MIGRATION_LOCK: Final = 4_707_713_206_834_229_325
"""PostgreSQL's advisory lock under which tables are migrated: any number that nobody else uses."""

_NOT_AVAILABLE: Final = "55P03"

_HOLDER: Final = text(
    "SELECT l.pid, a.usename, a.application_name, a.client_addr::text FROM pg_locks l"
    " LEFT JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND l.classid::bigint = :high AND l.objid::bigint = :low"
).bindparams(high=MIGRATION_LOCK >> 32, low=MIGRATION_LOCK & 0xFFFFFFFF)

Tell = Callable[[str], None]
_log = structlog.get_logger()


def log_wait(message: str) -> None:
    """Log that somebody is waited for."""
    _log.warning("waiting to migrate", reason=message)


async def take_migration_lock(connection: AsyncConnection, wait_seconds: int, tell: Tell) -> None:
    """Take the lock until the transaction ends, and let none of its statements wait longer for any lock.

    Says at once who holds it. Raises LedgerUnavailable when it is not free in time.
    """
    # 0 would be without end; a table's lock is not waited for at all then, but for a millisecond.
    await connection.execute(text(f"SET LOCAL lock_timeout = {max(wait_seconds * 1_000, 1)}"))
    if await connection.scalar(text(f"SELECT pg_try_advisory_xact_lock({MIGRATION_LOCK})")):
        return
    holder = await _holder(connection)
    if wait_seconds:
        tell(f"somebody else migrates: {holder} holds the lock; waiting for up to {wait_seconds} s")
    with lock_timeouts_as_unavailable(f"{holder} holds the lock of migrations", wait_seconds):
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))


@contextmanager
def lock_timeouts_as_unavailable(reason: str, wait_seconds: int) -> Iterator[None]:
    """Raise LedgerUnavailable, with a reason, where a lock was waited for in vain."""
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _NOT_AVAILABLE:
            raise
        raise LedgerUnavailable(f"{reason}; gave up after {wait_seconds} s, nothing was changed") from None


async def _holder(connection: AsyncConnection) -> str:
    row = (await connection.execute(_HOLDER)).first()
    if row is None:  # it has let go meanwhile
        return "another process"
    told = [f"user {row[1]}", row[2], f"from {row[3]}" if row[3] else "on a Unix socket"]
    known = [fact for fact in told if fact] if row[1] else []  # of other users' only a superuser is told
    return f"process {row[0]} of the database" + (f" ({', '.join(known)})" if known else "")
