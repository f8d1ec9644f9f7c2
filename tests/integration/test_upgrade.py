"""Books that an earlier version wrote: every migration leaves them as they are, and posting goes on."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

import worker.database.migrations
from shared.money import Currencies
from shared.outcome import OutcomeCode
from shared.settings import LedgerSettings
from tests.support.credits import WIN, win
from worker.database.engine import create_engine
from worker.database.migrate import migrate
from worker.database.schema import metadata, wallets
from worker.ledger.transaction import Ledger
from worker.verify import verify

CONFIG = Config()
CONFIG.set_main_option("script_location", str(Path(worker.database.migrations.__file__).parent))
EARLIER = [script.revision for script in ScriptDirectory.from_config(CONFIG).walk_revisions()][1:]

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
REAL, BONUS = UUID(int=1), UUID(int=2)
PAID, LOST = UUID(int=11), UUID(int=12)


def transfer(transfer_id: UUID, provider_tx_id: str, amount_minor: int) -> dict[str, Any]:
    return {
        "id": transfer_id,
        "integration": WIN.integration,
        "provider_tx_id": provider_tx_id,
        "player_id": WIN.player_id,
        "currency": WIN.currency,
        "amount_minor": amount_minor,
        "kind": WIN.kind.value,
        "round_id": WIN.round_id,
        "game_id": WIN.game_id,
        "bet_id": WIN.bet_id,
        "real_minor": amount_minor,
        "bonus_minor": 0,
        "real_balance_minor": WIN.amount_minor,
        "bonus_balance_minor": 0,
        "round_closed": True,
        "session_id": "session-1",
        "details": "{}",
        "posted_at": WHEN,
    }


def entry(account: str, wallet_id: UUID | None, amount_minor: int) -> dict[str, Any]:
    return {
        "transfer_id": PAID,
        "account": account,
        "wallet_id": wallet_id,
        "amount_minor": amount_minor,
        "balance_minor": amount_minor if wallet_id else None,
        "wallet_version": 1 if wallet_id else None,
    }


def wallet(wallet_id: UUID, kind: str, balance_minor: int, version: int) -> dict[str, Any]:
    owner = {"player_id": "anna", "currency": "EUR"}
    return {"id": wallet_id, **owner, "kind": kind, "balance_minor": balance_minor, "version": version}


BOOKS: dict[str, list[dict[str, Any]]] = {
    "players": [{"id": "anna", "currency": "EUR", "created_at": WHEN}],
    "sessions": [{"integration": "gpas", "id": "s", "player_id": "anna", "currency": "EUR", "opened_at": WHEN}],
    "wallets": [wallet(REAL, "REAL", WIN.amount_minor, 1), wallet(BONUS, "BONUS", 0, 0)],
    "transfers": [transfer(PAID, WIN.provider_tx_id, WIN.amount_minor), transfer(LOST, "lost", 0)],
    "entries": [entry("REAL", REAL, WIN.amount_minor), entry("SETTLEMENT", None, -WIN.amount_minor)],
}
"""What the first version wrote. A later version that must write more has a default for it, or a new test."""

EMPTY = {"balance_minor": 0, "version": 0}


def write_books(connection: Connection, revision: str) -> None:
    CONFIG.attributes["connection"] = connection
    command.upgrade(CONFIG, revision)
    for name, rows in BOOKS.items():
        written = [{**row, **EMPTY} for row in rows] if name == "wallets" else rows
        connection.execute(insert(metadata.tables[name]).values(written))  # one statement: legs come together
    for row in BOOKS["wallets"]:  # which begin empty
        filled = {column: row[column] for column in EMPTY}
        connection.execute(update(wallets).where(wallets.c.id == row["id"]).values(filled))


async def read_books(engine: AsyncEngine) -> dict[str, list[Any]]:
    """Return the rows of every table, in the columns of the first version."""
    books = {}
    async with engine.connect() as connection:
        for name, (first, *_) in BOOKS.items():
            columns = [metadata.tables[name].c[column] for column in first]
            rows = await connection.execute(select(*columns).order_by(*columns[:2]))
            books[name] = [tuple(row) for row in rows]
    return books


@pytest.fixture(params=EARLIER)
async def old_books(database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[AsyncEngine]:
    """Books as each earlier version left them."""
    engine = create_engine(LedgerSettings(database_url=database_url))
    try:
        async with engine.begin() as connection:
            await connection.run_sync(write_books, request.param)
        yield engine
    finally:
        await engine.dispose()


async def test_migration_keeps_every_row(old_books: AsyncEngine) -> None:
    before = await read_books(old_books)
    assert {name: len(rows) for name, rows in before.items()} == {n: len(rows) for n, rows in BOOKS.items()}
    await migrate(old_books)
    assert await read_books(old_books) == before


async def test_win_of_an_earlier_version_is_not_paid_again(old_books: AsyncEngine) -> None:
    await migrate(old_books)
    planned = await Ledger(old_books).post([WIN, win(amount_minor=1), win("new")])
    assert [o.code for o in planned.outcomes] == [
        OutcomeCode.REPLAYED,
        OutcomeCode.CONFLICT,
        OutcomeCode.POSTED,
    ]
    replayed, _, posted = planned.outcomes
    assert replayed.receipt is not None
    assert UUID(replayed.receipt.transfer_id) == PAID
    assert replayed.receipt.balance_minor == WIN.amount_minor
    assert posted.receipt is not None
    assert posted.receipt.balance_minor == 2 * WIN.amount_minor
    audit = await verify(old_books, Currencies())
    assert (audit.holds, audit.transfers) == (True, 3)


async def test_win_of_an_earlier_version_stays_as_it_was_posted(old_books: AsyncEngine) -> None:
    await migrate(old_books)
    for table in ("transfers", "entries"):
        with pytest.raises(DBAPIError, match="append-only"):
            async with old_books.begin() as connection:
                await connection.execute(text(f"UPDATE {table} SET amount_minor = amount_minor + 1"))  # noqa: S608
