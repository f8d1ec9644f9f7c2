"""The faults of the database, told apart: what may be repeated, what is an outage, what is our mistake."""

import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, NotSupportedError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared.errors import LedgerRefused, LedgerUnavailable

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
