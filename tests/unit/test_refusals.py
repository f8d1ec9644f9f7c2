"""What a database refuses until somebody acts is told from an outage, which passes by itself."""

import asyncpg
import pytest
from sqlalchemy.exc import OperationalError

from worker.database.faults import is_refusal


@pytest.mark.parametrize(
    ("error", "is_refused"),
    [
        (asyncpg.InvalidPasswordError('password authentication failed for user "worker"'), True),
        (
            asyncpg.ProtocolViolationError("SASL authentication failed"),
            True,
        ),  # PgBouncer, of a wrong password
        (asyncpg.InvalidCatalogNameError('database "credit" does not exist'), True),
        (asyncpg.InsufficientPrivilegeError("permission denied for table transfers"), True),
        (asyncpg.ProtocolViolationError("server login has been failing, cached error: timeout"), False),
        (asyncpg.CannotConnectNowError("the database system is starting up"), False),
    ],
)
def test_refusal_is_no_outage(error: asyncpg.PostgresError, is_refused: bool) -> None:  # noqa: FBT001
    assert is_refusal(OperationalError(None, None, error)) is is_refused
