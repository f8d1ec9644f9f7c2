"""What the database itself refuses, whoever writes to it."""

# ruff: noqa: S608  (the statements are this file's own)

from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.operations import Wallet
from tests.support.credits import win
from worker.database.schema import metadata
from worker.ledger.transaction import Ledger
from worker.players import add_player, close_session, open_session


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
    return f"(SELECT id FROM wallets WHERE player_id = '{player_id}' AND currency = '{currency}' AND kind = '{kind}')"


def leg_of(provider_tx_id: str, account: str, wallet: str) -> str:
    """Return an INSERT that gives a transfer one leg of 5, on some wallet."""
    transfer = f"(SELECT id FROM transfers WHERE provider_tx_id = '{provider_tx_id}')"
    return f"INSERT INTO entries VALUES ({transfer}, '{account}', {wallet}, 5, 5, 1)"


def transfer_by_hand(
    currency: str = "EUR",
    amount_minor: int = 5,
    real_minor: int = 5,
    bonus_minor: int = 0,
    player_id: str = "anna",
) -> str:
    """Return an INSERT of a transfer, without its legs."""
    values = (
        f"'{uuid4().hex}', 'klas', 'by hand', '{player_id}', '{currency}', {amount_minor}, 'win',"
        f" {real_minor}, {bonus_minor}, 0, 0, false, '{{}}', '2026-01-01'"
    )
    return f"INSERT INTO transfers ({TRANSFER_COLUMNS}) VALUES ({values})"


TRANSFER_COLUMNS = (
    "id, integration, provider_tx_id, player_id, currency, amount_minor, kind, real_minor, bonus_minor,"
    " real_balance_minor, bonus_balance_minor, round_closed, details, posted_at"
)


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
        await execute(books, leg_of("lost", account, wallet))


RIGHT_WALLET = wallet_of("anna", "EUR", Wallet.REAL)


async def test_legs_that_do_not_sum_to_zero_are_refused(books: AsyncEngine) -> None:
    await execute(books, transfer_by_hand())
    if books.dialect.name == "sqlite":  # sees one row at a time: there the audit tells
        await execute(books, leg_of("by hand", "REAL", RIGHT_WALLET))
        return
    with pytest.raises(IntegrityError, match="sum to zero"):
        await execute(books, leg_of("by hand", "REAL", RIGHT_WALLET))


async def test_nothing_more_is_paid_for_a_transfer_than_it_says(books: AsyncEngine) -> None:
    with pytest.raises(IntegrityError, match="another amount than its transfer says"):
        await execute(books, leg_of("lost", "REAL", RIGHT_WALLET))


async def test_nothing_is_paid_without_a_transfer(books: AsyncEngine) -> None:
    with pytest.raises(IntegrityError):
        await execute(books, f"INSERT INTO entries VALUES ('{uuid4().hex}', 'SETTLEMENT', NULL, -5, NULL, NULL)")


@pytest.mark.parametrize(("player_id", "currency"), [("nobody", "EUR"), ("ben", "USD")])
async def test_win_is_of_a_player_with_a_wallet_for_it(books: AsyncEngine, player_id: str, currency: str) -> None:
    with pytest.raises(IntegrityError, match="no wallet in its currency"):
        await execute(books, transfer_by_hand(currency, player_id=player_id))


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM wallets WHERE player_id = 'ben'",
        "TRUNCATE wallets",
        "UPDATE wallets SET player_id = 'ben' WHERE currency = 'USD'",
        "UPDATE wallets SET currency = 'SEK' WHERE currency = 'USD'",
        "UPDATE wallets SET kind = 'BONUS'",
        f"UPDATE wallets SET id = '{'f' * 32}' WHERE player_id = 'ben' AND kind = 'REAL'",
    ],
)
async def test_wallet_stays_and_stays_its_players(books: AsyncEngine, change: str) -> None:
    if books.dialect.name == "sqlite" and change.startswith("TRUNCATE"):
        change = "DELETE FROM wallets"
    with pytest.raises(IntegrityError, match="a wallet stays"):
        await execute(books, change)


@pytest.mark.parametrize("balance", ["99999900, 0", "0, 1"])
async def test_new_wallet_is_empty(books: AsyncEngine, balance: str) -> None:
    with pytest.raises(IntegrityError, match="a new wallet is empty"):
        await execute(books, f"INSERT INTO wallets VALUES ('{uuid4().hex}', 'ben', 'USD', 'REAL', {balance})")


