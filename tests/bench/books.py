"""Books of any size for measurements: valid, migrated, and made in seconds by the database itself.

Players take turns. Of every four of a player's transfers one is a lost bet, then come 10.50 to REAL, 2.00 to
BONUS and 0.07 to REAL; the players begin at different places of that, so that every second has all of it.
What a player has after a number of transfers is then a formula.
"""

# ruff: noqa: S608  (the statements are this file's own)

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

INTEGRATION: Final = "books"


async def fill(engine: AsyncEngine, transfers: int, players: int, *, per_second: int = 100) -> None:
    """Fill migrated, empty books with `transfers` of `player-0`, `player-1`, ..., the last one posted now.

    There are `per_second`, by their ids too, which are UUIDv7 as workers make them. Three of four have two
    entries; the others, being of zero, have none. On PostgreSQL indexes, foreign keys and triggers are
    off meanwhile, for which the user must be a superuser; in the end all are back, the tables vacuumed.
    """
    on_postgresql = engine.dialect.name == "postgresql"
    words = _POSTGRESQL if on_postgresql else _SQLITE
    start_millis = int(datetime.now(UTC).timestamp() * 1000) - transfers * 1000 // per_second
    numbers = {"start": start_millis, "per_second": per_second, "transfers": transfers, "players": players}
    async with engine.begin() as connection, _unhindered(connection, on_postgresql=on_postgresql):
        for statement in (_PLAYERS, _WALLETS, _TRANSFERS, _ENTRIES):
            await connection.exec_driver_sql(_said(statement, words, numbers))
    if on_postgresql:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("VACUUM (ANALYZE) players, wallets, transfers, entries"))


def provider_tx_id(number: int) -> str:
    """Return the provider's id of the transfer with this number, from 0."""
    return f"tx-{number * 2654435761 % 2**60}"


def _said(statement: str, words: dict[str, str], numbers: dict[str, int]) -> str:
    """Return the statement with its <words> in the database's own, and its <numbers> in figures."""
    for _ in range(4):  # words are made of words
        for word, meaning in {**_FORMULAS, **words}.items():
            statement = statement.replace(f"<{word}>", meaning)
    for word, number in numbers.items():
        statement = statement.replace(f"<{word}>", str(number))
    return statement


_FORMULAS: Final = {
    "c": "(i / <players> + 1 + <ahead>)",
    "ahead": "(i % <players> % 4)",
    "millis": "(<start> + i * 1000 / <per_second>)",
    "to_real": "CASE <c> % 4 WHEN 2 THEN 1050 WHEN 0 THEN 7 ELSE 0 END",
    "to_bonus": "CASE <c> % 4 WHEN 3 THEN 200 ELSE 0 END",
    "real": "(<c> / 4 * 1057 + 1050 * <second>)",
    "bonus": "(<c> / 4 * 200 + 200 * <third>)",
    "real_entries": "(<c> / 4 * 2 + <second>)",
    "bonus_entries": "(<c> / 4 + <third>)",
    "second": "(CASE WHEN <c> % 4 >= 2 THEN 1 ELSE 0 END - CASE WHEN <ahead> >= 2 THEN 1 ELSE 0 END)",
    "third": "(CASE WHEN <c> % 4 = 3 THEN 1 ELSE 0 END - CASE WHEN <ahead> = 3 THEN 1 ELSE 0 END)",
    "chance": "(i * 2654435761 % 1152921504606846976)",
}
"""What the transfer with which a player's count comes to c pays, and what it leaves."""

_POSTGRESQL: Final = {
    "transfer_id": "(lpad(to_hex(<millis>), 12, '0') || '7000a' || lpad(to_hex(<chance>), 15, '0'))::uuid",
    "real_wallet": "(lpad(to_hex(i % <players>), 12, '0') || '70001' || lpad('a', 15, '0'))::uuid",
    "bonus_wallet": "(lpad(to_hex(i % <players>), 12, '0') || '70002' || lpad('b', 15, '0'))::uuid",
    "moment": "to_timestamp(<millis> / 1000.0)",
    "each_player": "(SELECT generate_series(0::bigint, <players> - 1) AS i) AS s",
    "each_transfer": "(SELECT generate_series(0::bigint, <transfers> - 1) AS i) AS s",
}
_SQLITE: Final = {
    "transfer_id": "printf('%012x7000a%015x', <millis>, <chance>)",
    "real_wallet": "printf('%012x70001%015x', i % <players>, 10)",
    "bonus_wallet": "printf('%012x70002%015x', i % <players>, 11)",
    "moment": "strftime('%Y-%m-%d %H:%M:%f000', <millis> / 1000.0, 'unixepoch')",
    "each_player": "(WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < <players> - 1)"
    " SELECT i FROM n) AS s",
    "each_transfer": "(WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n"
    " WHERE i < <transfers> - 1) SELECT i FROM n) AS s",
}

