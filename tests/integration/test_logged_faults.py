"""A fault of the database is logged with its cause, and without the row, which may name a session."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.logging import without_rows
from tests.support.credits import win
from worker.database.schema import transfers
from worker.players import add_player

SECRET = "session-that-opens-a-wallet"


async def test_row_that_the_database_refuses_is_not_logged(postgres: AsyncEngine) -> None:
    await add_player(postgres, "anna", "EUR")
    credit = win("w", session_id=SECRET)
    row = {
        name: getattr(credit, name)
        for name in ("integration", "provider_tx_id", "player_id", "currency", "kind", "session_id")
    }
    amounts = ("amount_minor", "real_minor", "bonus_minor", "real_balance_minor", "bonus_balance_minor")
    with pytest.raises(IntegrityError) as refused:
        async with postgres.begin() as connection:
            await connection.execute(
                transfers.insert().values(
                    **row,
                    **dict.fromkeys(amounts, -1),
                    id=uuid4(),
                    round_closed=False,
                    details="{}",
                    posted_at=datetime.now(UTC),
                )
            )
    event = structlog.processors.format_exc_info(None, "error", {"event": "x", "exc_info": refused.value})
    assert SECRET in event["exception"]
    logged = without_rows(None, "error", event)["exception"]
    assert SECRET not in logged
    assert "ck_transfers_sign" in logged
