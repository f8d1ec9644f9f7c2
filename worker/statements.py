"""The ledger's statements, for the two databases it runs on.

On PostgreSQL whole sets travel as arrays, one statement a set; SQLite takes its rows one by one.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol

from sqlalchemy import Dialect, Table, TextClause, bindparam, insert, select, text, tuple_, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.posting import Identity, Row
from worker.schema import entries, transfers, wallets

_WALLET = ("id", "player_id", "currency", "kind", "balance_minor", "version")
_TRANSFER = (
    "integration",
    "provider_tx_id",
    "id",
    "player_id",
    "currency",
    "amount_minor",
    "kind",
    "round_id",
    "game_id",
    "bet_id",
    "real_minor",
    "bonus_minor",
    "real_balance_minor",
    "bonus_balance_minor",
)


_DIALECT: Final[Dialect] = postgresql.dialect()  # type: ignore[no-untyped-call]


class Statements(Protocol):
    """What `worker.ledger.post` asks of a database, in the order in which it asks."""

    async def lock_wallets(self, connection: AsyncConnection, player_ids: Collection[str]) -> Sequence[Any]:
        """Lock the players' wallets, in the order of their ids, and return them."""

    async def find_transfers(
        self, connection: AsyncConnection, identities: Collection[Identity]
    ) -> Sequence[Any]:
        """Return those of the transfers that are posted."""

    async def insert_transfers(self, connection: AsyncConnection, rows: Sequence[Row]) -> int:
        """Insert transfers; return how many were not there already."""

    async def insert_entries(self, connection: AsyncConnection, rows: Sequence[Row]) -> None:
        """Insert entries."""

    async def update_wallets(self, connection: AsyncConnection, rows: Sequence[Row]) -> None:
        """Set balances and versions: rows of (id, balance_minor, version)."""


class PostgresStatements:
    """Sets as arrays, unnested by the server."""

    def __init__(self) -> None:
        self._insert_transfers: Final = _unnest_insert(
            transfers, "ON CONFLICT (integration, provider_tx_id) DO NOTHING"
        )
        self._insert_entries: Final = _unnest_insert(entries)

    async def lock_wallets(self, connection: AsyncConnection, player_ids: Collection[str]) -> Sequence[Any]:
        """Lock with FOR NO KEY UPDATE: an entry's foreign key to the wallet need not wait."""
        return (await connection.execute(_LOCK_WALLETS, {"player_ids": list(player_ids)})).all()

    async def find_transfers(
        self, connection: AsyncConnection, identities: Collection[Identity]
    ) -> Sequence[Any]:
        """Look up by the unique index."""
        integrations, provider_tx_ids = map(list, zip(*identities, strict=True))
        keys = {"integrations": integrations, "provider_tx_ids": provider_tx_ids}
        return (await connection.execute(_FIND_TRANSFERS, keys)).all()

    async def insert_transfers(self, connection: AsyncConnection, rows: Sequence[Row]) -> int:
        """Wait for another worker that is inserting the same id; then pass over it."""
        return (await connection.execute(self._insert_transfers, _arrays(rows))).rowcount

    async def insert_entries(self, connection: AsyncConnection, rows: Sequence[Row]) -> None:
        """Insert the whole set."""
        await connection.execute(self._insert_entries, _arrays(rows))

    async def update_wallets(self, connection: AsyncConnection, rows: Sequence[Row]) -> None:
        """Update the whole set."""
        await connection.execute(_UPDATE_WALLETS, _arrays(rows))


_LOCK_WALLETS = text(
    f"SELECT {', '.join(_WALLET)} FROM wallets WHERE player_id = ANY(CAST(:player_ids AS text[]))"  # noqa: S608
    " ORDER BY id FOR NO KEY UPDATE"
)
_FIND_TRANSFERS = text(
    f"SELECT {', '.join(f't.{name}' for name in _TRANSFER)} FROM"  # noqa: S608
    " unnest(CAST(:integrations AS text[]), CAST(:provider_tx_ids AS text[]))"
    " AS k (integration, provider_tx_id)"
    " JOIN transfers AS t USING (integration, provider_tx_id)"
)
_UPDATE_WALLETS = text(
    "UPDATE wallets SET balance_minor = n.balance_minor, version = n.version"
    " FROM unnest(CAST(:c0 AS uuid[]), CAST(:c1 AS bigint[]), CAST(:c2 AS bigint[]))"
    " AS n (id, balance_minor, version) WHERE wallets.id = n.id"
)


def _unnest_insert(table: Table, on_conflict: str = "") -> TextClause:
    types = [str(column.type.compile(_DIALECT)) for column in table.columns]
    arrays = ", ".join(f"CAST(:c{n} AS {type_}[])" for n, type_ in enumerate(types))
    names = ", ".join(column.name for column in table.columns)
    return text(f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({arrays}) {on_conflict}")  # noqa: S608


def _arrays(rows: Sequence[Row]) -> dict[str, list[Any]]:
    return {f"c{n}": list(column) for n, column in enumerate(zip(*rows, strict=True))}


class SqliteStatements:
    """SQLAlchemy's own, row by row. The transaction holds the whole file's lock already."""

    async def lock_wallets(self, connection: AsyncConnection, player_ids: Collection[str]) -> Sequence[Any]:
        """Read; BEGIN IMMEDIATE has locked."""
        columns = [wallets.c[name] for name in _WALLET]
        return (await connection.execute(select(*columns).where(wallets.c.player_id.in_(player_ids)))).all()

    async def find_transfers(
        self, connection: AsyncConnection, identities: Collection[Identity]
    ) -> Sequence[Any]:
        """Look up by the unique index."""
        identity = tuple_(transfers.c.integration, transfers.c.provider_tx_id)
        columns = [transfers.c[name] for name in _TRANSFER]
        return (await connection.execute(select(*columns).where(identity.in_(identities)))).all()

    async def insert_transfers(self, connection: AsyncConnection, rows: Sequence[Row]) -> int:
        """Insert; nobody else can have come between."""
        await connection.execute(insert(transfers), _dicts(transfers, rows))
        return len(rows)

    async def insert_entries(self, connection: AsyncConnection, rows: Sequence[Row]) -> None:
        """Insert."""
        await connection.execute(insert(entries), _dicts(entries, rows))

    async def update_wallets(self, connection: AsyncConnection, rows: Sequence[Row]) -> None:
        """Update by primary key."""
        statement = update(wallets).where(wallets.c.id == bindparam("wallet_id"))
        new = [
            {"wallet_id": id_, "balance_minor": balance, "version": version} for id_, balance, version in rows
        ]
        await connection.execute(statement, new)


def _dicts(table: Table, rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [dict(zip(table.columns.keys(), row, strict=True)) for row in rows]
