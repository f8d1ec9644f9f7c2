"""What the ledger holds, read straight from its tables, in the terms of a history."""

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from simulator.history import Books, Content, Posted, Receipt

_TRANSFERS: Final = """
SELECT integration, provider_tx_id, player_id, currency, amount_minor,
       transfers.id, real_balance_minor + bonus_balance_minor, coalesce(moved.minor, 0)
FROM transfers
LEFT JOIN (SELECT transfer_id, sum(amount_minor) AS minor
           FROM entries WHERE wallet_id IS NOT NULL GROUP BY transfer_id) AS moved
ON moved.transfer_id = transfers.id
"""
_BALANCES: Final = "SELECT player_id, sum(balance_minor) FROM wallets GROUP BY player_id"


async def read_books(engine: AsyncEngine) -> Books:
    """Read one state of the ledger."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        posted = [
            Posted(Content(*row[:5]), Receipt(str(row[5]), int(row[6])), int(row[7]))
            for row in await connection.execute(text(_TRANSFERS))
        ]
        balances = {row[0]: int(row[1]) for row in await connection.execute(text(_BALANCES))}
    return Books(posted, balances)
