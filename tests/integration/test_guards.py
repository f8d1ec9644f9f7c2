"""What the database itself refuses, whoever writes to it."""

# ruff: noqa: S608  (the statements are this file's own)

from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.credit import Wallet
from tests.credits import win
from worker.holders import add_player
from worker.ledger import Ledger


@pytest.fixture
async def books(engine: AsyncEngine) -> AsyncEngine:
    """Two players, one with wallets in two currencies, a win, a lost bet, and a conflict."""
    for player_id, currency in (("anna", "EUR"), ("anna", "USD"), ("ben", "EUR")):
        await add_player(engine, player_id, currency)
    await Ledger(engine).post([win("paid"), win("lost", amount_minor=0), win("paid", amount_minor=1)])
    return engine


async def execute(engine: AsyncEngine, statement: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement))


def wallet_of(player_id: str, currency: str, kind: Wallet) -> str:
    return (
        "(SELECT id FROM wallets"
        f" WHERE player_id = '{player_id}' AND currency = '{currency}' AND kind = '{kind}')"
    )


def leg_of_the_lost_bet(account: str, wallet: str) -> str:
    """Return an INSERT that gives a win to a transfer that has none, on some wallet."""
    of_lost = "(SELECT id FROM transfers WHERE provider_tx_id = 'lost')"
    return f"INSERT INTO entries VALUES ({of_lost}, '{account}', {wallet}, 5, 5, 1)"


@pytest.mark.parametrize(
    ("account", "wallet"),
    [
        ("REAL", wallet_of("ben", "EUR", Wallet.REAL)),
        ("REAL", wallet_of("anna", "USD", Wallet.REAL)),
        ("REAL", wallet_of("anna", "EUR", Wallet.BONUS)),
        ("BONUS", wallet_of("anna", "EUR", Wallet.REAL)),
    ],
    ids=["another player", "another currency", "another kind", "the kind that the entry is not of"],
)
async def test_entry_can_only_be_on_its_players_wallet(books: AsyncEngine, account: str, wallet: str) -> None:
    with pytest.raises(DBAPIError, match="wallet of another player, currency or kind"):
        await execute(books, leg_of_the_lost_bet(account, wallet))


async def test_legs_that_do_not_sum_to_zero_are_refused(books: AsyncEngine) -> None:
    right_wallet = wallet_of("anna", "EUR", Wallet.REAL)
    if books.dialect.name == "sqlite":  # sees one row at a time: there the audit tells
        await execute(books, leg_of_the_lost_bet("REAL", right_wallet))
        return
    with pytest.raises(DBAPIError, match="sum to zero"):
        await execute(books, leg_of_the_lost_bet("REAL", right_wallet))


REFUSED = {
    "a currency in small letters": "INSERT INTO players VALUES ('carl', 'eur', '2026-01-01')",
    "no currency": "INSERT INTO players VALUES ('carl', '', '2026-01-01')",
    "a wallet of another currency's letters": (
        f"INSERT INTO wallets VALUES ('{uuid4().hex}', 'ben', 'usd', 'REAL', 0, 0)"
    ),
    "a third kind of wallet": f"INSERT INTO wallets VALUES ('{uuid4().hex}', 'ben', 'USD', 'GOLD', 0, 0)",
    "a second wallet of a kind": f"INSERT INTO wallets VALUES ('{uuid4().hex}', 'ben', 'EUR', 'REAL', 0, 0)",
    "a wallet of nobody": f"INSERT INTO wallets VALUES ('{uuid4().hex}', 'nobody', 'EUR', 'REAL', 0, 0)",
    "a balance below zero": "UPDATE wallets SET balance_minor = -1",
    "a balance of 19 digits": "UPDATE wallets SET balance_minor = 1000000000000000000",
    "an epoch beside the epoch": f"INSERT INTO ledger VALUES (2, '{uuid4().hex}')",
}


@pytest.mark.parametrize("what", REFUSED)
async def test_database_refuses(books: AsyncEngine, what: str) -> None:
    with pytest.raises(IntegrityError):
        await execute(books, REFUSED[what])


TRANSFER_COLUMNS = (
    "id, integration, provider_tx_id, player_id, currency, amount_minor, kind, real_minor, bonus_minor,"
    " real_balance_minor, bonus_balance_minor, round_closed, details, posted_at"
)


@pytest.mark.parametrize(
    ("currency", "amount_minor", "real_minor", "bonus_minor"),
    [
        ("EUR", -1, -1, 0),
        ("EUR", 5, 10, -5),
        ("EUR", 5, 5, 5),
        ("EUR", 10**18, 10**18, 0),
        ("eur", 5, 5, 0),
    ],
    ids=["negative", "a negative part", "parts of another sum", "19 digits", "currency"],
)
async def test_transfer_must_make_sense(
    books: AsyncEngine, currency: str, amount_minor: int, real_minor: int, bonus_minor: int
) -> None:
    values = (
        f"'{uuid4().hex}', 'klas', 'by hand', 'anna', '{currency}', {amount_minor}, 'win',"
        f" {real_minor}, {bonus_minor}, 0, 0, false, '{{}}', '2026-01-01'"
    )
    with pytest.raises(IntegrityError):
        await execute(books, f"INSERT INTO transfers ({TRANSFER_COLUMNS}) VALUES ({values})")


@pytest.mark.parametrize("table", ["transfers", "entries", "conflicts"])
@pytest.mark.parametrize("change", ["UPDATE {} SET {} = {}", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
async def test_what_was_posted_stays(books: AsyncEngine, table: str, change: str) -> None:
    column = {"transfers": "player_id", "entries": "account", "conflicts": "offered"}[table]
    statement = change.format(table, column, column)
    if books.dialect.name == "sqlite" and statement.startswith("TRUNCATE"):
        statement = f"DELETE FROM {table} WHERE 1"  # what SQLite calls its truncate optimization
    with pytest.raises(DBAPIError, match="append-only"):
        await execute(books, statement)
