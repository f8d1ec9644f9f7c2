"""Classifies the faults of the database: which may be retried, which are outages, and which are our mistakes."""

import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, NotSupportedError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared.errors import LedgerRefused, LedgerUnavailable

_TRANSIENT_SQLSTATES: Final = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available: the transaction may succeed when it is retried."""

_OUTAGE_CLASSES: Final = frozenset({"08", "28", "3D", "53", "57", "58"})
"""Connection, login, missing database, resources (connections, disk), shutdown or time limit, system error."""

_LOGIN_CLASS: Final = "28"

_OUTAGE_SQLSTATES: Final = frozenset({"25006", "25P03", "42501", "42P01", "42703", "XX001", "XX002"})
"""A standby, which only reads; a session that the server ended because our process, stopped within a transaction,
left it idle; missing grants, tables or columns, which a restore has yet to bring back, because our statements
never change; damaged data or indexes, which a person must repair before anything can be paid."""

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
"""A damaged file is an outage here too. A missing table is not: SQLite has one code for all invalid statements,
among them those that are invalid only because a batch is too large."""

_REFUSAL_SQLSTATES: Final = frozenset({"42501", "3D000"})
"""Insufficient privilege; no database of that name."""

_PROTOCOL_SQLSTATE: Final = "08P01"
_POOLER_LOGIN_FAILURE: Final = "SASL authentication failed"
"""PgBouncer's message for a wrong password, which it sends with the code of a protocol violation."""
_INVALID_CHARACTER_SQLSTATE: Final = "22021"
"""A character that PostgreSQL's texts can't hold: NUL."""


def is_transient(error: DBAPIError) -> bool:
    """Return whether the same transaction may succeed if it is retried at once."""
    # SQLAlchemy raises NotSupportedError for a prepared statement that an ALTER TABLE has made invalid.
    return _sqlstate(error) in _TRANSIENT_SQLSTATES or isinstance(error, NotSupportedError)


def is_no_text(error: Exception) -> bool:
    """Return whether a parameter was a text that the database can't store, so that no row can have it."""
    return isinstance(error, DBAPIError) and _sqlstate(error) == _INVALID_CHARACTER_SQLSTATE


def is_refusal(error: Exception) -> bool:
    """Return whether the certificate does not verify, or our account, its rights or the database name are refused."""
    if isinstance(error, DBAPIError):
        code = _sqlstate(error)
        is_by_pooler = code == _PROTOCOL_SQLSTATE and _POOLER_LOGIN_FAILURE in str(error.orig)
        return code.startswith(_LOGIN_CLASS) or code in _REFUSAL_SQLSTATES or is_by_pooler
    return isinstance(error, ssl.SSLCertVerificationError)


def is_outage(error: Exception) -> bool:
    """Return whether the database is at fault, and not the statement or its parameters."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, (OSError, TimeoutError, PoolTimeoutError, MemoryError))
    if error.connection_invalidated:
        return True
    sqlite_code = getattr(error.orig, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return sqlite_code & 0xFF in _OUTAGE_SQLITE_CODES  # the higher bits only add details
    if sqlstate := _sqlstate(error):
        return sqlstate[:2] in _OUTAGE_CLASSES or sqlstate in _OUTAGE_SQLSTATES
    # The error is the driver's: it could not reach the database.
    return isinstance(error, (InterfaceError, InternalError, OperationalError))


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


@contextmanager
def outages_as_unavailable() -> Iterator[None]:
    """Raise LedgerUnavailable in place of an error that is an outage; let other exceptions through."""
    try:
        yield
    except Exception as error:
        if is_outage(error):
            reason = error.orig if isinstance(error, DBAPIError) and error.orig else error
            first_line = next(iter(str(reason).splitlines()), "")
            fault = LedgerRefused if is_refusal(error) else LedgerUnavailable
            raise fault(f"the database: {first_line or type(reason).__name__}") from error
        raise
