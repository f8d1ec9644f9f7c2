"""The ledger's statements on PostgreSQL: whole sets travel as arrays, and one statement writes a batch."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Column, Dialect
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.database.replication import COPY
from worker.database.schema import CONFLICTS_MAX, SETTLEMENT, wallets
from worker.ledger.planner import Plan
from worker.ledger.rows import ConflictRow, WalletRow
from worker.ledger.state import Identity, SignedIdentity
from worker.ledger.statements import (
    CONFLICT_COLUMNS,
    ENTRY_COLUMNS,
    TRANSFER,
    TRANSFER_COLUMNS,
    WALLET,
    Statements,
)

_DIALECT: Final[Dialect] = postgresql.dialect()  # type: ignore[no-untyped-call]


class PostgresStatements(Statements):
    """Sets as arrays, unnested by the server."""

    async def read_wallets(self, connection: AsyncConnection, player_ids: Collection[str]) -> Sequence[Any]:
        """Return the players' wallets, which may change at any moment."""
        return (await connection.exec_driver_sql(_READ_WALLETS, (list(player_ids),))).all()

    async def lock_wallets(self, connection: AsyncConnection, player_ids: Collection[str]) -> Sequence[Any]:
        """Lock with FOR NO KEY UPDATE, as an update does."""
        return (await connection.exec_driver_sql(_LOCK_WALLETS, (list(player_ids),))).all()

    async def find_transfers(self, connection: AsyncConnection, identities: Collection[Identity]) -> Sequence[Any]:
        """Look up by the unique index."""
        return (await connection.exec_driver_sql(_FIND_TRANSFERS, _arrays(tuple(identities), 2))).all()

    async def find_signed(self, connection: AsyncConnection, signed: Collection[SignedIdentity]) -> Sequence[Any]:
        """Look up by the unique index of digests."""
        return (await connection.exec_driver_sql(_FIND_SIGNED, _arrays(tuple(signed), 2))).all()

    async def read_copy(self, connection: AsyncConnection) -> str:
        """Ask for what `COPY` is."""
        return str((await connection.exec_driver_sql(f"SELECT {COPY}")).scalar_one())

    async def insert(self, connection: AsyncConnection, planned: Plan) -> str:
        """Write all in one statement: what it writes is known, so that its parts need not see one another.

        Waits for another worker that holds a wallet or is inserting the same id or signed message.
        """
        parameters = (
            planned.posted_at,
            *_arrays(planned.transfer_rows, len(TRANSFER_COLUMNS)),
            *_arrays(planned.entry_rows, len(ENTRY_COLUMNS)),
            *_arrays(planned.wallet_rows, len(_WALLET_COLUMNS)),
        )
        return str((await connection.exec_driver_sql(_INSERT, parameters)).scalar_one())

    async def insert_conflicts(self, connection: AsyncConnection, rows: Sequence[ConflictRow]) -> None:
        """Insert the whole set, but for those that are there."""
        await connection.exec_driver_sql(_INSERT_CONFLICTS, _arrays(rows, len(CONFLICT_COLUMNS)))


def _names(columns: Iterable[Column[Any]]) -> str:
    return ", ".join(column.name for column in columns)


def _unnested(columns: Iterable[Column[Any]], first: int = 1) -> str:
    """Return what turns the arrays that are the parameters from $first on into rows `n` of the columns."""
    typed = [(c.name, c.type.compile(_DIALECT).partition(" COLLATE")[0]) for c in columns]
    arrays = ", ".join(f"${n}::{type_}[]" for n, (_, type_) in enumerate(typed, first))
    return f"unnest({arrays}) AS n ({', '.join(name for name, _ in typed)})"


# In the driver's own words: SQLAlchemy's compiler would look at each parameter of each batch.
_READ_WALLETS: Final = f"SELECT {', '.join(WALLET)} FROM wallets WHERE player_id = ANY($1::text[])"  # noqa: S608
_LOCK_WALLETS: Final = f"{_READ_WALLETS} ORDER BY id FOR NO KEY UPDATE"


def _find_by(key: str, type_: str) -> str:
    """Return the query for transfers by (integration, key), one search of a unique index for each."""
    return (
        f"SELECT t.integration, t.{key}, {', '.join(f't.{name}' for name in TRANSFER)} FROM"  # noqa: S608
        f" unnest($1::text[], $2::{type_}[]) AS k (integration, {key})"
        " CROSS JOIN LATERAL (SELECT * FROM transfers AS f WHERE f.integration = k.integration"
        f" AND f.{key} = k.{key} LIMIT 1) AS t"
    )


