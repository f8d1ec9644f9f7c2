"""The ledger's statements, for the two databases it runs on.

On PostgreSQL whole sets travel as arrays, and one statement writes a batch; SQLite takes its rows one by one.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, Protocol

from sqlalchemy import (
    BindParameter,
    Column,
    Dialect,
    TextualSelect,
    bindparam,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.posting import Identity, Plan, Row, SignedIdentity, settlement_leg
from worker.schema import CONFLICTS_MAX, SETTLEMENT, conflicts, entries, transfers, wallets

_WALLET = ("id", "player_id", "currency", "kind", "balance_minor", "version")
_TRANSFER = (
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
    """What `worker.ledger.Ledger` asks of a database to post a batch, in the order in which it asks."""

    async def read_wallets(self, connection: AsyncConnection, player_ids: Collection[str]) -> Sequence[Any]:
        """Return the players' wallets, which may change at any moment."""

    async def lock_wallets(self, connection: AsyncConnection, player_ids: Collection[str]) -> Sequence[Any]:
        """Lock the players' wallets, in the order of their ids, and return them."""

    async def find_transfers(
        self, connection: AsyncConnection, identities: Collection[Identity]
    ) -> Sequence[Any]:
        """Return those of the transfers that are posted: integration, provider_tx_id, then the rest."""

    async def find_signed(
        self, connection: AsyncConnection, signed: Collection[SignedIdentity]
    ) -> Sequence[Any]:
        """Return the transfers that these signed messages have paid: integration, digest, then the rest."""

    async def insert(self, connection: AsyncConnection, planned: Plan) -> None:
        """Insert transfers, each flagged if its player's round was closed, and entries; set the wallets.

        Raises a transient DBAPIError, and writes nothing, when a wallet is not as it was found, or a
        transfer is not new: others came first.
        """

    async def insert_conflicts(self, connection: AsyncConnection, rows: Sequence[Row]) -> None:
        """Insert conflicts, the first of each transfer alone; one that was seen before stays as it was."""


class PostgresStatements:
    """Sets as arrays, unnested by the server."""

    async def read_wallets(self, connection: AsyncConnection, player_ids: Collection[str]) -> Sequence[Any]:
        """Return the players' wallets, which may change at any moment."""
        return (await connection.exec_driver_sql(_READ_WALLETS, (list(player_ids),))).all()

    async def lock_wallets(self, connection: AsyncConnection, player_ids: Collection[str]) -> Sequence[Any]:
        """Lock with FOR NO KEY UPDATE, as an update does."""
        return (await connection.exec_driver_sql(_LOCK_WALLETS, (list(player_ids),))).all()

    async def find_transfers(
        self, connection: AsyncConnection, identities: Collection[Identity]
    ) -> Sequence[Any]:
        """Look up by the unique index."""
        return (await connection.exec_driver_sql(_FIND_TRANSFERS, _arrays(tuple(identities), 2))).all()

    async def find_signed(
        self, connection: AsyncConnection, signed: Collection[SignedIdentity]
    ) -> Sequence[Any]:
        """Look up by the unique index of digests."""
        return (await connection.exec_driver_sql(_FIND_SIGNED, _arrays(tuple(signed), 2))).all()

    async def insert(self, connection: AsyncConnection, planned: Plan) -> None:
        """Write all in one statement: what it writes is known, so that its parts need not see one another.

        Waits for another worker that holds a wallet or is inserting the same id or signed message.
        """
        parameters = (
            planned.posted_at,
            *_arrays(planned.transfer_rows, len(_TRANSFER_ROW)),
            *_arrays(planned.leg_rows, len(entries.columns)),
            *_arrays(planned.wallet_rows, len(_WALLET_CHANGE)),
        )
        await connection.exec_driver_sql(_INSERT, parameters)

    async def insert_conflicts(self, connection: AsyncConnection, rows: Sequence[Row]) -> None:
        """Insert the whole set, but for those that are there."""
        await connection.exec_driver_sql(_INSERT_CONFLICTS, _arrays(rows, len(conflicts.columns)))


def _names(columns: Iterable[Column[Any]]) -> str:
    return ", ".join(column.name for column in columns)


def _unnested(columns: Iterable[Column[Any]], first: int = 1) -> str:
    """Return what turns the arrays that are the parameters from $first on into rows `n` of the columns."""
    typed = [(c.name, c.type.compile(_DIALECT).partition(" COLLATE")[0]) for c in columns]
    arrays = ", ".join(f"${n}::{type_}[]" for n, (_, type_) in enumerate(typed, first))
    return f"unnest({arrays}) AS n ({', '.join(name for name, _ in typed)})"