_PLAYERS: Final = """
    INSERT INTO players (id, currency, created_at)
    SELECT 'player-' || (i % <players>), 'EUR', <moment> FROM <each_player>
"""
# i counts the transfers, and `last` is the player's own last one.
_LAST: Final = "(SELECT <transfers> - 1 - (<transfers> - 1 - i) % <players> AS i FROM <each_player>) AS last"
_WALLETS: Final = f"""
    INSERT INTO wallets (id, player_id, currency, kind, balance_minor, version)
    SELECT <real_wallet>, 'player-' || (i % <players>), 'EUR', 'REAL', <real>, <real_entries> FROM {_LAST}
    UNION ALL
    SELECT <bonus_wallet>, 'player-' || (i % <players>), 'EUR', 'BONUS', <bonus>, <bonus_entries> FROM {_LAST}
"""
_TRANSFERS: Final = f"""
    INSERT INTO transfers (
        id, integration, provider_tx_id, player_id, currency, amount_minor, kind, round_id, game_id, bet_id,
        real_minor, bonus_minor, real_balance_minor, bonus_balance_minor, round_closed, session_id, details,
        posted_at
    )
    SELECT <transfer_id>, '{INTEGRATION}', 'tx-' || <chance>, 'player-' || (i % <players>), 'EUR',
        <to_real> + <to_bonus>, 'win', 'round-' || i, 'game-1', 'bet-' || i,
        <to_real>, <to_bonus>, <real>, <bonus>, i % 2 = 0, NULL, '{{}}', <moment>
    FROM <each_transfer>
"""
_ENTRIES: Final = """
    INSERT INTO entries (transfer_id, account, wallet_id, amount_minor, balance_minor, wallet_version)
    SELECT <transfer_id>,
        CASE WHEN leg = 1 THEN 'SETTLEMENT' WHEN <c> % 4 = 3 THEN 'BONUS' ELSE 'REAL' END,
        CASE WHEN leg = 1 THEN NULL WHEN <c> % 4 = 3 THEN <bonus_wallet> ELSE <real_wallet> END,
        CASE WHEN leg = 1 THEN -1 ELSE 1 END * (<to_real> + <to_bonus>),
        CASE WHEN leg = 1 THEN NULL WHEN <c> % 4 = 3 THEN <bonus> ELSE <real> END,
        CASE WHEN leg = 1 THEN NULL WHEN <c> % 4 = 3 THEN <bonus_entries> ELSE <real_entries> END
    FROM <each_transfer> CROSS JOIN (SELECT 0 AS leg UNION ALL SELECT 1) AS legs
    WHERE <c> % 4 <> 1
"""


@asynccontextmanager
async def _unhindered(connection: AsyncConnection, *, on_postgresql: bool) -> AsyncIterator[None]:
    """Take off what makes each row slow, and put it back, checked against all rows at once."""
    if not on_postgresql:
        definition = (await connection.execute(_EMPTY_WALLETS)).scalar_one()
        await connection.execute(text("DROP TRIGGER wallets_begin_empty"))
        yield
        await connection.execute(text(definition))
        return
    await connection.execute(text("SET LOCAL session_replication_role = replica"))
    await connection.execute(text("SET LOCAL maintenance_work_mem = '512MB'"))
    constraints = (await connection.execute(_CONSTRAINTS)).all()
    indexes = (await connection.execute(_INDEXES)).all()
    for table, name, _ in constraints:
        await connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))
    for name, _ in indexes:
        await connection.execute(text(f"DROP INDEX {name}"))
    yield
    for _, definition in indexes:
        await connection.execute(text(definition))
    for table, name, definition in reversed(constraints):
        await connection.execute(text(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}"))


_EMPTY_WALLETS: Final = text("SELECT sql FROM sqlite_master WHERE name = 'wallets_begin_empty'")

# Foreign keys first: they lean on the others.
_CONSTRAINTS: Final = text("""
    SELECT CAST(CAST(conrelid AS regclass) AS text), CAST(conname AS text), pg_get_constraintdef(oid)
    FROM pg_constraint
    WHERE contype IN ('f', 'p', 'u') AND (
        conrelid IN (CAST('transfers' AS regclass), CAST('entries' AS regclass))
        OR confrelid IN (CAST('transfers' AS regclass), CAST('entries' AS regclass))
    )
    ORDER BY contype, conname
""")
_INDEXES: Final = text("""
    SELECT CAST(CAST(indexrelid AS regclass) AS text), pg_get_indexdef(indexrelid)
    FROM pg_index
    WHERE indrelid IN (CAST('transfers' AS regclass), CAST('entries' AS regclass))
        AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid)
""")
