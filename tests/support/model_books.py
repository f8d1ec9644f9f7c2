"""The model's holders, written to the tables, and the tables, read as the model keeps its books."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Row, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from shared.operations import Wallet
from tests.support.model import Identity, Model, Offer
from worker.database.schema import conflicts, players, sessions, transfers, wallets


class Books(NamedTuple):
    """The books of some players."""

    balances: Mapping[tuple[str, str, Wallet], int]
    transfers: Mapping[Identity, Row[Any]]
    conflicts: Sequence[tuple[Identity, Offer]]


async def write_holders(engine: AsyncEngine, model: Model, session_player_id: str) -> None:
    """Write the model's players, empty wallets and sessions, the latter as one player's."""
    now = datetime.now(UTC)
    rows: dict[Table, list[dict[str, Any]]] = {
        players: [
            {"id": id_, "currency": currency, "created_at": now} for id_, currency in model.own_currencies.items()
        ],
        wallets: [
            dict(zip(wallets.columns.keys(), (uuid7(), player_id, currency, kind.value, 0, 0), strict=True))
            for player_id, currency, kind in model.balances
        ],
        sessions: [
            {
                "integration": integration,
                "id": session_id,
                "player_id": session_player_id,
                "currency": model.own_currencies[session_player_id],
                "opened_at": now,
            }
            for integration, session_id in model.open_sessions
        ],
    }
    async with engine.begin() as connection:
        for table, values in rows.items():
            await connection.execute(insert(table), values)


async def read_books(engine: AsyncEngine, player_ids: Sequence[str]) -> Books:
    """Read what the tables hold of these players."""
    async with engine.connect() as connection:
        held = await connection.execute(select(wallets).where(wallets.c.player_id.in_(player_ids)))
        balances = {(row.player_id, row.currency, Wallet(row.kind)): row.balance_minor for row in held}
        posted = await connection.execute(select(transfers).where(transfers.c.player_id.in_(player_ids)))
        rows = {(row.integration, row.provider_tx_id): row for row in posted}
        identities = {row.id: identity for identity, row in rows.items()}
        offered = await connection.execute(select(conflicts).where(conflicts.c.transfer_id.in_(list(identities))))
        offers = [(identities[row.transfer_id], frozenset(msgspec.json.decode(row.offered).items())) for row in offered]
    return Books(balances, rows, offers)