# In the driver's own words: SQLAlchemy's compiler would look at each parameter of each batch.
_READ_WALLETS: Final = f"SELECT {', '.join(_WALLET)} FROM wallets WHERE player_id = ANY($1::text[])"  # noqa: S608
_LOCK_WALLETS: Final = f"{_READ_WALLETS} ORDER BY id FOR NO KEY UPDATE"


def _find_by(key: str, type_: str) -> str:
    """Return the query for transfers by (integration, key), one search of a unique index for each."""
    return (
        f"SELECT t.integration, t.{key}, {', '.join(f't.{name}' for name in _TRANSFER)} FROM"  # noqa: S608
        f" unnest($1::text[], $2::{type_}[]) AS k (integration, {key})"
        " CROSS JOIN LATERAL (SELECT * FROM transfers AS f WHERE f.integration = k.integration"
        f" AND f.{key} = k.{key} LIMIT 1) AS t"
    )


_FIND_TRANSFERS: Final = _find_by("provider_tx_id", "text")
_FIND_SIGNED: Final = _find_by("signed_digest", "bytea")
_WALLET_CHANGE: Final = (
    wallets.c.id,
    wallets.c.balance_minor,
    wallets.c.version,
    Column("found_minor", wallets.c.balance_minor.type),
    Column("found_version", wallets.c.version.type),
)
_TRANSFER_ROW: Final = tuple(column for column in transfers.columns if column is not transfers.c.posted_at)
_TRANSFERS_FIRST: Final = 2  # after `posted_at`
_LEGS_FIRST: Final = _TRANSFERS_FIRST + len(_TRANSFER_ROW)
_WALLETS_FIRST: Final = _LEGS_FIRST + len(entries.columns)