HOLDERS_CHANGED = {
    "a session of another player": "UPDATE sessions SET player_id = 'ben'",
    "a session in another currency": "UPDATE sessions SET currency = 'USD'",
    "a session under another id": "UPDATE sessions SET id = 'other'",
    "a session of another integration": "UPDATE sessions SET integration = 'other'",
    "a closed session that is open again": "UPDATE sessions SET closed_at = NULL",
    "a closed session that was closed at another time": "UPDATE sessions SET closed_at = '2001-01-01'",
    "no session": "DELETE FROM sessions",
    "a player's other currency": "UPDATE players SET currency = 'USD' WHERE id = 'ben'",
    "no player": "DELETE FROM players WHERE id = 'ben'",
}


@pytest.mark.parametrize("change", HOLDERS_CHANGED.values(), ids=HOLDERS_CHANGED)
async def test_who_holds_a_session_or_an_account_never_changes(books: AsyncEngine, change: str) -> None:
    await open_session(books, "gpas", "s", "anna")
    await close_session(books, "gpas", "s")
    with pytest.raises(IntegrityError, match="never change hands"):
        await execute(books, change)


@pytest.mark.parametrize("table", ["sessions", "players"])
async def test_tables_of_holders_can_not_be_emptied(books: AsyncEngine, table: str) -> None:
    word = "DELETE FROM" if books.dialect.name == "sqlite" else "TRUNCATE"
    await open_session(books, "gpas", "s", "anna")
    with pytest.raises(IntegrityError, match="never change hands"):
        await execute(books, f"{word} {table}{' CASCADE' * (word == 'TRUNCATE')}")


@pytest.mark.parametrize("table", ["sessions", "players"])
async def test_holder_can_not_be_replaced(books: AsyncEngine, table: str) -> None:
    """SQLite's REPLACE deletes without asking triggers of DELETE."""
    if books.dialect.name == "postgresql":
        return  # has no such word
    await open_session(books, "gpas", "s", "anna")
    before = await rows_of(books, table)
    names = [column.name for column in metadata.tables[table].columns]
    values = ", ".join("'USD'" if name == "currency" else name for name in names)
    await execute(books, f"REPLACE INTO {table} SELECT {values} FROM {table}")
    assert await rows_of(books, table) == before


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
    "an epoch beside the epoch": f"INSERT INTO ledger SELECT 2, '{uuid4().hex}', cache_key, cell FROM ledger",
    "a cache key that anybody can guess": "UPDATE ledger SET cache_key = substr(cache_key, 1, 0)",
}


@pytest.mark.parametrize("what", REFUSED)
async def test_database_refuses(books: AsyncEngine, what: str) -> None:
    with pytest.raises(IntegrityError):
        await execute(books, REFUSED[what])


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
    with pytest.raises(IntegrityError):
        await execute(books, transfer_by_hand(currency, amount_minor, real_minor, bonus_minor))


@pytest.mark.parametrize("table", ["transfers", "entries", "conflicts"])
@pytest.mark.parametrize("change", ["UPDATE {} SET {} = {}", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
async def test_what_was_posted_stays(books: AsyncEngine, table: str, change: str) -> None:
    column = {"transfers": "player_id", "entries": "account", "conflicts": "offered"}[table]
    statement = change.format(table, column, column)
    if books.dialect.name == "sqlite" and statement.startswith("TRUNCATE"):
        statement = f"DELETE FROM {table} WHERE 1"  # what SQLite calls its truncate optimization
    with pytest.raises(DBAPIError, match="append-only"):
        await execute(books, statement)


@pytest.mark.parametrize("table", ["transfers", "entries", "conflicts"])
async def test_what_was_posted_can_not_be_replaced(books: AsyncEngine, table: str) -> None:
    """SQLite's REPLACE deletes without asking triggers of DELETE."""
    if books.dialect.name == "postgresql":
        return  # has no such word
    before = await rows_of(books, table)
    columns = [column.name for column in metadata.tables[table].columns]
    changed = {"posted_at": "'2001-01-01'", "first_seen_at": "'2001-01-01'", "balance_minor": "NULL"}
    other = ", ".join(changed.get(column, column) for column in columns)
    for word in ("REPLACE INTO", "INSERT OR REPLACE INTO"):
        with suppress(IntegrityError):  # refused aloud, or passed over
            await execute(books, f"{word} {table} SELECT {other} FROM {table}")
        assert await rows_of(books, table) == before


async def rows_of(engine: AsyncEngine, table: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(f"SELECT * FROM {table}"))]