_FIND_TRANSFERS: Final = _find_by("provider_tx_id", "text")
_FIND_SIGNED: Final = _find_by("signed_digest", "bytea")
_FOUND: Final = {"found_minor": wallets.c.balance_minor, "found_version": wallets.c.version}
_WALLET_COLUMNS: Final = tuple(
    Column(name, _FOUND[name].type) if name in _FOUND else wallets.c[name] for name in WalletRow._fields
)
_TRANSFERS_FIRST: Final = 2  # after `posted_at`
_ENTRIES_FIRST: Final = _TRANSFERS_FIRST + len(TRANSFER_COLUMNS)
_WALLETS_FIRST: Final = _ENTRIES_FIRST + len(ENTRY_COLUMNS)


# In this form, as with LATERAL above, it is a search by the round's index, whatever the tables' sizes are
# believed to be: new books are taken for empty until they are analyzed, and plans are kept.
_ROUND_WAS_CLOSED = (
    "COALESCE((SELECT true FROM (SELECT integration FROM transfers"
    " WHERE round_id = n.round_id AND player_id = n.player_id AND round_closed OFFSET 0) AS t"
    " WHERE t.integration = n.integration LIMIT 1), false)"
)
# `held` is counted before the first row is inserted: wallets are locked before ids, and both in their order.
# An identity that is posted is left out, as is a signed message that has paid: then the whole statement is
# refused. Of a transfer's columns the last is `after_round_closed`, of which the batch knows its own part.
_INSERT: Final = f"""
WITH held AS (
    SELECT n.* FROM {_unnested(_WALLET_COLUMNS, _WALLETS_FIRST)}
    JOIN wallets AS w ON w.id = n.id AND w.balance_minor = n.found_minor AND w.version = n.found_version
    ORDER BY w.id FOR NO KEY UPDATE OF w
), posted AS (
    INSERT INTO transfers (posted_at, {_names(TRANSFER_COLUMNS)})
    SELECT $1::timestamptz, {", ".join(f"n.{column.name}" for column in TRANSFER_COLUMNS[:-1])},
        n.after_round_closed OR {_ROUND_WAS_CLOSED}
    FROM {_unnested(TRANSFER_COLUMNS, _TRANSFERS_FIRST)}
    WHERE (SELECT count(*) FROM held) = cardinality(${_WALLETS_FIRST}::uuid[])
    ON CONFLICT DO NOTHING
    RETURNING id, real_minor + bonus_minor AS moved_minor
), legs AS (
    INSERT INTO entries ({_names(ENTRY_COLUMNS)})
    SELECT n.* FROM {_unnested(ENTRY_COLUMNS, _ENTRIES_FIRST)}
    UNION ALL
    SELECT id, '{SETTLEMENT}', NULL, -moved_minor, NULL, NULL FROM posted WHERE moved_minor <> 0
), moved AS (
    UPDATE wallets SET balance_minor = held.balance_minor, version = held.version
    FROM held WHERE wallets.id = held.id AND held.version <> held.found_version
)
SELECT {COPY}, CASE
    WHEN (SELECT count(*) FROM posted) <> cardinality(${_TRANSFERS_FIRST}::uuid[]) THEN refuse_overtaken()
END
"""  # noqa: S608
_INSERT_CONFLICTS: Final = f"""
INSERT INTO conflicts ({_names(CONFLICT_COLUMNS)})
SELECT {_names(CONFLICT_COLUMNS)} FROM (
    SELECT *, row_number() OVER (PARTITION BY transfer_id) AS place
    FROM (SELECT DISTINCT * FROM {_unnested(CONFLICT_COLUMNS)}) AS n
    WHERE NOT EXISTS (
        SELECT FROM conflicts AS c WHERE c.transfer_id = n.transfer_id AND c.offered = n.offered
    )
) AS new
WHERE place + (
    SELECT count(*) FROM (
        SELECT FROM conflicts AS c WHERE c.transfer_id = new.transfer_id LIMIT {CONFLICTS_MAX}
    ) AS kept
) <= {CONFLICTS_MAX}
ON CONFLICT DO NOTHING
"""  # noqa: S608


def _arrays(rows: Sequence[tuple[Any, ...]], width: int) -> tuple[Sequence[Any], ...]:
    """Return rows of a width as one array a column, empty ones if there are none."""
    return tuple(zip(*rows, strict=True)) if rows else ((),) * width