# In this form, as with LATERAL above, it is a search by the round's index, whatever the tables' sizes are
# believed to be: new books are taken for empty until they are analyzed, and plans are kept.
_ROUND_WAS_CLOSED = (
    "COALESCE((SELECT true FROM (SELECT integration FROM transfers"
    " WHERE round_id = n.round_id AND player_id = n.player_id AND round_closed OFFSET 0) AS t"
    " WHERE t.integration = n.integration LIMIT 1), false)"
)
# `held` is counted before the first row is inserted: wallets are locked before ids, and both in their order.
# An id that is there is left out, as is a signed message that has paid: then all is refused, and looked at.
# Of a transfer's columns the last is `after_round_closed`, of which the batch knows its own part.
_INSERT: Final = f"""
WITH held AS (
    SELECT n.* FROM {_unnested(_WALLET_CHANGE, _WALLETS_FIRST)}
    JOIN wallets AS w ON w.id = n.id AND w.balance_minor = n.found_minor AND w.version = n.found_version
    ORDER BY w.id FOR NO KEY UPDATE OF w
), posted AS (
    INSERT INTO transfers (posted_at, {_names(_TRANSFER_ROW)})
    SELECT $1::timestamptz, {", ".join(f"n.{column.name}" for column in _TRANSFER_ROW[:-1])},
        n.after_round_closed OR {_ROUND_WAS_CLOSED}
    FROM {_unnested(_TRANSFER_ROW, _TRANSFERS_FIRST)}
    WHERE (SELECT count(*) FROM held) = cardinality(${_WALLETS_FIRST}::uuid[])
    ON CONFLICT DO NOTHING
    RETURNING id
), legs AS (
    INSERT INTO entries ({_names(entries.columns)})
    SELECT leg.* FROM {_unnested(entries.columns, _LEGS_FIRST)}
    CROSS JOIN LATERAL (
        VALUES ({", ".join(f"n.{column.name}" for column in entries.columns)}),
            (n.transfer_id, '{SETTLEMENT}', NULL, -n.amount_minor, NULL, NULL)
    ) AS leg
), moved AS (
    UPDATE wallets SET balance_minor = held.balance_minor, version = held.version
    FROM held WHERE wallets.id = held.id AND held.version <> held.found_version
)
SELECT refuse_overtaken() WHERE (SELECT count(*) FROM posted) <> cardinality(${_TRANSFERS_FIRST}::uuid[])
"""  # noqa: S608
_INSERT_CONFLICTS: Final = f"""
INSERT INTO conflicts ({_names(conflicts.columns)})
SELECT {_names(conflicts.columns)} FROM (
    SELECT *, row_number() OVER (PARTITION BY transfer_id) AS place
    FROM (SELECT DISTINCT * FROM {_unnested(conflicts.columns)}) AS n
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


def _arrays(rows: Sequence[Row], width: int) -> tuple[Sequence[Any], ...]:
    """Return rows of a width as one array a column, empty ones if there are none."""
    return tuple(zip(*rows, strict=True)) if rows else ((),) * width


class SqliteStatements:
    """SQLAlchemy's own, row by row. The transaction holds the whole file's lock already."""

    async def lock_wallets(self, connection: AsyncConnection, player_ids: Collection[str]) -> Sequence[Any]:
        """Read; BEGIN IMMEDIATE has locked."""
        return await self.read_wallets(connection, player_ids)

    async def read_wallets(self, connection: AsyncConnection, player_ids: Collection[str]) -> Sequence[Any]:
        """Read by player."""
        columns = [wallets.c[name] for name in _WALLET]
        return (await connection.execute(select(*columns).where(wallets.c.player_id.in_(player_ids)))).all()

    async def find_transfers(
        self, connection: AsyncConnection, identities: Collection[Identity]
    ) -> Sequence[Any]:
        """Look up by the unique index."""
        return (await connection.execute(_FIND_TRANSFERS_BY_ROW, {"keys": list(identities)})).all()

    async def find_signed(
        self, connection: AsyncConnection, signed: Collection[SignedIdentity]
    ) -> Sequence[Any]:
        """Look up by the unique index of digests."""
        return (await connection.execute(_FIND_SIGNED_BY_ROW, {"keys": list(signed)})).all()

    async def insert(self, connection: AsyncConnection, planned: Plan) -> None:
        """Insert and update one after the other; nobody else can have come between.

        Which rounds were closed is asked before: row by row, a win would see those of its own batch, which
        are in the order of their ids and not in the order in which they came.
        """
        new = _dicts(_TRANSFER_ROW, planned.transfer_rows)
        closed = await _closed_rounds(connection, {_round(row) for row in new})
        for row in new:
            row["after_round_closed"] |= _round(row) in closed
            row["posted_at"] = planned.posted_at
        await connection.execute(insert(transfers), new)
        if planned.leg_rows:
            legs = [leg for row in planned.leg_rows for leg in (row, settlement_leg(row))]
            await connection.execute(insert(entries), _dicts(entries.columns, legs))
            names = ("wallet_id", "balance_minor", "version")
            await connection.execute(
                _SET_WALLET, [dict(zip(names, row[:3], strict=True)) for row in planned.wallet_rows]
            )

    async def insert_conflicts(self, connection: AsyncConnection, rows: Sequence[Row]) -> None:
        """Insert, but for those that are there."""
        names = ("kept_id", "offered_now", "seen_at")
        await connection.execute(_INSERT_CONFLICT, [dict(zip(names, row, strict=True)) for row in rows])


def _round(row: dict[str, Any]) -> Row:
    return row["integration"], row["round_id"], row["player_id"]


async def _closed_rounds(connection: AsyncConnection, rounds: Collection[Row]) -> set[Row]:
    named = [one for one in rounds if one[1] is not None]
    found = await connection.execute(_FIND_CLOSED_ROUNDS, {"keys": named}) if named else ()
    return {tuple(row) for row in found}


def _dicts(columns: Iterable[Column[Any]], rows: Sequence[Row]) -> list[dict[str, Any]]:
    names = [column.name for column in columns]
    return [dict(zip(names, row, strict=True)) for row in rows]


_KEPT = select(func.count()).where(conflicts.c.transfer_id == bindparam("kept_id")).scalar_subquery()
_INSERT_CONFLICT = (
    sqlite.insert(conflicts)
    .from_select(
        [column.name for column in conflicts.columns],
        select(
            bindparam("kept_id", type_=conflicts.c.transfer_id.type),
            bindparam("offered_now", type_=conflicts.c.offered.type),
            bindparam("seen_at", type_=conflicts.c.first_seen_at.type),
        ).where(_KEPT < CONFLICTS_MAX),
    )
    .on_conflict_do_nothing()
)
_SET_WALLET = update(wallets).where(wallets.c.id == bindparam("wallet_id"))
# Joined with a list of keys, because SQLite before 3.41 looks up `(a, b) IN (VALUES ...)` in no index.
_KEYS: Final[BindParameter[Sequence[Row]]] = bindparam("keys", expanding=True)


def _find_by_row(key: str) -> TextualSelect:
    names = ("integration", key, *_TRANSFER)
    statement = text(
        f"SELECT {', '.join(f't.{name}' for name in names)} FROM :keys AS k CROSS JOIN transfers AS t"  # noqa: S608
        f" ON t.integration = k.column1 AND t.{key} = k.column2"
    )
    return statement.bindparams(_KEYS).columns(*(transfers.c[name] for name in names))


_FIND_TRANSFERS_BY_ROW = _find_by_row("provider_tx_id")
_FIND_SIGNED_BY_ROW = _find_by_row("signed_digest")
_FIND_CLOSED_ROUNDS = text(
    "SELECT DISTINCT t.integration, t.round_id, t.player_id FROM :keys AS k CROSS JOIN transfers AS t"
    " ON t.integration = k.column1 AND t.round_id = k.column2 AND t.player_id = k.column3"
    " WHERE t.round_closed"
).bindparams(_KEYS)
